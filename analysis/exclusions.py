"""Trials that a study leaves out: who, why, and what was known when that was decided."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ablations.exclusions import Exclusion
from analysis.results import StudyResults

LATE = "excluded late"
EARLY = "excluded"


class Told(NamedTuple):
    """A trial that is left out: in a word, for tables, and in a sentence."""

    word: str
    told: str


def told(results: StudyResults, arms: Collection[str] | None = None) -> list[Told]:
    """What is left out, of some arms or of all, in the order of the plan."""
    return [_told(results, one) for one in results.plan.excluded if arms is None or one.arm in arms]


def _told(results: StudyResults, one: Exclusion) -> Told:
    record = results.registration
    own = set(one.stages) - set(results.plan.stages) or set(one.stages)
    times = results.store.finished_times(sorted(own)).values()
    known = len(record.known_stages) + len(record.begun_stages)
    if any(time <= record.registered_at for time in times):
        when = ", decided when its result was known, a deviation from the plan"
    elif known:
        results_ = "1 result or curve" if known == 1 else f"{known} results or curves"
        when = f", decided when {results_} of the study were known, a deviation from the plan"
    else:
        when = ", decided before any result"
    word = EARLY if when.endswith("any result") else LATE
    return Told(word, f"{one.trial} is excluded{when}: {one.reason}")
