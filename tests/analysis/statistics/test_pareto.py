"""Pareto fronts: by hand, with exact and measured costs, and how often luck is taken for more."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.errors import UserError
from analysis.statistics.pareto import pareto

SCORES = {
    ("a",): (50.0, 50.4, 49.8),
    ("b",): (60.1, 60.0, 59.7),  # better than a and as cheap
    ("c",): (60.3, 59.9, 60.2),  # not told from b, and dearer
    ("d",): (70.0, 70.3, 69.9),
}
COSTS = {"base": 1.0, "k=b": 1.0, "k=c": 2.0, "k=d": 4.0}


def test_a_front_by_hand(table_of) -> None:
    table = table_of({"k": tuple("abcd")}, SCORES)
    found = pareto(table, COSTS, "FLOPs").set_index("arm")
    assert found["on_front"].to_dict() == {
        "base": False,
        "k=b": True,
        "k=c": bool(np.mean(SCORES[("c",)]) > np.mean(SCORES[("b",)])),
        "k=d": True,
    }
    assert found["beaten_by"].to_dict() == {"base": "k=b", "k=b": "", "k=c": "", "k=d": ""}
    assert found["is_beaten"].sum() == 1
    assert found["cost"].tolist() == [1.0, 1.0, 2.0, 4.0]
    assert found["cost_name"].unique().tolist() == ["FLOPs"]


def test_a_measured_cost_must_be_told_from_the_other(table_of) -> None:
    table = table_of({"k": tuple("abcd")}, SCORES)
    near = {arm: {1: 1.0, 2: 1.5, 3: 0.7} for arm in COSTS}
    near["k=b"] = {1: 0.9, 2: 1.6, 3: 0.6}
    found = pareto(table, near, "seconds").set_index("arm")
    assert not found["is_beaten"].any()
    far = {**near, "k=b": {1: 0.1, 2: 0.6, 3: -0.22}}
    assert pareto(table, far, "seconds").set_index("arm")["beaten_by"]["base"] == "k=b"


def test_lower_is_better_is_turned_round(table_of) -> None:
    table = table_of({"k": tuple("abcd")}, SCORES, "minimise")
    found = pareto(table, COSTS, "FLOPs").set_index("arm")
    assert found["on_front"].to_dict() == {"base": True, "k=b": False, "k=c": False, "k=d": False}
    assert "base" in found["beaten_by"]["k=d"]
    assert found["score"]["base"] == pytest.approx(50.066667)


def test_a_metric_that_nobody_has_said_the_direction_of_is_refused(table_of) -> None:
    table = table_of({"k": tuple("abcd")}, SCORES, None)
    with pytest.raises(UserError, match=r"nobody has said whether more of test.score0 is"):
        pareto(table, COSTS, "FLOPs")


def test_without_separation_nothing_is_beaten(table_of) -> None:
    one = table_of({"k": tuple("abcd")}, {cell: values[:1] for cell, values in SCORES.items()})
    found = pareto(one, COSTS, "FLOPs")
    assert not found["is_beaten"].any()
    assert found["on_front"].any()
    with pytest.raises(UserError, match="no arm 'k=e'"):
        pareto(one, {"k=e": 1.0}, "FLOPs")
    with pytest.raises(UserError, match="is no number"):
        pareto(one, {"k=b": float("nan")}, "FLOPs")


@pytest.mark.slow
def test_equal_arms_are_seldom_called_beaten(table_of, drawn, forms) -> None:
    cells = {(k,): 50.0 for k in "abcd"}
    table = table_of({"k": tuple("abcd")}, drawn(cells, 3, 500, number=2))
    costs = {"base": 1.0, "k=b": 2.0, "k=c": 3.0, "k=d": 4.0}
    wrong = [pareto(table, costs, "FLOPs", form)["is_beaten"].any() for form in forms(table)]
    front = [pareto(table, costs, "FLOPs", form)["on_front"].all() for form in forms(table)]
    assert np.mean(wrong) <= 0.05 + 3 * (0.0475 / 500) ** 0.5
    assert np.mean(front) < 0.2  # means alone would call some of them beaten most of the time
