"""Rank agreement: scipy, noise ceilings, scales, what the weaker measure costs."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import scipy.stats

from ablations.contrasts import Design
from ablations.errors import UserError
from ablations.workload import Metric, Task
from analysis.score_table import score_table
from analysis.statistics.agreement import agreement_between_levels, rank_agreement

ARMS = ("base", "x=1", "x=2", "x=3", "x=4")
FIRST = ("stage", "loss", 0, "intact")
SECOND = ("tuned", "accuracy", 0, "intact")


def table(loss, accuracy):
    """`[arm, seed]` of a metric where lower is better, and of one where higher is."""
    frame = pandas.DataFrame(
        [
            (arm, seed, task, metric, values[i][seed])
            for task, metric, values in (("stage", "loss", loss), ("tuned", "accuracy", accuracy))
            for i, arm in enumerate(ARMS[: len(values)])
            for seed in range(len(values[i]))
        ],
        columns=["arm", "seed", "task", "metric", "value"],
    )
    levels = tuple(str(i) for i in range(len(loss)))
    design = Design({"x": levels}, {a: {"x": n} for a, n in zip(ARMS, levels, strict=False)})
    tasks = {
        "stage": Task(metrics=(Metric(name="loss", goal="minimise"),)),
        "tuned": Task(metrics=(Metric(name="accuracy", goal="maximise", worst=0),)),
    }
    return score_table(frame, design, ("tuned", "accuracy", 0), tasks)


LOSS = np.array([(3.0, 3.1), (2.8, 2.9), (2.5, 2.7), (2.6, 2.4), (2.2, 2.1)])
ACCURACY = np.array([(50.0, 51), (53, 54), (57, 55), (56, 57.5), (61, 62)])


def test_it_is_scipys_with_lower_is_better_turned_round() -> None:
    one = table(LOSS, ACCURACY)
    (row,) = rank_agreement(one, one, FIRST, SECOND).to_dict("records")
    known = scipy.stats.kendalltau(-LOSS.mean(axis=1), ACCURACY.mean(axis=1))
    assert row["kendall"] == pytest.approx(known.statistic)
    assert row["kendall_p"] == pytest.approx(known.pvalue)
    assert row["spearman"] == pytest.approx(
        scipy.stats.spearmanr(-LOSS.mean(axis=1), ACCURACY.mean(axis=1)).statistic
    )
    seeds = [scipy.stats.kendalltau(-LOSS[:, s], ACCURACY[:, s]).statistic for s in (0, 1)]
    assert row["by_seed"] == pytest.approx(np.mean(seeds))
    assert row["ceiling_first"] == pytest.approx(
        scipy.stats.kendalltau(LOSS[:, 0], LOSS[:, 1]).statistic
    )
    assert (row["arms"], row["seeds"], row["best_agrees"], row["regret"]) == (5, 2, True, 0)


def test_what_choosing_by_the_first_costs_in_the_second() -> None:
    one = table(LOSS, np.flipud(ACCURACY))
    (row,) = rank_agreement(one, one, FIRST, SECOND).to_dict("records")
    assert row["kendall"] < -0.5
    assert not row["best_agrees"]
    assert row["regret"] == pytest.approx(61.5 - 50.5)


def test_pairs_that_both_tell_and_those_turned_round() -> None:
    noise = np.array([0.0, 0.01, -0.01])
    level = np.arange(5.0)[:, None]
    same = table(5 - level + noise, 50 + level - noise)
    (row,) = rank_agreement(same, same, FIRST, SECOND).to_dict("records")
    # Paired differences without any spread are told by nothing; here there is some.
    wobbled = table(5 - level + noise * (1 + level), 50 - level + noise * (2 + level))
    (turned,) = rank_agreement(wobbled, wobbled, FIRST, SECOND).to_dict("records")
    assert row["reversed"] == 0
    assert turned["separated"] == turned["reversed"] == 10


def test_two_scales_are_compared_by_the_arms_that_both_have() -> None:
    small, large = table(LOSS, ACCURACY), table(LOSS[:4], ACCURACY[:4])
    (row,) = rank_agreement(small, large).to_dict("records")
    assert (row["arms"], row["kendall"]) == (4, pytest.approx(1.0))
    with pytest.raises(UserError, match="2 arms have both scores"):
        rank_agreement(small, table(LOSS[:2], ACCURACY[:2]))


def test_levels_of_a_scale_in_one_design(table_of) -> None:
    scores = {
        (size, kind): np.array([0, 0.1]) + value
        for size, own in (("small", (1, 2, 3, 4)), ("large", (5, 7, 6, 9)))
        for kind, value in zip("abcd", own, strict=True)
    }
    found = agreement_between_levels(
        table_of({"size": ("small", "large"), "kind": tuple("abcd")}, scores), "size"
    )
    (row,) = found.to_dict("records")
    assert (row["first"], row["second"], row["arms"]) == ("small", "large", 4)
    assert row["kendall"] == pytest.approx(2 / 3)


@pytest.mark.slow
def test_unrelated_orders_are_called_related_at_most_as_often_as_they_say() -> None:
    draw, found = np.random.default_rng(0), 0
    for _ in range(600):
        one = table(draw.normal(3, 1, (5, 2)), draw.normal(50, 1, (5, 2)))
        found += rank_agreement(one, one, FIRST, SECOND)["kendall_p"].item() <= 0.05
    assert found / 600 <= 0.05 + 3 * (0.0475 / 600) ** 0.5


@pytest.mark.slow
def test_the_mean_agreement_of_seeds_is_covered() -> None:
    """Its truth is the mean over many seeds; an interval over few covers it about as it says."""
    draw = np.random.default_rng(1)

    def seeds(n):
        level = np.arange(5.0)[:, None]
        return draw.normal(5 - level, 1.5, (5, n)), draw.normal(50 + level, 1.5, (5, n))

    loss, accuracy = seeds(2000)
    truth = np.mean(
        [scipy.stats.kendalltau(-x, y).statistic for x, y in zip(loss.T, accuracy.T, strict=True)]
    )
    covered = 0
    for _ in range(300):
        one = table(*seeds(8))
        row = rank_agreement(one, one, FIRST, SECOND).iloc[0]
        covered += row["by_seed_low"] <= truth <= row["by_seed_high"]
    assert covered / 300 >= 0.95 - 4 * (0.0475 / 300) ** 0.5
