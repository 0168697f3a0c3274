"""The law of the best peak learning rate against model size, refitted on one's own grid.

MM1 (McKinzie et al., 2024) searches a grid of peak rates at each of several sizes, takes the best
of each and fits a line in log-log space. Here the best of a size is the top of the parabola through
the best rate of the grid and its two neighbours, in the mean over seeds. Where the best rate is the
first or last of the grid, the best one may lie outside: such a size is told and left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas

from ablations import contrasts
from ablations.errors import UserError
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import (
    known_factor,
    matrix,
    numeric_levels,
    primary_form,
    sign_of,
    words_of,
)
from analysis.statistics.scaling import ScalingFit, fit_points

INSIDE, AT_EDGE, FLAT = "inside the grid", "at the edge of the grid", "no single best rate"


@dataclass(frozen=True)
class LearningRateLaw:
    """The best rate of each size, and the line through them: rate = A·size^-beta."""

    optima: pandas.DataFrame
    law: ScalingFit

    @property
    def parameters(self) -> pandas.DataFrame:
        """`A` and `beta` with their intervals; columns as of `ScalingFit.parameters`."""
        found = self.law.parameters
        return found[found["model"] == "power law"].reset_index(drop=True)

    @property
    def held_out(self) -> pandas.DataFrame:
        """The largest size's rate as the others predict it; columns as of `ScalingFit.held_out`."""
        found = self.law.held_out
        return found if found.empty else found[found["model"] == "power law"]

    def predict(self, sizes: list[float]) -> pandas.DataFrame:
        """The rate that the law gives sizes: `y`; columns as of `ScalingFit.predict`."""
        found = self.law.predict(sizes)
        return found[found["model"] == "power law"].drop(columns=["score", "is_chosen"])


def learning_rate_law(
    table: ScoreTable,
    size: str,
    rate: str,
    form: Form | None = None,
    sizes: Mapping[str, float] | None = None,
) -> LearningRateLaw:
    """Refit the law on a design that varies the factors `size` and `rate` together.

    `sizes` is level → parameters of the size factor, where its levels are no such numbers. Means
    over seeds decide; each seed's own best rate gives the spread.

    `optima` has the columns
        level, size       of the size factor, and its number
        rate              best peak rate, of the mean over seeds; NaN if not `inside the grid`
        at                `inside the grid`, `at the edge of the grid`, `no single best rate`
        grid_best         the best rate that was run
        rates, n          rates that were run, and seeds that have them all
        spread            SD over seeds of ln of each seed's own best rate; NaN if one is at an edge
        task, metric, shots, condition, unit

    Raises:
        UserError: fewer than three sizes with a best rate inside the grid, rates that are no
            numbers, factors that were not varied together.
    """
    form = form or primary_form(table)
    places = sizes or numeric_levels(table, known_factor(table, size))
    if places is None:
        raise UserError(f"the levels of {size!r} are no numbers: say the parameters of each")
    rates = numeric_levels(table, known_factor(table, rate))
    if rates is None or min(rates.values()) <= 0:
        raise UserError(f"the levels of {rate!r} are no rates above zero")
    sign = sign_of(table, form)
    rows = []
    for level in table.design.factors[size]:
        if level not in places:
            continue
        there = {
            name: value
            for name, value in rates.items()
            if contrasts.matched(table.design, rate, (name,), {size: level})
        }
        if len(there) < 3 or not contrasts.matched(table.design, rate, tuple(there), {size: level}):
            continue
        means = contrasts.level_means(table.design, rate, tuple(there), {size: level})
        values, seeds = matrix(table, list(means.values()), form)
        if not len(seeds):
            continue
        log_rates = np.log(list(there.values()))
        best, at = peak(log_rates, sign * values.mean(axis=0))
        own = [peak(log_rates, sign * one)[0] for one in values]
        top = int(np.argmax(sign * values.mean(axis=0)))
        rows.append(
            {
                "level": level,
                "size": float(places[level]),
                "rate": math.exp(best) if math.isfinite(best) else math.nan,
                "at": at,
                "grid_best": float(np.exp(log_rates[top])),
                "rates": len(there),
                "n": len(seeds),
                "spread": float(np.std(own, ddof=1)) if len(own) > 1 else math.nan,
                **words_of(table, form),
            }
        )
    if not rows:
        raise UserError(f"no size of {size!r} was run with three rates of {rate!r} or more")
    optima = pandas.DataFrame(rows).sort_values("size", ignore_index=True)
    inside = optima[optima["at"] == INSIDE]
    if len(inside) < 3:
        edge = ", ".join(f"{row['level']} {row['at']}" for row in rows if row["at"] != INSIDE)
        raise UserError(
            f"a law needs three sizes with their best rate inside the grid; there are "
            f"{len(inside)}" + (f" ({edge}: widen the grid)" if edge else "")
        )
    points = pandas.DataFrame({"size": inside["size"], "seed": 0, "value": inside["rate"]})
    return LearningRateLaw(optima, fit_points(points, {}))


def peak(x: np.ndarray, y: np.ndarray) -> tuple[float, str]:
    """Where the parabola through the highest point and its neighbours is highest, and how sure.

    `x` rises, y is better when higher. Not-a-number where the highest is first or last.
    """
    top = int(np.argmax(y))
    if np.count_nonzero(y == y[top]) > 2:
        return math.nan, FLAT
    if top in (0, len(x) - 1):
        return math.nan, AT_EDGE
    near = slice(top - 1, top + 2)
    square, slope, _ = np.polyfit(x[near] - x[top], y[near], 2)
    if not square < 0:
        return math.nan, FLAT
    return float(x[top] - slope / (2 * square)), INSIDE
