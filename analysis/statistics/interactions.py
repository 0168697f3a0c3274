"""Interactions: how much the effect of one factor differs with another's level.

Needs arms in which both were changed together. A design that varies one factor at a time has none,
and can say nothing of interactions, whatever its number of seeds.
"""

from __future__ import annotations

import itertools

import pandas

from ablations.contrasts import Design, Weights
from ablations.errors import UserError
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import contrast, numbers_of, primary_form, words_of

COLUMNS = (
    *("factor", "base_level", "level", "by", "by_base_level", "by_level", "interaction"),
    *("sd", "n", "ci_low", "ci_high", "ci_level", "p_uncorrected", "interim"),
    *("task", "metric", "shots", "condition", "unit"),
)


def interactions(table: ScoreTable, form: Form | None = None) -> pandas.DataFrame:
    """Of each two factors, levels against base levels: a difference of differences per seed.

    The mean over the cells of all other factors in which the four arms were run. 0 means that the
    effect of `factor` is the same at both levels of `by`; twice the number of a ±1 coding.

    Columns:
        factor, base_level, level, by, by_base_level, by_level
        interaction       effect of `factor` at `by_level` minus that at `by_base_level`, in `unit`
        sd                between seeds, in `unit`
        n                 seeds that all of its arms have
        ci_low, ci_high   t interval at `ci_level`
        p_uncorrected     two-sided t test over seeds
        interim           registered seeds are still missing
        task, metric, shots, condition, unit

    Raises:
        UserError: no two factors were varied together.
    """
    form = form or primary_form(table)
    factors = table.design.factors
    rows = []
    for factor, by in itertools.combinations(factors, 2):
        for level, by_level in itertools.product(factors[factor][1:], factors[by][1:]):
            levels, by_levels = (factors[factor][0], level), (factors[by][0], by_level)
            weights = interaction(table.design, factor, levels, by, by_levels)
            if not weights:
                continue
            found, interim = contrast(table, weights, form)
            rows.append(
                {
                    "factor": factor,
                    "base_level": levels[0],
                    "level": level,
                    "by": by,
                    "by_base_level": by_levels[0],
                    "by_level": by_level,
                    "interaction": found.mean,
                    **numbers_of(found, interim=interim),
                    **words_of(table, form),
                }
            )
    if not rows:
        raise UserError(
            "no two factors of this design were varied together, so it says nothing of "
            "interactions; `design: {factorial: …}` does"
        )
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def interaction(
    design: Design, factor: str, levels: tuple[str, str], by: str, by_levels: tuple[str, str]
) -> Weights:
    """Weights of (y11 - y10) - (y01 - y00), the mean over matched cells; empty without one."""
    cells: dict[tuple[tuple[str, str], ...], dict[tuple[str, str], str]] = {}
    for arm, where in design.arms.items():
        if where[factor] in levels and where[by] in by_levels:
            others = tuple((f, level) for f, level in where.items() if f not in (factor, by))
            cells.setdefault(others, {})[where[factor], where[by]] = arm
    whole = [cell for cell in cells.values() if len(cell) == 4]
    signs = {
        corner: 1.0 if (corner[0] == levels[1]) == (corner[1] == by_levels[1]) else -1.0
        for corner in itertools.product(levels, by_levels)
    }
    return {cell[corner]: sign / len(whole) for cell in whole for corner, sign in signs.items()}
