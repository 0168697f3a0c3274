"""How far off the estimates of a study's last whole run were, in words and as values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from analysis.words import MISSING, duration
from sweeps.forecasts import Forecast, off_by

HEADER = ("kind of work", "stages", "estimated when it began", "took", "off by")


def last_whole(forecasts: Sequence[Forecast]) -> Forecast | None:
    """The last run that went through to its end without being stopped or paused."""
    return next((one for one in reversed(forecasts) if one.seconds is not None), None)


def line(forecast: Forecast) -> str:
    """What it was estimated to take, and what it took."""
    began = datetime.fromtimestamp(forecast.began_at, UTC).strftime("%Y-%m-%d %H:%M")
    took = forecast.seconds or 0.0
    stages = "1 stage" if forecast.stages == 1 else f"{forecast.stages} stages"
    workers = "1 worker" if forecast.workers == 1 else f"{forecast.workers} workers"
    basis = "measured" if forecast.measured_before else "planned"
    told = (
        f"the run of {began} UTC ({stages}, {workers}) took {duration(took)}; when it "
        f"began {duration(forecast.estimated_seconds)} were estimated from {basis} times "
        f"({_off(forecast.estimated_seconds, took)})"
    )
    tenth = forecast.estimated_after_a_tenth
    if tenth is not None:
        told += f", after a tenth of its stages {duration(tenth)} ({_off(tenth, took)})"
    return told


def rows(forecast: Forecast) -> list[tuple[str, ...]]:
    """One line for each kind of work, start-up and compilation among them, below `HEADER`."""
    started = forecast.start_seconds
    found = [
        (
            "start-up",
            "",
            duration(forecast.estimated_start_seconds),
            MISSING if started is None else duration(started),
            MISSING if started is None else _off(forecast.estimated_start_seconds, started),
        )
    ]
    parts = [*([forecast.compilation] if forecast.compilation else []), *forecast.parts]
    for part in parts:
        found.append(
            (
                part.what,
                str(part.stages),
                duration(part.estimated_seconds),
                duration(part.seconds),
                _off(part.estimated_seconds, part.seconds),
            )
        )
    return found


def summary(forecast: Forecast | None) -> dict[str, Any] | None:
    """For programs. `off_by` is the share by which an estimate was above what it took, `told`
    the same in words.
    """
    if forecast is None or forecast.seconds is None:
        return None
    tenth = forecast.estimated_after_a_tenth
    return {
        **forecast.model_dump(mode="json", exclude={"schema_version"}),
        "told": line(forecast),
        "off_by": off_by(forecast.estimated_seconds, forecast.seconds),
        "off_by_after_a_tenth": None if tenth is None else off_by(tenth, forecast.seconds),
    }


def _off(estimated: float, took: float) -> str:
    share = off_by(estimated, took)
    if abs(share) < 0.005:
        return "right"
    if took and estimated >= 2 * took:
        return f"{estimated / took:.1f} times too much"
    if estimated and took > 2 * estimated:
        return f"{took / estimated:.1f} times too little"
    return f"{abs(100 * share):.0f} % too {'much' if share > 0 else 'little'}"
