"""A gang: several processes, on several hosts, that run each stage together as one worker.

It is placed all or nothing, and lives as a whole: where one process dies or fails, the others may
wait for it for ever, so all are ended and the next attempt begins with new ones, wherever there is
room, from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ablations.resources import Shape
from ablations.stages import Stage
from sweeps.offer import free_now, holds, offered
from sweeps.pool import LostError, cause_of, explained, lost_worker, what_became_of

if TYPE_CHECKING:
    from sweeps.gang_member import Place
    from sweeps.watchdog import Signs
    from sweeps.worker import Outcome

T = TypeVar("T")
QUIET_SECONDS = 10.0  # without room, before somebody is told what is waited for
START_SECONDS = 300.0  # for the processes to start where there is room
ALIKE_SECONDS = 5.0  # within which Ray tells of a death that another process has noticed
FAILED_SECONDS = 15.0  # for the first process to say its own, after another has failed or died
THREAD_SECONDS = 10.0  # for the thread of a gang that is killed


class Placement(Protocol):
    """Room for the processes of a gang, asked for and given all or nothing."""

    @property
    def count(self) -> int:
        """How many processes."""
        ...

    def ready(self, seconds: float) -> bool:
        """Wait for the room; whether it is there. To be asked again until it is.

        Raises:
            LostError: it will never be there.
        """
        ...

    def options(self, index: int) -> dict[str, Any]:
        """Of Ray's actor in the place of that index."""
        ...

    def order(self, places: Sequence[Place]) -> list[int]:
        """The indices of the places, in the order in which the processes are counted."""
        ...

    def variables(self, number: int, first: Place) -> dict[str, str]:
        """Of the environment of a process, counted in that order."""
        ...

    def lacking(self) -> str:
        """What was asked for, and what there is of it, in a line."""
        ...

    def free(self) -> None:
        """Give the room back, or stop asking for it; never raises."""
        ...


class HostsPlacement:
    """Room on so many hosts, the same on each: a placement group of Ray's.

    `apart` False allows that several of them are the same host, as on a laptop.
    """

    def __init__(self, count: int, host: Mapping[str, float], *, apart: bool = True):
        from ray.util import placement_group

        self._host = {name: amount for name, amount in host.items() if amount}
        strategy = "STRICT_SPREAD" if apart else "PACK"
        self._group = placement_group([self._host] * count, strategy=strategy)
        self.count = count

    def ready(self, seconds: float) -> bool:
        """See `Placement`."""
        return self._group.wait(seconds)

    def options(self, index: int) -> dict[str, Any]:
        """See `Placement`."""
        return in_bundle(self._group, index, self._host)

    def order(self, places: Sequence[Place]) -> list[int]:
        """See `Placement`."""
        return list(range(len(places)))

    def variables(self, number: int, first: Place) -> dict[str, str]:
        """See `Placement`."""
        return {}

    def lacking(self) -> str:
        """See `Placement`."""
        alive, free = offered(), free_now()
        fit = [node for node in alive if holds(node.has, self._host)]
        now = [node for node in fit if holds(free.get(node.id, {}), self._host)]
        wanted = ", ".join(f"{name} {amount:g}" for name, amount in self._host.items())
        return (
            f"{self.count} hosts with {wanted} each; of {len(alive)} hosts that are alive "
            f"{len(fit)} have that, {len(now)} of them free"
        )

    def free(self) -> None:
        """See `Placement`."""
        from ray.util import remove_placement_group

        with contextlib.suppress(Exception):  # where Ray itself is gone
            remove_placement_group(self._group)


def placement_of(shape: Shape) -> Placement:
    """Room for a worker of several processes, or on a TPU slice."""
    host = {"CPU": shape.cpu, "GPU": shape.gpu, "memory": shape.memory_bytes}
    if shape.tpu is not None:
        from sweeps.tpu_slices import SlicePlacement

        return SlicePlacement(shape.tpu, host, hosts=shape.hosts)
    return HostsPlacement(shape.hosts, host)


def in_bundle(group: Any, index: int, bundle: Mapping[str, float]) -> dict[str, Any]:
    """Options of an actor that takes all of one bundle of a placement group."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    own = dict(bundle)
    return {
        "num_cpus": own.pop("CPU", 0),
        "num_gpus": own.pop("GPU", 0),
        "memory": own.pop("memory", 0) or None,
        "resources": own,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=index
        ),
    }


class GangWorker:
    """A `RemoteWorker` that is a gang."""

    def __init__(
        self,
        place: Callable[[], Placement],
        arguments: Sequence[str],  # of `sweeps.worker.Worker`
        variables: Mapping[str, str],
        say: Callable[[str], None],
    ):
        self._place, self._say = place, say
        self._arguments = tuple(arguments)
        self._variables = dict(variables)
        self._placement: Placement | None = None
        self._members: list[Any] = []
        self.places: list[Place] = []  # of the processes, in their order
        self._failures: list[Future[dict[str, Any]]] = []  # of each; raises when it dies
        self._threads: list[threading.Thread] = []
        self._killed = threading.Event()
        self._changing = threading.Lock()  # of what there is to be freed

    def ready(self) -> Future[Sequence[str]]:
        """Once it has room and its processes are there, their nodes; to be asked once."""

        def start() -> list[str]:
            self._start()
            return [one.node for one in self.places]

        return self._beside(start)

    def run(self, stage: Stage) -> Future[Outcome]:
        """Begin a stage, of a gang that is ready."""

        def run() -> Outcome:
            outcome = self._run(stage)
            # Of one that failed nobody knows what the others wait for.
            return replace(outcome, renewed=outcome.state == "failed")

        return self._beside(run)

    def _beside(self, work: Callable[[], T]) -> Future[T]:
        """What comes of it in a thread.

        Where that is an error the gang is not ended yet: whoever is told must see first whether
        its processes had notice, and they have it when they are ended.
        """
        future: Future[T] = Future()

        def do() -> None:
            try:
                result = work()
            except BaseException as error:
                ended = self._killed.is_set()  # whatever that looks like from here
                future.set_exception(LostError("the gang was ended") if ended else error)
            else:
                future.set_result(result)

        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(threading.Thread(target=do, name="gang", daemon=True))
        self._threads[-1].start()
        return future

    def stop(self) -> None:
        """Ask the running stage to save itself and stop."""
        for member in list(self._members):
            with contextlib.suppress(Exception):  # it is dead
                member.stop.options(concurrency_group="control").remote()

    def go_on(self) -> None:
        """Take stages again after a stop."""
        for member in list(self._members):
            with contextlib.suppress(Exception):  # it is dead
                member.go_on.options(concurrency_group="control").remote()

    def signs(self) -> Future[Signs]:
        """How long nothing was heard of the running stage by its first process."""
        return self._members[0].signs.options(concurrency_group="control").remote().future()

    def kill(self) -> None:
        """End all processes and free their room."""
        self._killed.set()
        self._end()
        for thread in self._threads:  # which must not ask Ray when that has ended
            thread.join(THREAD_SECONDS)

    def _run(self, stage: Stage) -> Outcome:
        if not self._members or any(failure.done() for failure in self._failures):
            raise LostError("a process of the gang went before the stage began", "", "taken away")
        first, *others = self._members
        led: Future[Outcome] = explained(first, first.lead.remote(stage, others).future())
        futures.wait([led, *self._failures], return_when=futures.FIRST_COMPLETED)
        if not led.done():  # it may wait for ever for who died; who notices it has it on record
            futures.wait([led], FAILED_SECONDS)
        outcome = led.result() if led.done() and led.exception() is None else None
        if outcome is not None and outcome.state != "failed":
            return outcome
        # The first may have noticed another's death before Ray did.
        futures.wait(self._failures, ALIKE_SECONDS, futures.FIRST_COMPLETED)
        try:
            self._raise_dead()
        except LostError as lost:
            if outcome is None or lost.cause == "taken away":
                raise
            return replace(outcome, error=lost.line)
        if not led.done():
            self._raise_failed()
        return led.result()

    def _raise_failed(self) -> None:
        """Say what failed in a process of which the first says nothing."""
        number, record = next(
            (number, one.result()) for number, one in enumerate(self._failures) if one.done()
        )
        told = f"{record['traceback']}\n{record.get('printed', '')}"
        raise LostError(f"{self._called([number])} failed: {record['error']}; {_WHOLE}", told)

    def _raise_dead(self) -> None:
        from ray.exceptions import ActorUnavailableError

        dead = {
            number: error
            for number, one in enumerate(self._failures)
            if one.done() and isinstance(error := one.exception(), Exception)
        }
        for number, error in dead.items():
            if isinstance(error, ActorUnavailableError):
                dead[number] = what_became_of(self._members[number])
        if dead:
            error = next(iter(dead.values()))
            told = "\n".join(str(error) for error in dead.values())
            line = f"{self._called(list(dead))} died ({lost_worker(error)}); {_WHOLE}"
            raise LostError(line, told, cause_of(error))

    def _called(self, numbers: Sequence[int]) -> str:
        which = " and ".join(str(number + 1) for number in numbers)
        where = " and ".join(dict.fromkeys(self.places[number].address for number in numbers))
        word = "process" if len(numbers) == 1 else "processes"
        return f"{word} {which} of the gang's {len(self._members)}, on {where},"

    def _start(self) -> None:
        """Place and start the processes."""
        import ray

        from sweeps.gang_member import Member

        with self._changing:
            if self._killed.is_set():
                raise LostError("the gang was ended")
            self._placement = placement = self._place()
        self._wait_for_room(placement)
        options: dict[str, Any] = {
            "concurrency_groups": {"control": 1, "watch": 1},
            "runtime_env": {"env_vars": self._variables},
        }
        with self._changing:
            if self._killed.is_set():
                raise LostError("the gang was ended")
            started: list[Any] = [
                ray.remote(**options, **placement.options(index))(Member).remote(*self._arguments)
                for index in range(placement.count)
            ]
            self._members = started
        places: list[Place] = self._answers([member.place.remote() for member in started])
        order = placement.order(places)
        self._members = [started[index] for index in order]
        self.places = [places[index] for index in order]
        first = self.places[0]
        self._answers(
            [
                member.assign.remote(number, len(order), placement.variables(number, first))
                for number, member in enumerate(self._members)
            ]
        )
        self._failures = [
            member.failure.options(concurrency_group="watch").remote().future()
            for member in self._members
        ]

    def _wait_for_room(self, placement: Placement) -> None:
        began, told = time.monotonic(), False
        while not placement.ready(1.0):
            if self._killed.is_set():
                raise LostError("the gang was ended")
            if time.monotonic() - began > QUIET_SECONDS and not told:
                told = True
                self._say(f"a gang waits for room: it needs {placement.lacking()}")

    def _answers(self, asked: Sequence[Any]) -> list[Any]:
        """What the processes answer that have just been started."""
        waiting = [one.future() for one in asked]
        done = futures.wait(waiting, START_SECONDS, futures.FIRST_EXCEPTION)
        if done.not_done and not any(one.exception() for one in done.done):
            raise LostError(
                f"{len(done.not_done)} of the gang's {len(asked)} processes did not start in "
                f"{START_SECONDS:.0f} s"
            )
        return [one.result() for one in waiting if one.done()]

    def _end(self) -> None:
        """End what there is of processes and give their room back."""
        import ray

        with self._changing:
            members, self._members, self._failures = self._members, [], []
            placement, self._placement = self._placement, None
            for member in members:
                with contextlib.suppress(Exception):  # where Ray itself is gone
                    ray.kill(member)
            if placement is not None:
                placement.free()


_WHOLE = "the gang is ended whole, and goes on from its last checkpoint"
