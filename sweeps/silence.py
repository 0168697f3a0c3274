"""When has a stage not reported for so long that somebody should look at it?

It may hang, or be at something slow: nobody but a person can tell, so it is said and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

QUIET_SECONDS = 120.0  # nobody is told of less
USUAL = 4.0  # so many times the longest pause so far, or the planned time, are still usual


def unusual_silence(
    now: float, started: float, reports: Sequence[float], planned_seconds: float
) -> float:
    """Seconds since the last of `reports` (or the start) where that is unusually long, else 0.

    All times are of one clock. `planned_seconds` is how long the whole stage should take: what is
    waited for by a stage that has not reported yet.
    """
    heard = [started, *(time for time in reports if time > started)]
    pauses = [later - earlier for earlier, later in pairwise(heard)]
    silence = now - heard[-1]
    usual = max(pauses, default=planned_seconds)
    return silence if silence > max(QUIET_SECONDS, USUAL * usual) else 0.0


@dataclass
class Listening:
    """What one observer has heard of a running stage, by its own clock."""

    started: float
    step: int | None = None
    heard: float = 0.0
    longest: float = 0.0

    def hear(self, now: float, step: int) -> None:
        """A report of this step was seen; the same step again is nothing new."""
        if step != self.step:
            last = self.started if self.step is None else self.heard
            self.longest = max(self.longest, now - last)
            self.step, self.heard = step, now

    def silence(self, now: float, planned_seconds: float) -> float:
        """As `unusual_silence`."""
        if self.step is None:
            return unusual_silence(now, self.started, (), planned_seconds)
        return unusual_silence(now, self.heard - self.longest, [self.heard], planned_seconds)
