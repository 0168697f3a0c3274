"""The workers of a run: long-lived Ray actors, what came of their stages, and what is left of those
that died.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ablations.errors import UserError
from ablations.resources import Shape
from ablations.stages import Stage
from sweeps.isolation import isolated
from sweeps.preemption import had_notice
from sweeps.ray_session import RaySession
from sweeps.records import TIMELINE
from sweeps.run_times import of_dead_worker
from sweeps.shipping import git_revision, import_paths
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.watchdog import Signs
    from sweeps.worker import Cause, Outcome

UNREACHABLE_SECONDS = 120.0  # within which Ray tells what became of an actor that it cannot reach
ASK_SECONDS = 1.0
AGAIN_SECONDS = 5.0  # until a worker that did not start is tried again
STARTS = 3  # of one worker that fail, before a run ends in which nothing else runs


class RemoteWorker(Protocol):
    """What runs stages somewhere on the cluster, one after the other: a process, or several that
    run each stage together.
    """

    def run(self, stage: Stage) -> Future[Outcome]:
        """Begin a stage; the future raises `LostError`, or what Ray says, if no outcome comes."""
        ...

    def stop(self) -> None:
        """Ask the running stage to save itself and stop."""
        ...

    def go_on(self) -> None:
        """Take stages again after a stop."""
        ...

    def ready(self) -> Future[Sequence[str]]:
        """Once its processes are there, the ids of their nodes; raises where they do not start.

        It may take until the cluster has room.
        """
        ...

    def signs(self) -> Future[Signs]:
        """How long nothing was heard of the running stage where it runs, and where it is."""
        ...

    def kill(self) -> None:
        """End it at once, whatever it does; never raises."""
        ...


class _Arrived(NamedTuple):
    """What became of a stage that was given to a worker's process, or of the start of that."""

    worker: str
    process: RemoteWorker
    future: Future[Any]
    of_start: bool


class LostError(Exception):
    """A worker that did not answer: why in one `line` and in a word, and what else is known."""

    def __init__(self, line: str, told: str = "", cause: Cause = "died"):
        super().__init__(f"{line}\n\n{told}".strip())
        self.line, self.cause = line, cause


def explained(actor: Any, asked: Future[Any]) -> Future[Any]:
    """What an actor was asked; where Ray cannot reach it, once Ray knows what became of it.

    When a machine is lost, Ray says first that its actors are unavailable, and only later, when the
    machine has been silent for long enough, that it has died: which is no failure of the stage.
    """
    from ray.exceptions import ActorUnavailableError

    answer: Future[Any] = Future()

    def take(future: Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, ActorUnavailableError):  # not here: this is a thread of Ray's
            threading.Thread(target=find_out, name="what became of it", daemon=True).start()
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(future.result())

    def find_out() -> None:
        answer.set_exception(what_became_of(actor))

    asked.add_done_callback(take)
    return answer


def what_became_of(actor: Any) -> Exception:
    """How an actor has died that Ray could not reach, as Ray tells it; waits until it does."""
    from ray.exceptions import ActorUnavailableError

    until = time.monotonic() + UNREACHABLE_SECONDS
    while (left := until - time.monotonic()) > 0:
        try:
            actor.__ray_ready__.remote().future().result(left)
        except ActorUnavailableError:
            time.sleep(ASK_SECONDS)
        except TimeoutError:  # it is there, and busy
            break
        except Exception as error:
            return error
        else:
            break
    return LostError("its machine could not be reached for a while", cause="taken away")


class ActorWorker:
    """A worker that is one Ray actor (`sweeps.worker.Worker`)."""

    def __init__(
        self, shape: Shape, node: str, arguments: tuple[str, ...], variables: dict[str, str]
    ):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from sweeps.worker import Worker

        options: dict[str, Any] = {
            "num_cpus": shape.cpu,
            "num_gpus": shape.gpu,
            "memory": shape.memory_bytes or None,
            "resources": {"TPU": shape.tpu.chips} if shape.tpu is not None else None,
            # Elsewhere, if that node is gone.
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True),
            "concurrency_groups": {"control": 1},  # so that `stop` is heard while a stage runs
            "runtime_env": {"env_vars": variables},
        }
        self._actor: Any = ray.remote(**options)(Worker).remote(*arguments)

    def run(self, stage: Stage) -> Future[Outcome]:
        """Begin a stage."""
        return explained(self._actor, self._actor.run.remote(stage).future())

    def stop(self) -> None:
        """Ask the running stage to save itself and stop."""
        self._actor.stop.options(concurrency_group="control").remote()

    def go_on(self) -> None:
        """Take stages again: calls of one concurrency group are answered in their order."""
        self._actor.go_on.options(concurrency_group="control").remote()

    def ready(self) -> Future[Sequence[str]]:
        """The node of its process, once that is there."""
        return explained(self._actor, self._control("nodes"))

    def signs(self) -> Future[Signs]:
        """How long nothing was heard of the running stage where it runs, and where it is."""
        return self._control("signs")

    def _control(self, method: str) -> Future[Any]:
        """Call it beside the stage that runs."""
        return getattr(self._actor, method).options(concurrency_group="control").remote().future()

    def kill(self) -> None:
        """End the process."""
        import ray

        with contextlib.suppress(Exception):  # where Ray itself is gone
            ray.kill(self._actor)


class Pool:
    """Long-lived workers by name, at most one stage on each.

    A worker is given a stage only once its processes are there: one that it held while it waits for
    room, on a machine that may be gone, could go to nobody else.

    `environment` gives variables of the processes of a worker of some shape, beside those that
    isolate it.
    """

    def __init__(
        self,
        store: Store,
        data: Path,
        environment: Callable[[Shape], Mapping[str, str]],
        session: RaySession,
        run: str,
        say: Callable[[str], None],
    ):
        self._say = say
        self._run = run  # its name in the records of what it ran
        self._store, self._data = store, data
        self._environment = environment
        self._shapes: dict[str, Shape] = {}
        # Worker → the nodes it is on, or is to come to.
        self.nodes: dict[str, Sequence[str]] = {}
        self.coming: dict[str, float] = {}  # workers without a process, since when, by our clock
        self.session = session
        self._git_revision = git_revision()
        self._workers: dict[str, RemoteWorker] = {}
        self._running: dict[str, str] = {}  # busy worker → stage
        self._handed_out_at: dict[str, float] = {}  # since 1970
        # What came of a stage, or of a worker's start; Ray's own threads put it there.
        self._arrived: SimpleQueue[_Arrived] = SimpleQueue()
        self._failed_starts: Counter[str] = Counter()  # of a worker, since it was there last
        self._again_at: dict[str, float] = {}  # when one that did not start is tried again
        self._ended: dict[str, tuple[Cause, str, str]] = {}  # by `end`: why, in short and at length
        self._leaving: set[str] = set()  # their machines are taken away
        self._interrupted: set[str] = set()  # busy workers that were asked to stop their stage
        self.idle: dict[str, None] = {}  # workers without a stage
        self.replaced = 0  # workers whose process died
        self.stopping = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()

    def add(self, worker: str, shape: Shape, nodes: Sequence[str]) -> None:
        """One more worker, on nodes that have room for it: it is idle once it is there."""
        self._shapes[worker], self.nodes[worker] = shape, nodes
        self._begin(worker)

    def dismiss(self, worker: str) -> None:
        """End a worker that has no stage."""
        self._workers.pop(worker).kill()
        del self._shapes[worker], self.nodes[worker]
        for known in (self.idle, self.coming, self._failed_starts, self._again_at):
            known.pop(worker, None)

    @cached_property
    def _import_paths(self) -> str:
        return os.pathsep.join(import_paths(self._store.local / "packages"))

    def _start_worker(self, worker: str) -> RemoteWorker:
        shape = self._shapes[worker]
        variables = {
            **isolated(shape),
            **self._environment(shape),
            "PYTHONPATH": self._import_paths,
        }
        arguments = (self._store.root, str(self._data), self._git_revision, self._run, worker)
        if shape.hosts > 1:
            return self._gang(shape, arguments, variables)
        return ActorWorker(shape, self.nodes[worker][0], arguments, variables)

    def _gang(
        self, shape: Shape, arguments: tuple[str, ...], variables: dict[str, str]
    ) -> RemoteWorker:
        """Several processes, which are placed by themselves."""
        from sweeps.gang import GangWorker, placement_of

        return GangWorker(lambda: placement_of(shape), arguments, variables, self._say)

    @property
    def busy(self) -> bool:
        """Whether any stage is under way."""
        return bool(self._running)

    def is_busy(self, worker: str) -> bool:
        """Whether a worker has a stage."""
        return worker in self._running

    def start(self, worker: str, stage: Any) -> None:
        """Give an idle worker a stage."""
        try:
            future = self._workers[worker].run(stage)
        except Exception:
            self.session.check()
            raise
        del self.idle[worker]
        self._running[worker] = stage.id
        self._handed_out_at[worker] = time.time()
        process = self._workers[worker]
        future.add_done_callback(
            lambda future: self._arrived.put(_Arrived(worker, process, future, of_start=False))
        )

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """What was finished within `timeout` seconds; returns with the first, or with a worker.

        Whatever Ray says of a stage is an outcome: a process that was killed or ended itself, by
        the memory monitor too, a result that cannot be sent. Where an outcome has `renewed`, its
        worker is a new process, which is idle once it is there.

        Raises:
            UserError: workers do not start, and nothing runs.
        """
        self._try_again()
        outcomes = []
        wait = timeout
        with contextlib.suppress(Empty):
            while True:
                arrived = self._arrived.get(timeout=wait)
                wait = 0.0
                if not arrived.of_start:
                    outcomes.append((arrived.worker, self._came_of_stage(arrived)))
                elif self._workers.get(arrived.worker) is arrived.process:
                    self._came_of_start(arrived.worker, arrived.future)
        return outcomes

    def _came_of_stage(self, arrived: _Arrived) -> Outcome:
        worker = arrived.worker
        try:
            outcome = arrived.future.result()
        except Exception as error:
            self.session.check()  # a Ray that is gone is not the stage's failure
            outcome = self._lost(worker, error)
        del self._running[worker]
        if worker in self._leaving:
            outcome = replace(outcome, leaving=True)
        ended = self._ended.pop(worker, None) is not None  # all the same it came to its end
        if ended or outcome.leaving or outcome.cause == "memory":
            outcome = replace(outcome, renewed=True)
        if worker in self._interrupted:
            self._interrupted.remove(worker)
            if not outcome.renewed:
                self._workers[worker].go_on()
        if outcome.renewed:
            self._renew(worker)
        else:
            self.idle[worker] = None
        return outcome

    def _came_of_start(self, worker: str, ready: Future[Sequence[str]]) -> None:
        error = ready.exception()
        if error is None:
            self.nodes[worker] = ready.result()
            del self.coming[worker], self._failed_starts[worker]
            self.idle[worker] = None
            return
        self.session.check()
        self._workers[worker].kill()  # what is there of it holds room
        assert isinstance(error, Exception)
        self._failed_starts[worker] += 1
        told = f"a worker did not start: {lost_worker(error)}"
        hopeless = self._failed_starts[worker] >= STARTS and cause_of(error) != "taken away"
        if hopeless and not self.busy:
            raise UserError(f"{told}; what was finished is kept, run again goes on")
        if self._failed_starts[worker] == 1:
            self._say(f"{told}; it is tried again")
        self._again_at[worker] = time.monotonic() + AGAIN_SECONDS

    def _try_again(self) -> None:
        for worker, at in list(self._again_at.items()):
            if at <= time.monotonic():
                self._begin(worker)

    def _lost(self, worker: str, error: Exception) -> Outcome:
        """The outcome of a stage whose worker did not answer, recorded in the worker's place."""
        from sweeps.worker import Outcome, failure_record
        from sweeps.worker_output import printed

        stage_id = self._running[worker]
        self.replaced += 1
        cause, text, told = self._ended.pop(worker, None) or (
            cause_of(error),
            lost_worker(error),
            str(error),
        )
        scratch = self._store.scratch(stage_id)
        if cause == "died" and (worker in self._leaving or had_notice(scratch)):
            cause, text = "taken away", "the worker was taken away before it could save itself"
        process = re.search(r"\bpid[:=] ?(\d+)", str(error))
        output = self.session.worker_output(int(process[1])) if process else ""
        record = failure_record(text, f"{told}\n\n{output}", cause)
        record[TIMELINE] = of_dead_worker(self._run, worker, self._handed_out_at[worker])
        if said := printed(scratch):
            record["printed"] = said
        if cause == "taken away":  # no failure of the stage
            return Outcome(stage_id, "lost", error=record["error"], cause=cause, renewed=True)
        with contextlib.suppress(OSError, UserError):
            self._store.record_failure(stage_id, f"died-{secrets.token_hex(4)}", record)
        return Outcome(stage_id, "failed", error=record["error"], cause=cause, renewed=True)

    def _renew(self, worker: str) -> None:
        """Start a new process for a worker; it is idle once it is there.

        There may be no room for it until another machine comes.
        """
        self._workers[worker].kill()  # it may live, in an unknown state
        self._leaving.discard(worker)
        self.idle.pop(worker, None)
        self._begin(worker)

    def _begin(self, worker: str) -> None:
        self._again_at.pop(worker, None)
        self.coming.setdefault(worker, time.monotonic())
        process = self._workers[worker] = self._start_worker(worker)
        process.ready().add_done_callback(
            lambda future: self._arrived.put(_Arrived(worker, process, future, of_start=True))
        )

    def end(self, worker: str, cause: Cause, text: str, told: str) -> None:
        """End a busy worker's process; its stage has then failed: `text` in one line, `told` at
        length."""
        self._ended[worker] = cause, text, told
        self._workers[worker].kill()

    def leave(self, worker: str) -> None:
        """Have a worker's process yield, and start a new one elsewhere."""
        if worker in self._running:
            self._leaving.add(worker)
            self._workers[worker].stop()
        else:
            self._renew(worker)

    def signs(self, worker: str, seconds: float) -> Signs:
        """What a busy worker says of its stage; of one that does not answer, what is seen here."""
        from sweeps.watchdog import Signs, silent_seconds
        from sweeps.worker_output import stack

        try:
            return self._workers[worker].signs().result(seconds)
        except Exception:
            scratch = self._store.scratch(self._running[worker])
            return Signs(silent_seconds(scratch), stack(scratch))

    def beside(self, worker: str) -> frozenset[str]:
        """The other workers on a worker's machines."""
        own = set(self.nodes[worker])
        return frozenset(
            one for one, nodes in self.nodes.items() if one != worker and own & set(nodes)
        )

    def interrupt(self, workers: Iterable[str]) -> None:
        """Ask busy workers to save their stages and stop them; they take others afterwards."""
        for worker in set(workers) & self._running.keys() - self._interrupted:
            self._interrupted.add(worker)
            self._workers[worker].stop()

    def stop(self) -> None:
        """Ask every worker to save what it has."""
        self.stopping = True
        for worker in self._workers.values():
            worker.stop()


def lost_worker(error: Exception) -> str:
    """What to tell of a worker that did not answer, in one line; Ray says it in twenty."""
    from ray import exceptions

    if isinstance(error, LostError):
        return error.line
    text = " ".join(str(error).split())
    if isinstance(error, exceptions.OutOfMemoryError):
        return f"the worker was killed because the machine ran out of memory: {text}"
    if cause_of(error) == "taken away":
        return "the machine of the worker is gone"
    if isinstance(error, exceptions.ActorDiedError) and "creation task" not in text:
        return "the worker process died: killed, out of memory, a crash in native code, or os._exit"
    return f"the worker did not answer: {type(error).__name__}: {text}"


def cause_of(error: Exception) -> Cause:
    """Why a worker did not answer, in a word."""
    from ray import exceptions

    if isinstance(error, LostError):
        return error.cause
    if isinstance(error, exceptions.OutOfMemoryError):
        return "memory"
    if isinstance(error, exceptions.ActorDiedError):
        return "taken away" if error.preempted or "node has died" in str(error) else "died"
    return "died"
