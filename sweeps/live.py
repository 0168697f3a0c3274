"""Where a run is, as it says itself every few seconds, for whoever watches from elsewhere.

    runs/<study>/live.json     this record, written over and over by the driver that has the lease
    runs/<study>/asked/        what is asked of it (`sweeps.control`)

Nothing is decided by it, and nothing of it is a result. It is of the driver whose lease token it
names: that of an earlier one, or of one that was killed, says what was, not what is.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from pydantic import Field

from ablations.errors import UserError
from ablations.schema import Config
from sweeps import leases
from sweeps.objects import Objects
from sweeps.records import SCHEMA_VERSION, UnreadableError, read_record, sealed

if TYPE_CHECKING:
    from sweeps.display import Running, Snapshot

LIVE_SECONDS = 2.0  # between two records
REMOTE_SECONDS = 5.0  # of a store behind a URL, where each is a request
MOST_STAGES = 1_000  # running ones that a record tells of
MOST_FAULTS = 20  # the last ones

State = Literal["starting", "running", "pausing", "paused", "stopping", "ended"]


class RunningStage(Config):
    """A stage that a worker is at, by its latest report."""

    stage: str
    label: str
    seconds: float  # since it was handed out
    step: int | None = None
    steps: int = 0  # in all; 0 where nobody knows
    steps_per_second: float | None = None
    remaining: float | None = None  # seconds, by its own pace
    metrics: dict[str, float | None] = Field({})  # null where it is not finite
    silent_seconds: float = 0.0  # without a report, where that is unusually long


class Fault(Config):
    """An attempt at a stage that failed."""

    stage: str
    label: str
    error: str
    attempt: int
    again: bool  # whether it is tried again
    at: float  # Unix time of the driver's machine


class Live(Config):
    """Where a run is."""

    schema_version: int = SCHEMA_VERSION
    study: str
    hash: str
    token: str  # of the driver's lease
    host: str
    pid: int
    number: int  # of the record, so that a reader sees that it is a new one
    state: State
    code: int | None = None  # exit code, when it has ended
    elapsed: float = 0.0  # seconds
    remaining: float | None = None  # seconds, estimated by the scheduler; None: not known yet
    workers: int = 0
    done: int = 0  # trials, as the next ones
    running: int = 0
    waiting: int = 0
    failed: int = 0
    cancelled: int = 0
    stages: tuple[RunningStage, ...] = ()
    more_stages: int = 0  # running ones that are not told
    faults: tuple[Fault, ...] = ()  # the last ones, the latest last
    notes: tuple[str, ...] = ()  # what people should know: a file that changed meanwhile
    answers: dict[str, str] = Field({})  # what was asked → what came of it


def folder(study: str) -> str:
    """Where records of a study's run are."""
    return f"runs/{quote(study, safe='')}"


def token_of(record: Mapping[str, Any] | None) -> str:
    """The token of a lease's record; "" of none."""
    return str((record or {}).get("token", ""))


def driver(objects: Objects, study: str) -> dict[str, Any] | None:
    """The lease's record of the driver that runs a study now; None where nobody does."""
    return leases.holder(objects, leases.study_lease(study))


def read_live(objects: Objects, study: str) -> Live | None:
    """The last record of a study's run; None where there is none that can be read."""
    try:
        return read_record(objects, f"{folder(study)}/live.json", Live)
    except (FileNotFoundError, UnreadableError):
        return None


_COUNTS = ("done", "running", "waiting", "failed", "cancelled")
_FIGURES = ("elapsed", "remaining", "workers", *_COUNTS, "faults")


def _running(one: Running) -> RunningStage:
    finite = {name: value if math.isfinite(value) else None for name, value in one.metrics}
    same = {name: getattr(one, name) for name in RunningStage.model_fields if name != "metrics"}
    return RunningStage(**same, metrics=finite)


class Publisher:
    """Writes the record of a run. A store that does not take it holds up nothing."""

    def __init__(self, objects: Objects, study: str, hash_: str, token: str):
        self._objects, self._study, self._hash, self.token = objects, study, hash_, token
        self._least = LIVE_SECONDS if objects.root == str(objects.local) else REMOTE_SECONDS
        self._written = -self._least
        self._number = 0
        self._last: dict[str, Any] = {}
        self.notes: dict[str, None] = {}
        self.answers: dict[str, str] = {}

    def due(self) -> bool:
        """Whether a record should be written again."""
        return time.monotonic() - self._written >= self._least

    def write(self, shown: Snapshot) -> None:
        """Write where the run is."""
        self._written = time.monotonic()
        self._number += 1
        self._last = {name: getattr(shown, name) for name in _FIGURES} | {
            "stages": tuple(map(_running, shown.stages[:MOST_STAGES])),
            "more_stages": max(0, len(shown.stages) - MOST_STAGES),
        }
        self._put(cast(State, shown.state), None)

    def again(self, state: State) -> None:
        """Write what was written last with another state, and what was answered since."""
        self._written = time.monotonic()
        self._number += 1
        self._put(state, None)

    def end(self, code: int | None) -> None:
        """Say that the run has ended."""
        self._number += 1
        self._last |= {"stages": (), "more_stages": 0}
        self._put("ended", code)

    def _put(self, state: State, code: int | None) -> None:
        record = Live(
            study=self._study,
            hash=self._hash,
            token=self.token,
            host=socket.gethostname(),
            pid=os.getpid(),
            number=self._number,
            state=state,
            code=code,
            notes=tuple(self.notes),
            answers=dict(list(self.answers.items())[-100:]),
            **self._last,
        )
        with contextlib.suppress(OSError, UserError):
            self._objects.write(f"{folder(self._study)}/live.json", sealed(record))
