"""Paired effects: the same seed against the same seed, a t interval over seeds.

The unit of replication is the seed. Effects are descriptive: their 95 % intervals are outside
the family of claims and give no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ablations import contrasts
from ablations.contrasts import Contrast, Design, ScoreKey, by_seed
from ablations.verdicts import Values, half_width, mean_and_sd
from analysis.score_table import Form, ScoreTable

LEVEL = 0.95  # of every interval that stands beside no verdict


@dataclass(frozen=True)
class Summary:
    """A number per seed, and what they come to. NaN where there are too few of them."""

    by_seed: Mapping[int, float]
    mean: float
    sd: float  # between seeds, ddof 1
    ci_low: float
    ci_high: float
    ci_level: float = LEVEL

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


def summarize(values: Mapping[int, float], scale: float | None = None) -> Summary:
    """Mean, SD and t interval over seeds; no interval where all seeds gave the same number.

    Values that differ by rounding alone are the same: by 1e-12 of `scale`, the largest by default.
    """
    mean, sd = mean_and_spread(values, scale)
    half = half_width(sd, len(values), LEVEL) if sd else math.nan
    return Summary(dict(values), mean, sd, mean - half, mean + half)


def mean_and_spread(values: Mapping[int, float], scale: float | None = None) -> tuple[float, float]:
    """Mean and SD over seeds, as `summarize` has them, without an interval."""
    numbers = list(values.values())
    mean, sd = mean_and_sd(numbers)
    if sd <= 1e-12 * (max(map(abs, numbers), default=0.0) if scale is None else scale):
        sd = 0.0
    return mean, sd


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """Seed → a - b, for the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def effects(table: ScoreTable, form: Form | None = None) -> list[Effect]:
    """The effect of each factor level against the base level, on each metric; primary first.

    With `form` on that alone, be it a control.

    The contrast that `effect(factor, base -> level)` is in a claim: per seed, the mean over all
    pairs of arms that differ in this factor only. A seed counts when every arm has it.
    """
    changes = [
        (factor, base_level, level)
        for factor, (base_level, *others) in table.design.factors.items()
        for level in others
    ]
    pairs = {change: _pairs(table.design, *change) for change in changes}
    waiting = {arm for arm, _ in table.missing}
    found = []
    for asked in [form] if form else table.scored:  # controls have their own table
        task, metric, shots, condition = asked
        for change, (arms, weights) in pairs.items():
            summary = estimated(table, weights, asked)
            interim = not waiting.isdisjoint(weights)
            if not summary.n and not interim:
                continue  # there is no such pair of arms, or nobody asks it this
            factor, base_level, level = change
            found.append(
                Effect(
                    factor=factor,
                    base_level=base_level,
                    level=level,
                    arms=arms,
                    task=task,
                    metric=metric,
                    shots=shots,
                    condition=condition,
                    summary=summary,
                    diverged_seeds=tuple(
                        seed
                        for seed in summary.by_seed
                        if any(table.has_diverged(ScoreKey(arm, *asked), seed) for arm in weights)
                    )
                    if table.diverged
                    else (),
                    interim=interim and summary.n < len(table.seeds),
                )
            )
    return found


def _pairs(
    design: Design, factor: str, base_level: str, level: str
) -> tuple[tuple[str, ...], contrasts.Weights]:
    """The arms that have a level and a partner at the base level, and the effect's weights."""
    pairs = contrasts.matched(design, factor, (base_level, level))
    weights = contrasts.effect(design, factor, base_level, level) if pairs else {}
    return tuple(pair[level] for pair in pairs), weights


def estimated(table: ScoreTable, weights: contrasts.Weights, form: Form) -> Summary:
    """A contrast of arms on one metric, over the seeds that all of them have."""
    contrast = Contrast.over(weights, lambda arm: Contrast({ScoreKey(arm, *form): 1.0}))
    there = by_seed(table.scores, contrast.weights)
    seeds = [seed for seed in table.seeds if seed in there]
    values = Values.of(contrast, there, seeds)
    numbers = dict(zip(seeds, map(float, values.values), strict=True))
    return summarize(numbers, float(values.scale))


def noise_floor(table: ScoreTable) -> NoiseFloor | None:
    """The floor on the primary metric; None where the study has no null arm with two seeds."""
    base = table.score(table.base, *table.primary)
    found = {
        arm: list(paired(table.score(arm, *table.primary), base).values())
        for arm in table.null_arms
    }
    found = {arm: values for arm, values in found.items() if len(values) > 1}
    if not found:
        return None
    freedom = sum(len(values) - 1 for values in found.values())
    squares = sum((len(values) - 1) * np.var(values, ddof=1) for values in found.values())
    return NoiseFloor(float(np.sqrt(squares / freedom)), tuple(found), freedom)
