"""Numbers as people read them: as many decimals as the uncertainty deserves, a real minus sign."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from ablations.workload import INTACT

MISSING = "–"
HUGE = 1e15  # from here on the decimals of a float are none
MOST_DECIMALS = 15  # a float holds no more


def decimals(uncertainties: Iterable[float], values: Iterable[float | None] = ()) -> int:
    """Decimals that a typical uncertainty deserves, at least 1.

    Two digits of it where they are below 35, else one, as the Particle Data Group rounds. Where no
    uncertainty is known, three digits of a typical one of the values.
    """
    sizes = _sizes(uncertainties)
    known = sizes or _sizes(values)
    if not known:
        return 1
    typical = statistics.median(known)
    exponent = math.floor(math.log10(typical))
    digits = 3 if not sizes else 2 if typical < 3.5 * 10.0**exponent else 1
    return min(MOST_DECIMALS, max(1, digits - 1 - exponent))


def _sizes(numbers: Iterable[float | None]) -> list[float]:
    return [abs(x) for x in numbers if x is not None and math.isfinite(x) and x != 0]


def telling_decimals(
    places: int, mean: float | None, low: float | None, high: float | None, edge: float = 0.0
) -> int:
    """At least `places`: as many as show whether the interval leaves `edge` out.

    Without an interval as many as show on which side of it the mean is.
    """
    if mean is None or not math.isfinite(mean):
        return places
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        low = high = mean
    inside = low <= edge <= high
    for more in range(places, MOST_DECIMALS + 1):
        left, right = round(low, more), round(high, more)
        if inside == (left <= edge <= right):
            return more
    return places


def width(low: float | None, high: float | None) -> float:
    """Of an interval; not-a-number where there is none."""
    return math.nan if low is None or high is None else high - low


def number(value: float | None, places: int) -> str:
    """`81.3`, `−4.0`; a dash for what is not there."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= HUGE:
        return f"{value:.6g}".replace("-", "−")
    return f"{_rounded(value, places):.{places}f}".replace("-", "−")


def signed(value: float | None, places: int) -> str:
    """`+12.3`, `−4.0`; what rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) >= HUGE:
        return f"{value:+.6g}".replace("-", "−")
    rounded = _rounded(value, places)
    return f"{rounded:{'+' if rounded else ''}.{places}f}".replace("-", "−")


def _rounded(value: float, places: int) -> float:
    return round(value, places) + 0.0  # no negative zero


def mean_sd(mean: float, sd: float, places: int) -> str:
    """`81.3 ± 0.4`; without the SD where there is one seed."""
    if not math.isfinite(sd):
        return number(mean, places)
    return f"{number(mean, places)} ± {number(sd, places)}"


def interval(low: float | None, high: float | None, places: int, *, plus: bool = True) -> str:
    """`−1.2 to +3.4`; of scores themselves, without `plus`, `80.1 to 83.4`."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    told = signed if plus else number
    return f"{told(low, places)} to {told(high, places)}"


def boundary(value: float) -> str:
    """`0`, `−3`, `67.5`: what was written, with a real minus sign."""
    return f"{value + 0.0:.12g}".replace("-", "−")


def percent(share: float) -> str:
    """`90 %`, `98.3 %`: the level of an interval; 100 % only where it is all."""
    told = f"{100 * share:.4g}"
    return f"{100 * share:.8g} %" if told == "100" and share != 1 else f"{told} %"


def ordinal(number: int) -> str:
    """`first`, `second`, `third`, `4th`."""
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def p_value(p: float | None, alpha: float = 0.0) -> str:
    """`0.034`, `< 0.0001`: two digits, never zero; more where it is close to `alpha`."""
    if p is None or not math.isfinite(p):
        return MISSING
    if p < 0.0001:
        return "< 0.0001"
    told = f"{p:.2g}" if p < 0.1 else f"{p:.2f}"
    digits = 2
    while (float(told) <= alpha) != (p <= alpha):
        digits += 1
        told = f"{p:.{digits}g}"
    return told


def figure(value: float | None) -> str:
    """Some figure of an arm in a few characters: `1152`, `0.0003`, `1.2 M`."""
    if value is None or value >= 10_000:
        return count(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def count(value: float | None) -> str:
    """`950`, `1.2 k`, `3.4 M`: three digits; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = float(f"{value:.3g}")  # 999,600 is 1 M, not 1e+03 k
    for power, unit in zip(range(24, 0, -3), "YZEPTGMk", strict=True):
        if rounded >= 10**power:
            return f"{rounded / 10**power:.3g} {unit}"
    return f"{rounded:.3g}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 10 min`."""
    if not math.isfinite(seconds):
        return MISSING
    if abs(seconds) < 0.005:
        return "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def minute(at: str) -> str:
    """A time of the records (UTC, ISO 8601) as `2026-12-01 09:30`."""
    return at[:16].replace("T", " ")


def metric_name(task: str, metric: str, shots: int = 0, condition: str = INTACT) -> str:
    """`easy_vqa.accuracy`, with shots and condition where they are not the plain ones."""
    name = f"{task}.{metric}" if task else metric  # a table from elsewhere may name no task
    name += f" {shots}-shot" if shots else ""
    return name if condition == INTACT else f"{name}, {condition}"
