"""Paired effects: the same seed against the same seed, a t interval over seeds.

The unit of replication is the seed. Effects are descriptive: their 95 % intervals are outside
the family of claims and give no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ablations.plan import Arm, Plan
from ablations.verdicts import t_interval
from analysis.results import StudyResults, is_answerer

LEVEL = 0.95  # of every interval that stands beside no verdict


@dataclass(frozen=True)
class Summary:
    """A number per seed, and what they come to. NaN where there are too few of them."""

    by_seed: Mapping[int, float]
    mean: float
    sd: float  # between seeds, ddof 1
    low: float
    high: float
    level: float = LEVEL

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.by_seed)


@dataclass(frozen=True)
class Effect:
    """What changing one factor from its base level did to one metric."""

    factor: str
    base_level: str
    level: str
    arms: tuple[str, ...]  # that have `level`; their partners have `base_level`
    task: str
    metric: str
    shots: int
    condition: str
    summary: Summary
    diverged_seeds: tuple[int, ...]  # in which an arm of either level had diverged
    interim: bool  # registered seeds are still missing


@dataclass(frozen=True)
class NoiseFloor:
    """SD of the paired difference between null (A/A) arms and the base: what nothing looks like."""

    sd: float
    arms: tuple[str, ...]
    degrees_of_freedom: int


def summarize(by_seed: Mapping[int, float]) -> Summary:
    """Mean, SD and t interval over seeds; no interval where all seeds gave the same number."""
    values = list(by_seed.values())
    if not values:
        return Summary({}, math.nan, math.nan, math.nan, math.nan)
    mean, low, high = t_interval(values, LEVEL)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    if sd <= 1e-12 * max(map(abs, values)):  # rounding: there is no spread to judge by
        low = high = math.nan
    return Summary(dict(by_seed), mean, sd, low, high)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """Seed → a - b, for the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def effects(results: StudyResults) -> list[Effect]:
    """The effect of each factor level against the base level, on each metric; primary first.

    Per seed, the mean over all pairs of arms that differ in this factor only: with one factor at
    a time that is the one arm against the base. A seed counts when every pair has it.
    """
    plan = results.plan
    found = []
    for task, metric, shots, condition in results.metrics:
        if condition != "intact" or is_answerer(metric):
            continue  # controls have their own table
        for factor, (base_level, *others) in plan.factors.items():
            for level in others:
                pairs = level_pairs(plan, factor, base_level, level)
                differences = [
                    paired(
                        results.score(a.name, task, metric, shots, condition),
                        results.score(b.name, task, metric, shots, condition),
                    )
                    for a, b in pairs
                ]
                summary = summarize(_mean_by_seed(differences))
                asked = {arm.name for pair in pairs for arm in pair}
                waiting = any(arm in asked for arm, _ in results.problems)
                if not summary.n and not waiting:
                    continue  # there is no such pair of arms, or nobody asks it this
                found.append(
                    Effect(
                        factor=factor,
                        base_level=base_level,
                        level=level,
                        arms=tuple(a.name for a, _ in pairs),
                        task=task,
                        metric=metric,
                        shots=shots,
                        condition=condition,
                        summary=summary,
                        diverged_seeds=tuple(
                            seed
                            for seed in summary.by_seed
                            if any((arm, seed) in results.diverged for arm in asked)
                        ),
                        interim=waiting and summary.n < len(plan.seeds),
                    )
                )
    return found


def level_pairs(plan: Plan, factor: str, base_level: str, level: str) -> list[tuple[Arm, Arm]]:
    """Pairs (arm at `level`, arm at `base_level`) that have every other factor's level equal."""
    arms = [arm for arm in plan.arms if arm.name not in plan.null_arms]
    by_levels = {tuple(sorted(arm.levels.items())): arm for arm in arms}
    pairs = []
    for arm in arms:
        if arm.levels[factor] == level:
            partner = by_levels.get(tuple(sorted({**arm.levels, factor: base_level}.items())))
            if partner is not None:
                pairs.append((arm, partner))
    return pairs


def noise_floor(results: StudyResults) -> NoiseFloor | None:
    """The floor on the primary metric; None where the study has no null arm with two seeds."""
    plan, primary = results.plan, results.primary
    base = results.score(plan.arms[0].name, *primary)
    found = {
        arm: list(paired(results.score(arm, *primary), base).values()) for arm in plan.null_arms
    }
    found = {arm: values for arm, values in found.items() if len(values) > 1}
    if not found:
        return None
    freedom = sum(len(values) - 1 for values in found.values())
    squares = sum((len(values) - 1) * np.var(values, ddof=1) for values in found.values())
    return NoiseFloor(float(np.sqrt(squares / freedom)), tuple(found), freedom)


def _mean_by_seed(differences: list[dict[int, float]]) -> dict[int, float]:
    shared = set.intersection(*map(set, differences)) if differences else set()
    first = differences[0] if differences else {}
    return {
        seed: math.fsum(one[seed] for one in differences) / len(differences)
        for seed in first
        if seed in shared
    }
