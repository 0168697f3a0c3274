"""The workers of a run: long-lived Ray actors, what came of their stages, and what is left of those
that died.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from ablations.errors import UserError
from ablations.stages import Stage
from sweeps.ray_session import RaySession
from sweeps.records import TIMELINE
from sweeps.run_times import of_dead_worker
from sweeps.shipping import git_revision, import_paths
from sweeps.store import Store

if TYPE_CHECKING:
    from sweeps.worker import Outcome


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

    def kill(self) -> None:
        """End it at once, whatever it does; never raises."""
        ...


class LostError(Exception):
    """A worker that did not answer: why in one `line`, and what else is known of it."""

    def __init__(self, line: str, told: str = ""):
        super().__init__(f"{line}\n\n{told}".strip())
        self.line = line


class ActorWorker:
    """A worker that is one Ray actor (`sweeps.worker.Worker`)."""

    def __init__(self, arguments: tuple[str, ...], variables: dict[str, str]):
        import ray

        from sweeps.worker import Worker

        options: dict[str, Any] = {
            "num_cpus": 1,
            "concurrency_groups": {"control": 1},  # so that `stop` is heard while a stage runs
            "runtime_env": {"env_vars": variables},
        }
        self._actor: Any = ray.remote(**options)(Worker).remote(*arguments)

    def run(self, stage: Stage) -> Future[Outcome]:
        """Begin a stage."""
        return self._actor.run.remote(stage).future()

    def stop(self) -> None:
        """Ask the running stage to save itself and stop."""
        self._actor.stop.options(concurrency_group="control").remote()

    def go_on(self) -> None:
        """Take stages again: calls of one concurrency group are answered in their order."""
        self._actor.go_on.options(concurrency_group="control").remote()

    def kill(self) -> None:
        """End the process."""
        import ray

        with contextlib.suppress(Exception):  # where Ray itself is gone
            ray.kill(self._actor)


class Pool:
    """Long-lived workers by name, at most one stage on each."""

    def __init__(
        self,
        names: list[str],
        store: Store,
        data: Path,
        environment: Mapping[str, str],
        session: RaySession,
        run: str,
    ):
        self._run = run  # its name in the records of what it ran
        self._names, self._store, self._data = names, store, data
        self._environment = environment
        self.session = session
        self._git_revision = git_revision()
        self._workers: dict[str, RemoteWorker] = {}
        self._running: dict[str, str] = {}  # busy worker → stage
        self._handed_out_at: dict[str, float] = {}  # since 1970
        # Of busy workers, with what came of the stage; Ray's own threads put it there.
        self._arrived: SimpleQueue[tuple[str, Future[Outcome]]] = SimpleQueue()
        self._dead: set[str] = set()
        self._interrupted: set[str] = set()  # busy workers that were asked to stop their stage
        self.idle = dict.fromkeys(names)  # workers without a stage
        self.replaced = 0  # workers whose process died
        self.stopping = False

    def __enter__(self) -> Pool:
        for name in self._names:
            self._workers[name] = self._start_worker(name)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()

    def _start_worker(self, name: str) -> RemoteWorker:
        from sweeps.worker import ONE_THREAD

        variables = {
            **ONE_THREAD,
            **self._environment,
            "PYTHONPATH": os.pathsep.join(import_paths(self._store.local / "packages")),
        }
        arguments = (self._store.root, str(self._data), self._git_revision, self._run, name)
        return ActorWorker(arguments, variables)

    @property
    def busy(self) -> bool:
        """Whether any stage is under way."""
        return bool(self._running)

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
        future.add_done_callback(lambda future: self._arrived.put((worker, future)))

    def wait(self, timeout: float) -> list[tuple[str, Outcome]]:
        """What was finished within `timeout` seconds; returns with the first.

        Whatever Ray says of a stage is an outcome: a process that was killed or ended itself, by
        the memory monitor too, a result that cannot be sent, an actor that cannot be started.
        """
        outcomes = []
        with contextlib.suppress(Empty):
            while True:
                worker, future = self._arrived.get(timeout=0.0 if outcomes else timeout)
                try:
                    outcome = future.result()
                except Exception as error:
                    self.session.check()  # a Ray that is gone is not the stage's failure
                    outcome = self._lost(worker, error)
                del self._running[worker]
                if worker in self._interrupted:
                    self._interrupted.remove(worker)
                    if worker not in self._dead:
                        self._workers[worker].go_on()
                self.idle[worker] = None
                outcomes.append((worker, outcome))
        return outcomes

    def _lost(self, worker: str, error: Exception) -> Outcome:
        """The outcome of a stage whose worker did not answer, recorded in the worker's place."""
        from sweeps.worker import Outcome, failure_record
        from sweeps.worker_output import printed

        stage_id = self._running[worker]
        self._dead.add(worker)
        self.replaced += 1
        self._workers[worker].kill()  # it may live, in an unknown state
        text = lost_worker(error)
        process = re.search(r"\bpid[:=] ?(\d+)", str(error))
        output = self.session.worker_output(int(process[1])) if process else ""
        record = failure_record(text, f"{error}\n\n{output}")
        record[TIMELINE] = of_dead_worker(self._run, worker, self._handed_out_at[worker])
        if said := printed(self._store.scratch(stage_id)):
            record["printed"] = said
        with contextlib.suppress(OSError, UserError):
            self._store.record_failure(stage_id, f"died-{secrets.token_hex(4)}", record)
        return Outcome(stage_id, "failed", error=record["error"])

    def replace_if_dead(self, worker: str) -> bool:
        """Start a new process for a worker whose process died; whether it did."""
        if worker not in self._dead:
            return False
        self._dead.remove(worker)
        self._workers[worker] = self._start_worker(worker)
        return True

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
    if isinstance(error, exceptions.ActorDiedError) and "creation task" not in text:
        return "the worker process died: killed, out of memory, a crash in native code, or os._exit"
    return f"the worker did not answer: {type(error).__name__}: {text}"
