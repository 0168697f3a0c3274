"""What a run was estimated to take, kept beside what it took: so that estimates can be judged.

A run writes its forecast when its workers start, and again with what it took when it ends. Both are
in the store, below the study's registration.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from pydantic import Field, FiniteFloat

from ablations.errors import UserError
from ablations.plan import Plan
from ablations.schema import Config
from sweeps.calibration import kind_of
from sweeps.measured import started_working_at
from sweeps.records import SCHEMA_VERSION, UnreadableError, read_record, sealed
from sweeps.scheduler import START_SECONDS, Scheduler
from sweeps.store import Store, registration_folder

TENTH = 0.1


class Part(Config):
    """Work of one kind: of the stages that were measured, what was estimated when the run began.

    Seconds are of all workers together.
    """

    what: str
    stages: int
    estimated_seconds: FiniteFloat
    seconds: FiniteFloat


class Forecast(Config):
    """A run's estimates and what came of them; seconds are from its begin to its end.

    measured_before           finished stages whose times the first estimate started from
    estimated_seconds         when it began
    estimated_after_a_tenth   when a tenth of its stages was done; None before
    seconds                   that it took; None until then, and of a run that was stopped or paused
    start_seconds             until the first stage was at work
    """

    schema_version: int = SCHEMA_VERSION
    run: str
    began_at: FiniteFloat
    workers: int
    stages: int
    measured_before: int
    estimated_start_seconds: FiniteFloat
    estimated_seconds: FiniteFloat
    estimated_after_a_tenth: FiniteFloat | None = None
    start_seconds: FiniteFloat | None = None
    seconds: FiniteFloat | None = None
    parts: tuple[Part, ...] = Field(())
    compilation: Part | None = None


class Forecaster:
    """Writes the forecast of a run, as a context around all that its workers do."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        scheduler: Scheduler,
        run: str,
        began_at: float,
        measured: Mapping[str, float],
    ):
        self._store, self._scheduler = store, scheduler
        self._key = f"{forecasts_folder(plan)}/{run}.json"
        self._clock = time.monotonic() - (time.time() - began_at)  # when the run began
        self._before = len(scheduler.done)
        calibration = scheduler.calibration
        missing = [one for one in plan.stages.values() if scheduler.state[one.id] != "done"]
        self._estimated = {stage.id: calibration.seconds(stage) for stage in missing}
        self._parts: dict[str, Part] = {}
        self._undisturbed = True
        start = start_seconds(store, plan)
        self._forecast = Forecast(
            run=run,
            began_at=began_at,
            workers=len(scheduler.workers),
            stages=len(missing),
            measured_before=len(measured),
            estimated_start_seconds=start,
            estimated_seconds=start + scheduler.remaining_seconds(0.0),
        )

    def __enter__(self) -> Forecaster:
        self._write()
        return self

    def __exit__(self, *_: object) -> None:
        ended = self._undisturbed and self._scheduler.complete
        measured = self._scheduler.calibration.compilations
        self._note(
            seconds=self._passed() if ended else None,
            parts=tuple(self._parts[what] for what in sorted(self._parts)),
            compilation=None if measured is None else Part(
                what="compilation", stages=measured.count,
                estimated_seconds=measured.planned, seconds=measured.took,
            ),
        )  # fmt: skip
        with contextlib.suppress(OSError, UserError):  # that what it tells of went well is told
            self._write()

    def finished(self, stage_id: str, seconds: float) -> None:
        """A stage has a result; `seconds` of its work, 0 where it was there already."""
        if seconds:
            stage = self._scheduler.stages[stage_id]
            what = kind_of(stage)
            so_far = self._parts.get(
                what, Part(what=what, stages=0, estimated_seconds=0, seconds=0)
            )
            self._parts[what] = Part(
                what=what,
                stages=so_far.stages + 1,
                estimated_seconds=so_far.estimated_seconds + self._estimated.get(stage_id, 0.0),
                seconds=so_far.seconds + seconds,
            )
            if self._forecast.start_seconds is None:
                at_work = started_working_at(self._store, stage_id)
                if at_work is not None:
                    self._note(start_seconds=max(0.0, at_work - self._forecast.began_at))
        forecast, done = self._forecast, len(self._scheduler.done) - self._before
        if forecast.estimated_after_a_tenth is None and done >= TENTH * forecast.stages:
            left = self._scheduler.remaining_seconds(time.monotonic())
            self._note(estimated_after_a_tenth=self._passed() + left)

    def disturbed(self) -> None:
        """The run is held up by somebody, so that how long it takes says nothing."""
        self._undisturbed = False

    def _passed(self) -> float:
        return time.monotonic() - self._clock

    def _note(self, **fields: object) -> None:
        self._forecast = self._forecast.model_copy(update=fields)

    def _write(self) -> None:
        self._store.objects.write(self._key, sealed(self._forecast))


def forecasts_folder(plan: Plan) -> str:
    """Where the forecasts of a registered plan's runs are."""
    return f"{registration_folder(plan)}/forecasts"


def forecasts_of(store: Store, plan: Plan) -> list[Forecast]:
    """Those of a registered plan's runs that can be read, oldest first."""
    folder, found = forecasts_folder(plan), []
    for name in store.objects.children(folder):
        with contextlib.suppress(FileNotFoundError, UnreadableError):
            found.append(read_record(store.objects, f"{folder}/{name}", Forecast))
    return sorted(found, key=lambda one: (one.began_at, one.run))


def start_seconds(store: Store, plan: Plan) -> float:
    """Until the first stage is at work: as in the study's last run that tells; else assumed."""
    told = (one.start_seconds for one in reversed(forecasts_of(store, plan)))
    return next((seconds for seconds in told if seconds is not None), START_SECONDS)


def off_by(estimated: float, took: float) -> float:
    """Share by which an estimate was too high (above 0) or too low of what it took."""
    return (estimated - took) / took if took else 0.0
