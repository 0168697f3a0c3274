"""A worker: one process that runs stage after stage and keeps what it compiled.

What trains is imported by the runners themselves, so only here, and after the variables that the
driver gave are in force.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ablations.errors import UserError
from ablations.identity import fingerprint_of
from ablations.shown_text import visible
from ablations.stage import DIVERGED, Gang, ResultRow, Run, StageStopped, resolve
from ablations.stages import Stage
from ablations.timeline import doing
from sweeps import leases, memory, preemption
from sweeps.objects import is_disk_full
from sweeps.patience import patient
from sweeps.records import TIMELINE, once_seconds
from sweeps.reports import REPORTS
from sweeps.run_times import AttemptTimes, WorkerTimes
from sweeps.shared_scratch import shared
from sweeps.store import Attempt, Status, Store
from sweeps.watchdog import Signs, silent_seconds
from sweeps.worker_output import WorkerOutput, printed, stack_now

ERROR_CHARACTERS = 500  # of what is kept and told of an error in one line
TRACEBACK_CHARACTERS = 20_000  # and of its traceback


# Why an attempt came to nothing: the stage raised; its process ended; memory ran out; it hung and
# was ended; its worker or the whole machine was taken away, which is no failure of the stage.
Cause = Literal["error", "died", "memory", "hang", "taken away"]


@dataclass(frozen=True)
class Outcome:
    """What came of asking for a stage."""

    stage: str
    state: Literal["done", "failed", "stopped", "lost", "elsewhere", "disk full"]
    seconds: float = 0.0  # of work, without imports and compilation; 0 if it was there already
    error: str = ""  # one line
    again: bool = True  # whether another try may help
    # When it came to that, by the clock of its host, and the times of a stopped attempt.
    ended_at: float | None = None
    host: str = ""
    times: Mapping[str, Any] | None = None
    cause: Cause = "error"  # of a failure
    leaving: bool = False  # its worker had notice that it is taken away
    renewed: bool = False  # its worker is a new process now


class StageContext:
    """The `ablations.stage.Context` of a stage that a worker runs."""

    def __init__(
        self, store: Store, attempt: Attempt, data: Path, stop: threading.Event, lease: leases.Lease
    ):
        self.scratch = store.scratch(attempt.stage.id)
        self.output = attempt.output
        self.data = data
        self.gang: Gang | None = None
        self.facts: dict[str, Any] = {}
        self.said = WorkerOutput(self.scratch)
        self._stop, self._lease = stop, lease
        (self.scratch / preemption.NOTICE).unlink(missing_ok=True)  # of an attempt before

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line that `Store.progress` reads."""
        values = {name: float(value) for name, value in metrics.items()}
        line = json.dumps({"step": int(step), "time": time.time(), **values})
        with open(self.scratch / REPORTS, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.said.heard()

    def record(self, facts: Mapping[str, Any]) -> None:
        """Keep facts for the execution record."""
        self.facts |= facts

    def stop_requested(self) -> bool:
        """Whether the run is ending, or somebody took this stage over."""
        return self._stop.is_set() or self._lease.lost


def execute(
    store: Store,
    stage: Stage,
    data: Path,
    stop: threading.Event,
    git_revision: str,
    *,
    own_process: bool = False,
    run: Run | None = None,
    times: WorkerTimes | None = None,
) -> Outcome:
    """Run one stage and put its results into the store; whatever happens is in the outcome.

    In a process of its own, what the stage prints is kept for `mm1 logs`. `run` is called in the
    place of the stage's runner, which it calls itself. `times` are those of the worker so far.
    """
    with (times or WorkerTimes()).attempt(stage.id) as own_times:
        outcome = _execute(store, stage, data, stop, git_revision, own_process, run, own_times)
    return replace(outcome, ended_at=time.time(), host=socket.gethostname())


def _execute(
    store: Store,
    stage: Stage,
    data: Path,
    stop: threading.Event,
    git_revision: str,
    own_process: bool,
    run: Run | None,
    times: AttemptTimes,
) -> Outcome:
    lease: leases.Lease | None = None
    attempt: Attempt | None = None
    finished = False
    clock = time.perf_counter()
    try:
        if store.is_done(stage.id):
            return Outcome(stage.id, "done")
        lease = leases.acquire(store.objects, store.lease_folder(stage.id))
        if lease is None:
            return Outcome(stage.id, "elsewhere")
        finished = store.is_done(stage.id)  # while we were asking
        if finished:
            return Outcome(stage.id, "done")
        attempt = store.begin(stage)
        context = StageContext(store, attempt, data, stop, lease)
        try:
            seconds = _run(store, attempt, context, run, git_revision, own_process, times)
        except StageStopped:
            if not context.stop_requested():  # else it would be asked again for ever
                raise UserError("the stage raised StageStopped without being asked to") from None
            store.discard(attempt)
            return Outcome(stage.id, "stopped", times=times.record())
        finished = True
        return Outcome(stage.id, "done", seconds)
    # SystemExit, KeyboardInterrupt and what a runner derives from BaseException too.
    except BaseException as error:
        cause: Cause = "memory" if memory.ran_out(error) else "error"
        record = failure_record(error_line(error), traceback_of(error), cause)
        full = _is_disk_full(error)
        with contextlib.suppress(Exception):  # where the store is the trouble
            record[TIMELINE] = times.record()
            _give_up(store, stage, attempt, full, record, time.perf_counter() - clock)
        if full:
            return Outcome(stage.id, "disk full", error=record["error"])
        mistake = isinstance(error, UserError)  # the same again would only fail again
        return Outcome(stage.id, "failed", error=record["error"], again=not mistake, cause=cause)
    finally:
        if lease is not None:
            with contextlib.suppress(Exception):  # it then ends by its silence
                lease.remove() if finished or store.is_done(stage.id) else lease.release()


def _run(
    store: Store,
    attempt: Attempt,
    context: StageContext,
    run: Run | None,
    git_revision: str,
    own_process: bool,
    times: AttemptTimes,
) -> float:
    """Run an attempt's stage and finish it; the seconds of work that it took.

    The next of its class does without the imports and the compilation, so they are left out.
    """
    stage, started = attempt.stage, time.time()
    clock, cpu = time.perf_counter(), time.process_time()
    run = run or resolve(stage.run)
    check_code(stage)
    inputs = {name: store.stage_folder(source) for name, source in stage.inputs.items()}
    taken = context.said.taken() if own_process else contextlib.nullcontext()
    with shared(store, stage.id), process_kept(), taken, doing("run"):
        rows = rows_of(stage, run(stage.config, stage.seed, inputs, context))
    times.now("save")
    seconds = time.perf_counter() - clock
    context.said.keep(attempt.folder)
    execution = {
        **_execution_class(),
        "processes": 1 if context.gang is None else context.gang.count,
        **context.facts,
        "host": socket.gethostname(),
        "git_revision": git_revision,
        "started_at": started,
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        TIMELINE: times.record(),
    }
    store.finish(attempt, rows, execution, _status(store, stage, rows))
    return seconds - once_seconds(execution)


def check_code(stage: Stage) -> None:
    """Raise `UserError` where the code here is not what a stage was planned with."""
    if fingerprint_of(stage.work.code) != stage.code_fingerprint:
        raise UserError("the code here is not what the study was planned with; plan it anew")


def rows_of(stage: Stage, returned: Any) -> list[ResultRow]:
    """What a runner returned, as a list; it may have made a generator.

    Raises:
        UserError: it is something else than rows.
    """
    if not isinstance(returned, Iterable):
        raise UserError(f"{stage.run} returned {type(returned).__name__}, not a list of ResultRow")
    rows = list(returned)
    for row in rows:
        if not isinstance(row, ResultRow):
            raise UserError(f"{stage.run} returned a {type(row).__name__} among its rows")
    return rows


def _give_up(
    store: Store,
    stage: Stage,
    attempt: Attempt | None,
    full: bool,
    record: dict[str, Any],
    seconds: float,
) -> None:
    """Record why a stage failed, unless the disk is full, and remove what it wrote."""
    if full:
        if attempt is not None:
            store.discard(attempt)
    elif attempt is not None:
        store.fail(
            attempt, {**record, "seconds": seconds, "printed": printed(store.scratch(stage.id))}
        )
    else:
        store.record_failure(stage.id, f"before-{uuid.uuid4().hex[:8]}", record)


STREAMS = ("stdin", "stdout", "stderr")


@contextlib.contextmanager
def process_kept() -> Generator[None]:
    """Set back what a runner changed of its process, so that the next stage does not notice.

    The working directory, the environment and the standard streams, closed ones too. Not what
    modules are imported from: who imports late would find it gone.
    """
    folder, variables = os.open(".", os.O_RDONLY), dict(os.environ)
    streams = {name: getattr(sys, name) for name in STREAMS}
    kept: dict[int, int] = {}
    for number in range(len(STREAMS)):
        with contextlib.suppress(OSError):  # closed already
            kept[number] = os.dup(number)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        for number, (name, stream) in enumerate(streams.items()):
            if stream is not None and stream.closed:
                mode = "w" if number else "r"
                stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        for name, value in variables.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        os.fchdir(folder)
        os.close(folder)


def _status(store: Store, stage: Stage, rows: Sequence[ResultRow]) -> Status:
    """A stage says that it diverged by a row `diverged`; what takes input from it did so too."""
    if any(row.metric == DIVERGED and row.value for row in rows):
        return "diverged"
    if any(store.status(source) == "diverged" for source in stage.inputs.values()):
        return "diverged"
    return "ok"


def _execution_class() -> dict[str, Any]:
    """Part of what bitwise equality is promised within; runners record the rest (`record`)."""
    return {
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def failure_record(error: str, told: str, cause: Cause = "error") -> dict[str, Any]:
    """The record of a failed attempt: `error` in one line, `told` at length; both may be cut."""
    peak = memory.peak_bytes() if cause == "memory" else None
    return {
        "cause": cause,
        **({} if peak is None else {"peak_memory_bytes": peak}),
        "error": visible(cut(" ".join(error.split()), ERROR_CHARACTERS)),
        "traceback": visible(cut(told, TRACEBACK_CHARACTERS)),
        "host": socket.gethostname(),
    }


def cut(text: str, most: int) -> str:
    """A text without its middle where it is longer than `most` characters; it says so."""
    if len(text) <= most:
        return text
    mark = f" … {len(text) - most:,} characters left out … "
    end = (most - len(mark)) // 2
    return text[: most - len(mark) - end] + mark + text[-end:]


def error_line(error: BaseException) -> str:
    """An exception in one line, whatever its own `__str__` does."""
    try:
        text = str(error)
    except BaseException as own:
        text = f"(its text cannot be had: {type(own).__name__})"
    name = type(error).__name__
    return text if isinstance(error, UserError) else f"{name}: {text}" if text else name


def _is_disk_full(error: BaseException) -> bool:
    try:
        return is_disk_full(error)
    except BaseException:  # of its text
        return False


def traceback_of(error: BaseException) -> str:
    """An exception's traceback, whatever its own `__str__` does."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as own:
        frames = "".join(traceback.format_tb(error.__traceback__))
        return f"{frames}{type(error).__name__} (its text cannot be had: {type(own).__name__})"


class Worker:
    """The Ray actor around `execute`; `stop`, `signs` and `nodes` are asked in its concurrency
    group `control`, so that they are answered while a stage runs. Ray is not imported for it here.
    """

    def __init__(self, store: str, data: str, git_revision: str, run: str = "", name: str = ""):
        self._times = WorkerTimes(run, name)
        self._root = store
        self._data = Path(data)
        self._git_revision = git_revision
        self._store: Store | None = None
        self._stop = threading.Event()
        self._stage: str | None = None  # that runs
        self._since = 0.0  # when it began
        self._leaving = False
        preemption.listen(self._notice)
        with contextlib.suppress(OSError):  # a runner that ends its process group ends itself
            os.setpgid(0, 0)

    @property
    def store(self) -> Store:
        """The store, opened when it is needed first. Raises `UserError` where it cannot be."""
        if self._store is None:
            store = Store(self._root)
            store.objects = patient(store.objects, print)
            self._store = store
        return self._store

    def run(self, stage: Stage, run: Run | None = None) -> Outcome:
        """Run one stage; `run` in the place of its runner, as `execute` says."""
        self._stage, self._since = stage.id, time.monotonic()
        try:
            outcome = execute(
                *(self.store, stage, self._data, self._stop, self._git_revision),
                own_process=True,
                run=run,
                times=self._times,
            )
        except BaseException as error:  # the store cannot be opened
            record = failure_record(error_line(error), "")
            outcome = Outcome(stage.id, "failed", error=record["error"])
        finally:
            self._stage = None
        return replace(outcome, leaving=self._leaving)

    def stop(self) -> None:
        """Ask the running stage to save itself and stop."""
        self._stop.set()

    def go_on(self) -> None:
        """Take stages again after a stop."""
        if not self._leaving:
            self._stop.clear()

    def signs(self) -> Signs:
        """How long nothing was heard of the running stage, and where it is."""
        if self._store is None or self._stage is None:
            return Signs(0.0, "")
        silent = silent_seconds(self._store.scratch(self._stage))
        return Signs(min(silent, time.monotonic() - self._since), stack_now())

    def nodes(self) -> list[str]:
        """The node that this process is on."""
        import ray

        return [ray.get_runtime_context().get_node_id()]

    def _notice(self) -> bool:
        """Have the running stage yield, because this process is about to end; False: none runs."""
        if self._store is None or self._stage is None:
            return False
        self._leaving = True
        preemption.mark(self._store.scratch(self._stage))
        self._stop.set()
        return True
