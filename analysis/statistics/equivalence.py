"""Equivalence: whether a change hardly matters, by two one-sided tests (Schuirmann 1987).

An effect that is not significant is no evidence that there is none. Equivalence needs a margin that
was chosen before looking; one that is chosen here is exploratory, and a claim
(`score(a) == score(b) within 1.0`) is the way to a verdict.
"""

from __future__ import annotations

import math

import pandas

from ablations.errors import UserError
from ablations.verdicts import half_width
from analysis.effects import Summary, effects
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import primary_form, words_of

COLUMNS = (
    *("factor", "base_level", "level", "effect", "margin", "sd", "n", "ci_low", "ci_high"),
    *("ci_level", "p_uncorrected", "within", "interim"),
    *("task", "metric", "shots", "condition", "unit"),
)


def equivalence(
    table: ScoreTable, margin: float, form: Form | None = None, alpha: float = 0.05
) -> pandas.DataFrame:
    """Whether each level is within `margin` of the base level, seed by seed.

    Columns:
        factor, base_level, level
        effect            mean over seeds of `level` minus `base_level`, in `unit`
        margin            in `unit`
        sd, n             of the difference, over seeds
        ci_low, ci_high   t interval at `ci_level` = 1 - 2·alpha: within ± margin if `within`
        p_uncorrected     the larger of the two one-sided p values
        within            p ≤ alpha. False says that it was not shown, not that it differs
        interim           registered seeds are still missing
        task, metric, shots, condition, unit

    Raises:
        UserError: a margin that is not above zero.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise UserError(f"margin: {margin} is no number above zero")
    form = form or primary_form(table)
    rows = []
    for one in effects(table, form):
        found = one.summary
        half = half_width(found.sd, found.n, 1 - 2 * alpha) if found.sd > 0 else math.nan
        p = two_one_sided(found, margin)
        rows.append(
            {
                "factor": one.factor,
                "base_level": one.base_level,
                "level": one.level,
                "effect": found.mean,
                "margin": margin,
                "sd": found.sd,
                "n": found.n,
                "ci_low": found.mean - half,
                "ci_high": found.mean + half,
                "ci_level": 1 - 2 * alpha,
                "p_uncorrected": p,
                "within": p <= alpha,
                "interim": one.interim,
                **words_of(table, form),
            }
        )
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def two_one_sided(found: Summary, margin: float) -> float:
    """The larger p value of "at least margin below" and "at least margin above"."""
    if found.n < 2 or not found.sd > 0:
        return math.nan
    from scipy.special import stdtr

    scale = math.sqrt(found.n) / found.sd
    t = scale * (margin - abs(found.mean))
    return float(stdtr(found.n - 1, -t))
