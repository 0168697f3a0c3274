"""The smallest effect that so many seeds could have seen."""

from __future__ import annotations

import functools
import math

POWER = 0.8


def detectable(sd: float, n: int, level: float) -> float:
    """The true effect that a t test of n paired differences finds with a power of 80 %.

    `level` is the chance of a false verdict in one direction; the effect is in the units of `sd`,
    the standard deviation of the differences between seeds. Not-a-number below two seeds, or where
    they do not spread.
    """
    if n < 2 or not math.isfinite(sd) or sd <= 0:
        return math.nan
    return sd * _in_sds(n, level)


@functools.cache
def _in_sds(n: int, level: float) -> float:
    """In standard deviations of the difference: by the noncentral t distribution."""
    from scipy.special import nctdtr, stdtrit

    critical = float(stdtrit(n - 1, 1 - level))

    def power(effect: float) -> float:
        return 1 - float(nctdtr(n - 1, effect * math.sqrt(n), critical))

    low, high = 0.0, 1.0
    while power(high) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
