"""Effects as a table: what changing one factor, or one arm for another, did within a seed.

Descriptive: intervals are of 95 % and p values uncorrected, outside the family of claims. A verdict
needs a claim. Where seeds were added until a claim was decided, means of the seeds so far lean away
from zero and these intervals are a little short; those beside verdicts are not.
"""

from __future__ import annotations

import math

import numpy as np
import pandas

from ablations import contrasts
from analysis.effects import Effect, Summary, effects
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import (
    contrast,
    known_arm,
    known_factor,
    matrix,
    numbers_of,
    primary_form,
    words_of,
)
from analysis.tables.power import detectable

ALPHA = 0.05  # two-sided, of the effect that could have been seen


def paired_effects(table: ScoreTable, form: Form | None = None) -> pandas.DataFrame:
    """The effect of each level against the base level, on every metric or on one.

    A main effect over all pairs of arms that differ in this factor alone; in a one-at-a-time design
    that is one pair, at the base.

    Columns:
        factor, base_level, level
        arms              how many pairs of arms it is the mean of
        effect            mean over seeds of `level` minus `base_level`, in `unit`
        sd                between seeds of that difference, in `unit`
        n                 seeds that all of its arms have
        ci_low, ci_high   t interval at `ci_level`
        p_uncorrected     two-sided paired t test
        interim           registered seeds are still missing
        detectable        smallest effect found with probability 0.8 at p ≤ 0.05, with this sd and n
        diverged          seeds in which an arm had diverged: its score is the metric's worst value
        task, metric, shots, condition, unit
    """
    rows = [_row(table, one) for one in effects(table, form)]
    return pandas.DataFrame(rows, columns=list(_EFFECT))


_EFFECT = (
    *("factor", "base_level", "level", "arms", "effect", "sd", "n", "ci_low", "ci_high"),
    *("ci_level", "p_uncorrected", "interim", "detectable", "diverged"),
    *("task", "metric", "shots", "condition", "unit"),
)


def _row(table: ScoreTable, effect: Effect) -> dict[str, object]:
    found = effect.summary
    return {
        "factor": effect.factor,
        "base_level": effect.base_level,
        "level": effect.level,
        "arms": len(effect.arms),
        "effect": found.mean,
        **numbers_of(found, interim=effect.interim),
        "detectable": _seen(found),
        "diverged": len(effect.diverged_seeds),
        **words_of(table, (effect.task, effect.metric, effect.shots, effect.condition)),
    }


def simple_effects(table: ScoreTable, factor: str, form: Form | None = None) -> pandas.DataFrame:
    """The effect of each level of a factor against its base level, in each cell of the others.

    Columns:
        factor, base_level, level
        at                the other factors' levels, `a=1, b=2`; those that have only one left out
        effect            mean over seeds of `level` minus `base_level`, in `unit`
        sd, n, ci_low, ci_high, ci_level, p_uncorrected, interim    as in `paired_effects`
        task, metric, shots, condition, unit
    """
    form = form or primary_form(table)
    base_level, *others = table.design.factors[known_factor(table, factor)]
    rows = []
    for level in others:
        for pair in contrasts.matched(table.design, factor, (base_level, level)):
            found, interim = contrast(table, {pair[level]: 1.0, pair[base_level]: -1.0}, form)
            where = table.design.arms[pair[level]].items()
            rows.append(
                {
                    "factor": factor,
                    "base_level": base_level,
                    "level": level,
                    "at": ", ".join(
                        f"{f}={v}"
                        for f, v in where
                        if f != factor and len(table.design.factors[f]) > 1
                    ),
                    "effect": found.mean,
                    **numbers_of(found, interim=interim),
                    **words_of(table, form),
                }
            )
    return pandas.DataFrame(rows, columns=list(_SIMPLE))


_SIMPLE = (
    *("factor", "base_level", "level", "at", "effect", "sd", "n", "ci_low", "ci_high"),
    *("ci_level", "p_uncorrected", "interim", "task", "metric", "shots", "condition", "unit"),
)


def arm_differences(
    table: ScoreTable, reference: str = "", form: Form | None = None
) -> pandas.DataFrame:
    """Each arm minus a reference, the base by default, seed by seed.

    Columns:
        arm, reference
        effect            mean over seeds of `arm` minus `reference`, in `unit`
        sd, n, ci_low, ci_high, ci_level, p_uncorrected, interim    as in `paired_effects`
        detectable        as in `paired_effects`
        correlation       of the two arms' scores over seeds: what pairing gains (0: nothing)
        task, metric, shots, condition, unit
    """
    form = form or primary_form(table)
    reference = known_arm(table, reference or table.base)
    rows = []
    for arm in table.arms:
        if arm == reference:
            continue
        found, interim = contrast(table, {arm: 1.0, reference: -1.0}, form)
        pair, _ = matrix(table, [{arm: 1.0}, {reference: 1.0}], form)
        rows.append(
            {
                "arm": arm,
                "reference": reference,
                "effect": found.mean,
                **numbers_of(found, interim=interim),
                "detectable": _seen(found),
                "correlation": correlation(pair),
                **words_of(table, form),
            }
        )
    return pandas.DataFrame(rows, columns=list(_DIFFERENCE))


_DIFFERENCE = (
    *("arm", "reference", "effect", "sd", "n", "ci_low", "ci_high", "ci_level"),
    *("p_uncorrected", "interim", "detectable", "correlation"),
    *("task", "metric", "shots", "condition", "unit"),
)


def correlation(pair: np.ndarray) -> float:
    """Of the two columns of `[seed, 2]`; not-a-number below three seeds or without spread."""
    if len(pair) < 3 or not (pair.std(axis=0) > 0).all():
        return math.nan
    return float(np.corrcoef(pair.T)[0, 1])


def _seen(found: Summary) -> float:
    """The effect that this many seeds find, with their SD taken as the true one."""
    return detectable(found.sd, found.n, ALPHA / 2) if found.sd > 0 else math.nan
