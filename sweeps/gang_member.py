"""One process of a gang: several that run a stage together.

The first is a worker like any other, with the lease, the records and the results; the others run
the same stage along where it tells them to write. Whoever fails says so at once, because the rest
may wait for it for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ablations.errors import UserError
from ablations.stage import Context, Gang, ResultRow, StageStopped, own_folder, resolve
from ablations.stages import Stage
from sweeps.free_port import free_port
from sweeps.worker import (
    Outcome,
    Worker,
    check_code,
    error_line,
    failure_record,
    process_kept,
    rows_of,
    traceback_of,
)
from sweeps.worker_output import WorkerOutput, printed

ALIKE_SECONDS = 5.0  # within which those who fail of the same thing have all said so
END_SECONDS = 300.0  # for the others to end after the first has
STOP_SECONDS = 60.0  # for them to save themselves, where they were asked to
ANSWER_SECONDS = 120.0  # of a process that does nothing else


@dataclass
class FollowerContext:
    """The context of a stage in a process that is not the first: it keeps no records."""

    scratch: Path
    output: Path
    data: Path
    stops: Callable[[], bool]
    heard: Callable[[], None] = lambda: None
    gang: Gang | None = None

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """The first process does."""
        self.heard()

    def record(self, facts: Mapping[str, Any]) -> None:
        """The first process does."""

    def stop_requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.stops()


@dataclass(frozen=True)
class Place:
    """Where a member is."""

    node: str  # Ray's identity of the node
    address: str  # others reach it there
    pid: int

    @property
    def host(self) -> str:
        """The address as it stands before a port."""
        return f"[{self.address}]" if ":" in self.address else self.address


class Member(Worker):
    """The Ray actor; `stop` and `leave` are asked in its concurrency group `control`, `failure` in
    the group `watch`, which it fills for as long as the process lives."""

    def __init__(self, *arguments: str):
        super().__init__(*arguments)
        self._number, self._count = 0, 1  # the first is 0
        self._leaves = threading.Event()
        self._failures: SimpleQueue[dict[str, Any]] = SimpleQueue()

    def place(self) -> Place:
        """Where this process is."""
        import ray

        context = ray.get_runtime_context()
        return Place(context.get_node_id(), ray.util.get_node_ip_address(), os.getpid())

    def assign(self, number: int, count: int, variables: Mapping[str, str]) -> None:
        """Which of how many it is, the first being 0, and variables of its environment."""
        self._number, self._count = number, count
        os.environ.update(variables)

    def failure(self) -> dict[str, Any]:
        """Wait until a stage fails here that the first process leads; the record of it."""
        return self._failures.get()

    def leave(self) -> None:
        """Ask the running stage to save itself and stop; the process stays for the next one."""
        self._leaves.set()

    # -- the first -------------------------------------------------------------------------------

    def lead(self, stage: Stage, others: Sequence[Any]) -> Outcome:
        """Run a stage with the other members, whose actors these are."""

        def together(
            config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
        ) -> list[ResultRow]:
            import ray

            if not others:
                return resolve(stage.run)(config, seed, inputs, context)
            self._check_shared(context.scratch, others)
            context.gang = Gang(f"{self.place().host}:{free_port()}", self._count, 0)
            folders = {name: str(folder) for name, folder in inputs.items()}
            said = (stage, str(context.output), folders, context.gang.coordinator)
            calls = [member.follow.remote(*said) for member in others]
            try:
                rows = rows_of(stage, resolve(stage.run)(config, seed, inputs, context))
            except StageStopped:
                _end_others(others, calls)
                raise
            except BaseException as error:
                told, died = _told(calls, ALIKE_SECONDS)
                if told:
                    error.add_note(told)
                if died and isinstance(error, Exception):
                    who = " and ".join(str(index + 2) for index in died)
                    raise RuntimeError(
                        f"process {who} of the gang's {self._count} died, the first noticed it as "
                        f"{error_line(error)}"
                    ) from error
                raise
            _, late = ray.wait(calls, num_returns=len(calls), timeout=END_SECONDS)
            if late:
                raise RuntimeError(
                    f"{len(late)} of {self._count} processes had not ended {END_SECONDS:.0f} s "
                    "after the first"
                )
            if told := _told(calls, 0)[0]:
                raise RuntimeError(told)
            return rows

        return self.run(stage, together)

    def _check_shared(self, scratch: Path, others: Sequence[Any]) -> None:
        import ray

        mark = scratch / f".gang-{uuid.uuid4().hex}"
        mark.touch()
        try:
            asked = [member.reaches.remote(str(mark)) for member in others]
            reached = ray.get(asked, timeout=ANSWER_SECONDS)
        finally:
            mark.unlink()
        if not all(reached):
            raise UserError(
                f"{reached.count(False)} of the gang's {self._count} processes do not reach "
                f"{scratch.parent}, where checkpoints are: they need a folder that all hosts "
                "share, which a store in a bucket has where XDG_CACHE_HOME says"
            )

    # -- the others ------------------------------------------------------------------------------

    def reaches(self, mark: str) -> bool:
        """Whether a file that the first process wrote can be seen here."""
        return Path(mark).exists()

    def follow(self, stage: Stage, output: str, inputs: Mapping[str, str], coordinator: str) -> str:
        """Run a stage along with the first process; the error in one line, "" without one."""
        self._leaves.clear()
        gang = Gang(coordinator, self._count, self._number)
        try:
            check_code(stage)
            scratch = self.store.scratch(stage.id)
            said = WorkerOutput(own_folder(scratch, gang))
            context = FollowerContext(
                scratch,
                Path(output),
                self._data,
                stops=lambda: self._stop.is_set() or self._leaves.is_set(),
                heard=said.heard,
                gang=gang,
            )
            folders = {name: Path(folder) for name, folder in inputs.items()}
            with process_kept(), said.taken():
                rows_of(stage, resolve(stage.run)(stage.config, stage.seed, folders, context))
        except StageStopped:
            pass
        except BaseException as error:
            record = failure_record(error_line(error), traceback_of(error))
            with contextlib.suppress(Exception):  # where the store is the trouble
                record["printed"] = printed(own_folder(self.store.scratch(stage.id), gang))
            self._failures.put(record)
            return self._called(record["error"])
        return ""

    def _called(self, error: str) -> str:
        return f"process {self._number + 1} of {self._count} on {socket.gethostname()}: {error}"


def _told(calls: Sequence[Any], seconds: float) -> tuple[str, list[int]]:
    """What went wrong in those that have ended, or do within some seconds; which of them died."""
    import ray

    ended, _ = ray.wait(list(calls), num_returns=len(calls), timeout=seconds)
    said, died = [], []
    for index, call in enumerate(calls):
        if call not in ended:
            continue
        try:
            said.append(ray.get(call))
        except Exception as error:  # its process has died, which the driver sees too
            said.append(f"a process of the gang has died ({type(error).__name__})")
            died.append(index)
    return "; ".join(filter(None, said)), died


def _end_others(others: Sequence[Any], calls: Sequence[Any]) -> None:
    """The first has stopped, so all do; who does not is ended, and the gang with it."""
    import ray

    for member in others:
        member.leave.options(concurrency_group="control").remote()
    _, late = ray.wait(list(calls), num_returns=len(calls), timeout=STOP_SECONDS)
    for member, call in zip(others, calls, strict=True):
        if call in late:
            ray.kill(member)
