"""Trends over a factor whose levels are numbers: slope, curvature, order.

All per seed: the slope of a seed's least-squares line is one number, and seeds are the replicates.
A slope alone says nothing of the shape: `curvature` says whether a line does, and Page's test asks
for an order without one.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas

from ablations import contrasts
from analysis.effects import LEVEL
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import (
    matrix,
    numbers_of,
    numeric_levels,
    of_vector,
    primary_form,
    words_of,
)

COLUMNS = (
    *("factor", "levels", "lowest", "highest", "per", "slope", "sd", "n", "ci_low", "ci_high"),
    *("ci_level", "p_uncorrected", "interim", "curvature", "curvature_low", "curvature_high"),
    *("curvature_p_uncorrected", "page_l", "page_p_rising", "page_p_falling"),
    *("task", "metric", "shots", "condition", "unit"),
)


def trends(
    table: ScoreTable, form: Form | None = None, scale: Literal["linear", "log2"] = "linear"
) -> pandas.DataFrame:
    """The trend over each factor whose levels are numbers, through the means of all levels.

    Columns:
        factor
        levels, lowest, highest       how many, and the range that was run
        per               what the slope is per: `1` of the factor's own unit, or `doubling`
        slope             mean over seeds of each seed's least-squares slope, in `unit` per `per`
        sd, n, ci_low, ci_high, ci_level, p_uncorrected, interim    of the slope, over seeds
        curvature         coefficient of x² of each seed's least-squares parabola, mean over seeds
        curvature_low, curvature_high, curvature_p_uncorrected      its 95 % interval and p value;
                          not-a-number below three levels
        page_l            Page's L over seeds as judges; not-a-number below three levels
        page_p_rising, page_p_falling     one-sided p values of an order that never turns back
        task, metric, shots, condition, unit

    With `log2` factors with a level that is not above zero are left out.
    """
    form = form or primary_form(table)
    rows = []
    for factor, names in table.design.factors.items():
        places = numeric_levels(table, factor) if len(names) > 1 else None
        if places is None or (scale == "log2" and min(places.values()) <= 0):
            continue
        if not contrasts.matched(table.design, factor, tuple(places)):
            continue
        means = contrasts.level_means(table.design, factor, tuple(places))
        values, seeds = matrix(table, list(means.values()), form)
        x = np.array(list(places.values()))
        x = np.log2(x) if scale == "log2" else x
        slope = of_vector(values @ slope_weights(x))
        bend = of_vector(values @ curvature_weights(x)) if len(x) > 2 else of_vector([])
        arms = {arm for weights in means.values() for arm in weights}
        rows.append(
            {
                "factor": factor,
                "levels": len(places),
                "lowest": min(places.values()),
                "highest": max(places.values()),
                "per": "doubling" if scale == "log2" else "1",
                "slope": slope.mean,
                **numbers_of(
                    slope,
                    interim=len(seeds) < len(table.seeds)
                    and any(arm in arms for arm, _ in table.missing),
                ),
                "curvature": bend.mean,
                "curvature_low": bend.ci_low,
                "curvature_high": bend.ci_high,
                "curvature_p_uncorrected": numbers_of(bend)["p_uncorrected"],
                **page(values),
                **words_of(table, form),
            }
        )
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def slope_weights(x: np.ndarray) -> np.ndarray:
    """Weights of the values at `x` that give the least-squares slope."""
    centred = x - x.mean()
    return centred / (centred**2).sum()


def curvature_weights(x: np.ndarray) -> np.ndarray:
    """Weights of the values at `x` that give the coefficient of x² of the parabola through them."""
    line = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    square = (x - x.mean()) ** 2
    rest = square - line @ np.linalg.lstsq(line, square, rcond=None)[0]
    return rest / (rest**2).sum()


def page(values: np.ndarray) -> dict[str, float]:
    """Page's trend test of `[seed, level]`, levels in rising order."""
    if values.shape[0] < 2 or values.shape[1] < 3:
        return {"page_l": math.nan, "page_p_rising": math.nan, "page_p_falling": math.nan}
    from scipy.stats import page_trend_test

    rising, falling = page_trend_test(values), page_trend_test(values[:, ::-1])
    return {
        "page_l": float(rising.statistic),
        "page_p_rising": float(rising.pvalue),
        "page_p_falling": float(falling.pvalue),
    }


def over_shots(table: ScoreTable, form: Form | None = None) -> pandas.DataFrame:
    """Each arm's scores by shots, and how its difference to the base grows with them.

    Columns:
        arm
        shots             the number of demonstrations
        mean, sd, n       score over seeds, in `unit`
        ci_low, ci_high, ci_level     t interval of the mean
        gain              mean over seeds of the score minus that at the fewest shots, in `unit`
        gain_low, gain_high           its t interval: paired, so often the narrower one
        gain_p_uncorrected            two-sided paired t test
        task, metric, condition, unit
    """
    task, metric, _, condition = form or primary_form(table)
    counts = sorted(
        {f[2] for f in table.metrics if (f[0], f[1], f[3]) == (task, metric, condition)}
    )
    rows = []
    for arm in table.arms:
        fewest = table.score(arm, task, metric, counts[0], condition) if counts else {}
        for shots in counts:
            scores = table.score(arm, task, metric, shots, condition)
            own = of_vector(list(scores.values()))
            gain = of_vector([scores[s] - fewest[s] for s in scores if s in fewest])
            first = shots == counts[0]
            words = words_of(table, (task, metric, shots, condition))
            rows.append(
                {
                    "arm": arm,
                    "shots": words.pop("shots"),
                    "mean": own.mean,
                    "sd": own.sd,
                    "n": own.n,
                    "ci_low": own.ci_low,
                    "ci_high": own.ci_high,
                    "ci_level": LEVEL,
                    "gain": math.nan if first else gain.mean,
                    "gain_low": math.nan if first else gain.ci_low,
                    "gain_high": math.nan if first else gain.ci_high,
                    "gain_p_uncorrected": (
                        math.nan if first else numbers_of(gain)["p_uncorrected"]
                    ),
                    **words,
                }
            )
    columns = (
        *("arm", "shots", "mean", "sd", "n", "ci_low", "ci_high", "ci_level"),
        *("gain", "gain_low", "gain_high", "gain_p_uncorrected"),
        *("task", "metric", "condition", "unit"),
    )
    return pandas.DataFrame(rows, columns=list(columns))
