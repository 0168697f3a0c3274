"""When a run, its workers and their stages did what: what `mm1 timeline` is made of.

Each attempt at a stage has its own times in its record (`TIMELINE`), by the clock of the worker's
host: when it began, what it went into (`ablations.timeline`), and since when the worker had been
free, so that what nobody recorded is told from idling. Each run has one record in the store by the
driver's clock, written when its workers start and again when they have ended.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import uuid
from collections.abc import Collection, Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, FiniteFloat, ValidationError

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from ablations.timeline import SLOTS, Kind, StageClock, stage_clock
from sweeps.finished import file_of, read_done, stage_key
from sweeps.records import (
    SCHEMA_VERSION,
    TIMELINE,
    Done,
    UnreadableError,
    as_execution,
    read_record,
    sealed,
)
from sweeps.store import Store, registration_folder

if TYPE_CHECKING:
    from sweeps.worker import Outcome

EXECUTION = "execution.json"
MOST_STOPPED = 1_000  # attempts, in the record of a run


class StageTimes(Config):
    """The times of one attempt at a stage. Seconds since 1970 by the clock of its host.

    free_since   when the worker's last attempt had ended, whose stage is `after`; of the first one
                 in its process ("") when the process was ready
    stretches    what it went into from `began_at` on (`ablations.timeline.Stretch`)
    """

    run: str = ""  # "" for none: `mm1 train`
    worker: str = ""
    by: Literal["worker", "driver"] = "worker"  # whose clock it is
    process_began_at: FiniteFloat
    free_since: FiniteFloat
    after: str = ""
    began_at: FiniteFloat
    stretches: tuple[dict[str, FiniteFloat], ...] = Field((), max_length=2 * SLOTS)


class StoppedAttempt(Config):
    """An attempt that saved itself when it was asked to: a later one goes on from there."""

    stage: str
    host: str = ""
    times: StageTimes


class WorkerEnd(Config):
    """What the driver knows of a worker.

    clock_behind_seconds  how far its host's clock is behind the driver's, as the outcome says that
                          took the shortest time to come; None where none came
    free_since            when its last attempt had ended, by its own clock, and of which stage
    """

    worker: str
    cores: float = Field(1.0, gt=0)
    clock_behind_seconds: FiniteFloat | None = None
    free_since: FiniteFloat | None = None
    after: str = ""


class RunTimes(Config):
    """A run of a study; seconds since 1970 by the driver's clock.

    `ended_at` is None of a run that goes on, or whose driver was killed.
    """

    schema_version: int = SCHEMA_VERSION
    run: str
    began_at: FiniteFloat
    ended_at: FiniteFloat | None = None
    workers: tuple[WorkerEnd, ...]
    stopped: tuple[StoppedAttempt, ...] = ()


# -- in a worker ---------------------------------------------------------------------------------


class WorkerTimes:
    """The times of one worker's process, attempt after attempt."""

    def __init__(self, run: str = "", worker: str = ""):
        self._run, self._worker = run, worker
        self.free_since, self.after = time.time(), ""

    @contextlib.contextmanager
    def attempt(self, stage_id: str) -> Generator[AttemptTimes]:
        """Around an attempt at a stage, in the thread that makes it."""
        with stage_clock() as clock:
            times = AttemptTimes(self, clock)
            try:
                yield times
            finally:
                if times.told:
                    self.free_since, self.after = time.time(), stage_id

    def place(self) -> dict[str, Any]:
        """What all attempts have in common, as a part of `StageTimes`."""
        return {
            "run": self._run,
            "worker": self._worker,
            "process_began_at": process_began_at(),
            "free_since": self.free_since,
            "after": self.after,
        }


class AttemptTimes:
    """The times of an attempt that goes on."""

    def __init__(self, worker: WorkerTimes, clock: StageClock):
        self._worker, self._clock = worker, clock
        self._began_at = time.time()
        self.told = False  # whether they are on record

    def now(self, kind: Kind) -> None:
        """From now on it is this, to its end."""
        self._clock.enter(kind)

    def record(self) -> dict[str, Any]:
        """A `StageTimes` until now, as plain values."""
        self.told = True
        times = {"began_at": self._began_at, "stretches": self._clock.stretches()}
        return {**self._worker.place(), **times}


@functools.cache
def process_began_at() -> float:
    """When this process began, where the system says it; else when this was asked first."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        told = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        boot = next(float(line.split()[1]) for line in lines if line.startswith("btime "))
        return min(time.time(), boot + int(told[19]) / os.sysconf("SC_CLK_TCK"))
    return time.time()


# -- in the driver -------------------------------------------------------------------------------


class RunRecorder:
    """Writes the record of a run, as a context around all that its workers do."""

    def __init__(self, store: Store, plan: Plan, began_at: float):
        stamp = datetime.fromtimestamp(began_at, UTC).strftime("%Y%m%dT%H%M%S%f")
        self.run = f"{stamp}-{uuid.uuid4().hex[:8]}"
        self._store, self._key = store, f"{runs_folder(plan)}/{self.run}.json"
        self._began_at = began_at
        self._ends: dict[str, WorkerEnd] = {}  # worker → …, as they were started
        self._stopped: list[StoppedAttempt] = []

    def __enter__(self) -> RunRecorder:
        self._write(None)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, UserError):  # that what it records went well is told
            self._write(time.time())

    def _write(self, ended_at: float | None) -> None:
        record = RunTimes(
            run=self.run,
            began_at=self._began_at,
            ended_at=ended_at,
            workers=tuple(self._ends.values()),
            stopped=tuple(self._stopped),
        )
        self._store.objects.write(self._key, sealed(record))

    def joined(self, cores: Mapping[str, float]) -> None:
        """Workers were started, with so many cores on all their hosts."""
        for worker, count in cores.items():
            self._ends[worker] = WorkerEnd(worker=worker, cores=count)
        self._write(None)

    def heard(self, worker: str, outcome: Outcome) -> None:
        """An outcome came from a worker, just now."""
        if outcome.ended_at is None:  # of a process that died: it had no time to say so
            return
        so_far = self._ends.get(worker) or WorkerEnd(worker=worker)
        known = so_far.clock_behind_seconds
        behind = time.time() - outcome.ended_at
        self._ends[worker] = WorkerEnd(
            worker=worker,
            cores=so_far.cores,
            clock_behind_seconds=behind if known is None else min(known, behind),
            free_since=outcome.ended_at,
            after=outcome.stage,
        )
        if outcome.times and len(self._stopped) < MOST_STOPPED:
            times = StageTimes.model_validate(outcome.times)
            self._stopped.append(
                StoppedAttempt(stage=outcome.stage, host=outcome.host, times=times)
            )


def of_dead_worker(run: str, worker: str, handed_out_at: float) -> dict[str, Any]:
    """`StageTimes`, as plain values, of an attempt whose worker's process has died."""
    return {
        "run": run,
        "worker": worker,
        "by": "driver",
        "process_began_at": handed_out_at,
        "free_since": handed_out_at,
        "began_at": handed_out_at,
        "stretches": [{"run": time.time() - handed_out_at}],
    }


def runs_folder(plan: Plan) -> str:
    """Where the records of a registered plan's runs are."""
    return f"{registration_folder(plan)}/runs"


def runs_of(store: Store, study: str) -> tuple[list[tuple[RunTimes, Plan]], list[str]]:
    """The runs of a study's name with what each ran, oldest first; a line for what is damaged."""
    registrations, lines = store.registrations(study, ())
    found = []
    for plan, _ in registrations:
        folder = runs_folder(plan)
        for name in store.objects.children(folder):
            try:
                found.append((read_record(store.objects, f"{folder}/{name}", RunTimes), plan))
            except FileNotFoundError:
                continue
            except UnreadableError as error:
                lines.append(f"a run is not shown: {error}")
    return sorted(found, key=lambda one: (one[0].began_at, one[0].run)), lines


class Attempt(NamedTuple):
    """An attempt at a stage whose times are on record."""

    stage: str
    host: str
    times: StageTimes
    lost: bool = False  # it failed: what a checkpoint kept of it is not known


def attempts_at(store: Store, stage_ids: Collection[str]) -> tuple[list[Attempt], int]:
    """The attempts at some stages that are on record, and how many results tell no times."""
    found, silent = [], 0
    records = read_done(store.objects, stage_ids)
    sound = {stage: one for stage, one in records.items() if isinstance(one, Done)}
    keys = {stage: f"{stage_key(stage)}/{one.attempt}/{EXECUTION}" for stage, one in sound.items()}
    answers = store.objects.read_each(list(keys.values()))
    tried = set(stage_ids) - set(sound)  # whose failures are of interest
    for stage, key in keys.items():
        try:
            data = file_of(store.objects, stage, sound[stage], EXECUTION, answers[key])
            execution = as_execution(data, key)
        except UnreadableError:
            silent += 1
            continue
        attempt = _attempt(stage, execution)
        silent += attempt is None
        found += [attempt] if attempt else []
        if execution.get("failed_before"):
            tried.add(stage)
    for stage in sorted(tried):
        failed = (_attempt(stage, failure, lost=True) for failure in store.failures(stage))
        found += [attempt for attempt in failed if attempt]
    return found, silent


def _attempt(stage: str, record: Mapping[str, Any], *, lost: bool = False) -> Attempt | None:
    """None where a record has no times: of before there were any, or of another shape."""
    try:
        times = StageTimes.model_validate(record.get(TIMELINE))
    except ValidationError:
        return None
    return Attempt(stage, str(record.get("host", "")), times, lost)
