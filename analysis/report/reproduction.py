"""Whether the numbers of a report come out again, trial by trial, and what is another than then.

equal      every number of the trial is the same, to the bit
within     some differ, none by more than the tolerance: a share of the larger of the two
different  some differ by more, or the trial diverged once and not the other time
missing    it is not there
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas

from ablations.contrasts import Design, Place, ScoreKey
from ablations.deciding import Claim
from ablations.plan import Plan
from ablations.verdicts import Verdict
from analysis import words
from analysis.report.carried import Carried, Number
from analysis.report.methods import listed, plain
from analysis.results import EXECUTION_CLASS
from analysis.score_table import COLUMNS, ScoreTable

State = Literal["equal", "within", "different", "missing"]
STATES: tuple[State, ...] = ("equal", "within", "different", "missing")


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    arm: str
    seed: int
    state: State
    told: str  # the number that differs most, then and now
    share: float  # by which it differs, of the larger of the two


def outcomes(then: Sequence[Number], now: Sequence[Number], tolerance: float) -> list[Outcome]:
    """Each trial of a report, in its order, against what is there now."""
    found = {one[:6]: one for one in now}
    trials: dict[tuple[str, int], list[Number]] = {}
    for one in then:
        trials.setdefault((one.arm, one.seed), []).append(one)
    return [_outcome(*trial, mine, found, tolerance) for trial, mine in trials.items()]


def _outcome(
    arm: str,
    seed: int,
    then: Sequence[Number],
    now: Mapping[tuple, Number],
    tolerance: float,
) -> Outcome:
    worst, told, lost = 0.0, "", False
    missing = [one for one in then if one[:6] not in now]
    if missing:
        return Outcome(arm, seed, "missing", f"no {_name(missing[0])}", math.inf)
    for one in then:
        other = now[one[:6]]
        share = difference(one.number, other.number)
        if one.diverged != other.diverged:
            share, lost = math.inf, True
        if share > worst:
            worst = share
            told = f"{_name(one)} {one.number!r} then, {other.number!r} now"
            told += " (diverged " + ("then)" if one.diverged else "now)") if lost else ""
    if worst == 0.0:
        return Outcome(arm, seed, "equal", "", 0.0)
    return Outcome(arm, seed, "within" if worst <= tolerance else "different", told, worst)


def _name(one: Number) -> str:
    return words.metric_name(one.task, one.metric, one.shots, one.condition)


def difference(then: float, now: float) -> float:
    """As a share of the larger of two numbers; 0 for two that are no number alike."""
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    if not (math.isfinite(then) and math.isfinite(now)):
        return math.inf
    return abs(then - now) / max(abs(then), abs(now))


def summary(found: Iterable[Outcome], tolerance: float) -> str:
    """`12 trials: 10 equal, 1 within 1 % and 1 different`."""
    counts = Counter(one.state for one in found)
    names = {"within": f"within {words.percent(tolerance)}"}
    told = [f"{counts[state]:,} {names.get(state, state)}" for state in STATES if counts[state]]
    trials = sum(counts.values())
    return f"{trials:,} {'trial' if trials == 1 else 'trials'}: {listed(told) or 'none'}"


# -- the environment -----------------------------------------------------------------------------


def here(then: Carried) -> dict[str, Any]:
    """What is known of this machine before anything runs on it, of what a report's facts name."""
    libraries = {
        name: _version(name)
        for facts in then.executions.values()
        for one in facts
        for name in one.get("libraries", {})
    }
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    return {**found, "libraries": libraries} if libraries else found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def unlike(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[str]:
    """Facts of environments that were others then; of those that both tell of, a line each."""
    before, after = list(then), list(now)
    found = []
    for fact in EXECUTION_CLASS:
        values = [_values(one, fact) for one in (before, after)]
        if values[0] and values[1] and values[0] != values[1]:
            told = [" or ".join(sorted(map(_plain, one))) for one in values]
            found.append(f"{fact.replace('_', ' ')}: {told[0]} then, {told[1]} now")
    return found


def _values(facts: Iterable[Mapping[str, Any]], fact: str) -> set[str]:
    return {json.dumps(one[fact], sort_keys=True) for one in facts if fact in one}


def _plain(value: str) -> str:
    return plain(json.loads(value))


# -- code, data, meaning -------------------------------------------------------------------------


def changed_stages(then: Plan, now: Plan) -> list[str]:
    """Why stages of a study are others than those of the report, a line for each kind of stage."""
    pairs: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    later = {(trial.arm, trial.seed): trial for trial in now.trials}
    seen: set[str] = set()
    for trial in then.trials:
        other = later.get((trial.arm, trial.seed))
        for role, stage_id in trial.stages.items():
            if other is None or role not in other.stages or stage_id in seen:
                continue
            seen.add(stage_id)
            if other.stages[role] == stage_id:
                continue
            old, new = then.stages[stage_id].work, now.stages[other.stages[role]].work
            counts[old.kind] += 1
            why = pairs.setdefault(old.kind, {})
            if old.code_fingerprint != new.code_fingerprint:
                why["code"] = None
            if old.data_fingerprint != new.data_fingerprint:
                why["data"] = None
            if old.decides != new.decides and not why:
                why["config"] = None
            if old.decides == new.decides:
                why["what it takes input from"] = None
    return [
        f"{counts[kind]} {kind.replace('_', ' ')} "
        f"{'stage is' if counts[kind] == 1 else 'stages are'} not that of the report: "
        f"another {listed(why)}"
        for kind, why in pairs.items()
    ]


# -- verdicts ------------------------------------------------------------------------------------


def changed_verdicts(then: Carried, now: Iterable[Verdict]) -> list[str]:
    """Claims whose verdict is another now; of those that had one, a line each."""
    found = []
    for one in now:
        before = then.claims.get(one.name)
        if before is not None and not before.interim and before.verdict != one.verdict:
            found.append(f"{one.name}: {before.verdict} then, {one.verdict} now")
    return found


def table_of(then: Carried) -> ScoreTable:
    """The score table that a report of numbers from elsewhere carries."""
    assert then.table is not None
    its = then.table
    rows = [(*one[:6], one.number, math.nan) for one in then.numbers]
    arms = (*its.arms, *its.null_arms)
    there = {(one.arm, one.seed) for one in then.numbers}
    unscored: dict[ScoreKey, dict[int, str]] = {}
    for arm, task, metric, shots, condition, seed, why in its.unscored:
        key = ScoreKey(arm, task, metric, shots, condition)
        unscored.setdefault(key, {})[seed] = why
    return ScoreTable(
        design=Design(its.factors, its.arms),
        seeds=then.seeds,
        primary=its.primary,
        tasks=its.tasks,
        numbers=pandas.DataFrame(
            rows, columns=["arm", "seed", *Number._fields[2:6], "value", "standard_error"]
        )[list(COLUMNS)],
        null_arms=its.null_arms,
        averaged=its.averaged,
        diverged=frozenset(
            Place(one.arm, one.task, one.shots, one.condition, one.seed)
            for one in then.numbers
            if one.diverged
        ),
        missing=frozenset(itertools.product(arms, then.seeds)) - there,
        excluded=frozenset(its.excluded),
        unscored=unscored,
        is_as_found=its.is_as_found,
    )


def decided_again(then: Carried, table: ScoreTable) -> list[Verdict]:
    """The verdicts on a report's own table."""
    claims = [
        Claim.read(name, one.text, table.names, one.min_effect) for name, one in then.claims.items()
    ]
    return table.verdicts(claims, then.alpha)
