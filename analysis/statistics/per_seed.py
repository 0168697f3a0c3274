"""What every method here starts from: one number per seed, and the row that it comes to.

A method is about one form (task, metric, shots, condition) of a score table, the primary metric by
default. Its numbers are contrasts of arms within a seed, so seeds are the only replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas

from ablations.contrasts import ScoreKey, Weights
from ablations.errors import UserError, nearest
from ablations.workload import INTACT
from analysis.effects import Summary, estimated, summarize
from analysis.score_table import Form, ScoreTable
from analysis.words import metric_name

FORM = ("task", "metric", "shots", "condition", "unit")
NUMBERS = ("sd", "n", "ci_low", "ci_high", "ci_level", "p_uncorrected", "interim")


def primary_form(table: ScoreTable) -> Form:
    """The primary metric, asked as it should be."""
    return (*table.primary, INTACT)


def form_of(
    table: ScoreTable, metric: str = "", shots: int | None = None, condition: str = INTACT
) -> Form:
    """The form that `task.metric` means; without it the primary metric.

    Without `shots` those of the primary metric on its task, else the fewest that were measured.

    Raises:
        UserError: there is no such number in the table.
    """
    task, name, first = table.primary
    if metric:
        measured = {metric_name(t, m): (t, m) for t, m, _, _ in table.metrics}
        if metric not in measured:
            raise UserError(f"no metric {metric!r} was measured{nearest(metric, measured)}")
        task, name = measured[metric]
    there = [f for f in table.metrics if f[:2] == (task, name)]
    if shots is None:
        counts = sorted({f[2] for f in there if f[3] == condition})
        shots = first if first in counts or not counts else counts[0]
    form = (task, name, shots, condition)
    if form not in there:
        known = ", ".join(f"{s}-shot {c}" for _, _, s, c in there) or "none"
        asked = f"{metric_name(task, name)} at {shots} shots, {condition}"
        raise UserError(f"no {asked}; there is: {known}")
    return form


def words_of(table: ScoreTable, form: Form) -> dict[str, Any]:
    """The columns `FORM` of a row."""
    return dict(zip(FORM, (*form, table.record(*form[:2]).unit), strict=True))


def numbers_of(summary: Summary, *, interim: bool = False, boundary: float = 0.0) -> dict[str, Any]:
    """The columns `NUMBERS` of a row; the p value is two-sided, against `boundary`."""
    return {
        "sd": summary.sd,
        "n": summary.n,
        "ci_low": summary.ci_low,
        "ci_high": summary.ci_high,
        "ci_level": summary.ci_level,
        "p_uncorrected": two_sided(summary, boundary),
        "interim": interim,
    }


def two_sided(summary: Summary, boundary: float = 0.0) -> float:
    """Of the t test of the mean; not-a-number where seeds are too few or all alike."""
    if summary.n < 2 or not summary.sd > 0:
        return math.nan
    from scipy.special import stdtr

    t = (summary.mean - boundary) / summary.sd * math.sqrt(summary.n)
    return 2.0 * float(stdtr(summary.n - 1, -abs(t)))


def contrast(table: ScoreTable, weights: Weights, form: Form) -> tuple[Summary, bool]:
    """A contrast of arms over the seeds that all of them have, and whether some are missing."""
    summary = estimated(table, weights, form)
    waiting = any(arm in weights for arm, _ in table.missing)
    return summary, waiting and summary.n < len(table.seeds)


def matrix(
    table: ScoreTable, rows: Sequence[Weights], form: Form
) -> tuple[np.ndarray, tuple[int, ...]]:
    """[seed, row] values of some contrasts, over the seeds that all have a finite value of."""
    found = [estimated(table, weights, form).by_seed for weights in rows]
    seeds = tuple(
        seed
        for seed in table.seeds
        if all(seed in one and math.isfinite(one[seed]) for one in found)
    )
    return np.array([[one[seed] for one in found] for seed in seeds]).reshape(
        len(seeds), len(found)
    ), seeds


def scores_of(table: ScoreTable, form: Form, arms: Sequence[str] = ()) -> pandas.DataFrame:
    """Columns arm, seed, value: a row a number, of the design's arms or of some."""
    rows = [
        (arm, seed, value)
        for arm in arms or table.design.arms
        for seed, value in table.scores.get(ScoreKey(arm, *form), {}).items()
        if seed in table.seeds and (arm, seed) not in table.excluded
    ]
    return pandas.DataFrame(rows, columns=["arm", "seed", "value"])


def of_vector(values: Sequence[float] | np.ndarray) -> Summary:
    """The summary of one number per seed, where seeds have no names."""
    return summarize(dict(enumerate(map(float, values))))


def numeric_levels(table: ScoreTable, factor: str) -> Mapping[str, float] | None:
    """Level → number of a factor, in rising order; None where a level is none."""
    try:
        places = {level: float(level) for level in table.design.factors[factor]}
    except ValueError:
        return None
    if not all(map(math.isfinite, places.values())) or len(set(places.values())) < len(places):
        return None
    return dict(sorted(places.items(), key=lambda item: item[1]))


def sign_of(table: ScoreTable, form: Form) -> float:
    """1 where a higher number is better, -1 where a lower one is.

    Raises `UserError` where nobody has said which: the opposite answer would look as good.
    """
    goal = table.record(*form[:2]).goal
    if goal is None:
        raise UserError(
            f"nobody has said whether more of {metric_name(*form[:2])} is better or less"
        )
    return -1.0 if goal == "minimise" else 1.0


def known_factor(table: ScoreTable, factor: str) -> str:
    """The factor. `UserError` that names the nearest where the design has none of this name."""
    if factor not in table.design.factors:
        raise UserError(f"no factor {factor!r}{nearest(factor, table.design.factors)}")
    return factor


def known_arm(table: ScoreTable, arm: str) -> str:
    """The arm. `UserError` that names the nearest where the table has none of this name."""
    if arm not in table.arms:
        raise UserError(f"no arm {arm!r}{nearest(arm, table.arms)}")
    return arm
