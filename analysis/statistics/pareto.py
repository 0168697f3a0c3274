"""Score against cost: which arms nothing beats in both, and which are beaten beyond noise.

A front of means is drawn by luck as much as by the arms: the best of many noisy scores is above its
true value. So beside the front of means each arm has the arms that beat it with the family-wise
error of all pairs held by Holm's correction. What is known exactly (parameters, FLOPs, tokens) is
compared exactly; what was measured (score, seconds, latency) seed by seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pandas

from ablations.errors import UserError, nearest, shown
from ablations.verdicts import Values, holm, p_above
from analysis.score_table import Form, ScoreTable
from analysis.statistics.per_seed import primary_form, sign_of, words_of

COLUMNS = (
    *("arm", "score", "score_sd", "cost", "cost_sd", "cost_name", "n"),
    *("on_front", "beaten_by", "is_beaten", "task", "metric", "shots", "condition", "unit"),
)


def pareto(
    table: ScoreTable,
    costs: Mapping[str, float | Mapping[int, float]],
    cost_name: str,
    form: Form | None = None,
    alpha: float = 0.05,
) -> pandas.DataFrame:
    """Each arm's score and cost, cheapest first.

    `costs` is arm → what it costs, exactly, or arm → seed → what was measured; less is better.

    Columns:
        arm
        score, score_sd   mean and SD over seeds, in `unit`
        cost, cost_sd     mean and SD over seeds, in the unit that `cost_name` says; an exact cost
                          has an SD of 0
        cost_name         as given
        n                 seeds with a score
        on_front          no arm's means are better in one and as good in the other
        beaten_by         arms that are better in both beyond noise: p of the weaker of the two,
                          one-sided, Holm over all ordered pairs, ≤ alpha. Of an exact cost that is
                          the same, the score decides
        is_beaten         some arm does; not `on_front` and not `is_beaten` is: not separated
        task, metric, shots, condition, unit

    Raises:
        UserError: an arm that is not in the table, a cost that is no number, a metric of which
            nobody has said which way it is better.
    """
    form = form or primary_form(table)
    for arm in costs:
        if arm not in table.arms:
            raise UserError(f"no arm {shown(arm)}{nearest(arm, table.arms)}")
    sign = sign_of(table, form)
    scores = {arm: table.score(arm, *form) for arm in costs}
    scores = {arm: {s: sign * v for s, v in own.items()} for arm, own in scores.items() if own}
    arms = list(scores)
    priced = {arm: _cost(arm, costs[arm]) for arm in arms}
    pairs = list(itertools.permutations(arms, 2))
    p = [
        max(
            _p_better(scores[a], scores[b]),
            _p_cheaper(priced[a], priced[b]),
        )
        for a, b in pairs
    ]
    beaten: dict[str, list[str]] = {arm: [] for arm in arms}
    for (a, b), adjusted in zip(pairs, holm(p) if p else [], strict=True):
        if adjusted <= alpha:
            beaten[b].append(a)
    means = {arm: float(np.mean(list(scores[arm].values()))) for arm in arms}
    price = {arm: _mean(priced[arm]) for arm in arms}
    rows = [
        {
            "arm": arm,
            "score": sign * means[arm],
            "score_sd": _sd(list(scores[arm].values())),
            "cost": price[arm],
            "cost_sd": _spread(priced[arm]),
            "cost_name": cost_name,
            "n": len(scores[arm]),
            "on_front": not any(
                means[o] >= means[arm]
                and price[o] <= price[arm]
                and (means[o], price[o]) != (means[arm], price[arm])
                for o in arms
            ),
            "beaten_by": ", ".join(beaten[arm]),
            "is_beaten": bool(beaten[arm]),
            **words_of(table, form),
        }
        for arm in arms
    ]
    found = pandas.DataFrame(rows, columns=list(COLUMNS))
    return found.sort_values(["cost", "score"], kind="stable", ignore_index=True)


Cost = float | dict[int, float]


def _cost(arm: str, given: float | Mapping[int, float]) -> Cost:
    values = given.values() if isinstance(given, Mapping) else [given]
    if not values or not all(map(math.isfinite, values)):
        raise UserError(f"the cost of arm {shown(arm)} is no number")
    return dict(given) if isinstance(given, Mapping) else float(given)


def _mean(cost: Cost) -> float:
    return float(np.mean(list(cost.values()))) if isinstance(cost, dict) else cost


def _spread(cost: Cost) -> float:
    return _sd(list(cost.values())) if isinstance(cost, dict) else 0.0


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _p_better(a: Mapping[int, float], b: Mapping[int, float]) -> float:
    """One-sided p value of the paired t test of "a is not above b"; 1 below two shared seeds."""
    shared = [seed for seed in a if seed in b]
    pair = np.array([[a[s] for s in shared], [b[s] for s in shared]]).reshape(2, -1)
    scale = np.asarray(np.abs(pair).max(initial=0.0))
    return float(p_above(Values(pair[0] - pair[1], scale)))


def _p_cheaper(a: Cost, b: Cost) -> float:
    """0 or 1 where both are exact: the same cost is no objection; else a paired or one-sample t."""
    if not isinstance(a, dict) and not isinstance(b, dict):
        return 0.0 if a <= b else 1.0
    seeds = a if isinstance(a, dict) else b if isinstance(b, dict) else {}
    first = a if isinstance(a, dict) else dict.fromkeys(seeds, a)
    second = b if isinstance(b, dict) else dict.fromkeys(seeds, b)
    return _p_better(second, first)
