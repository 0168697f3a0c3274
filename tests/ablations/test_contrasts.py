"""The weights that a design gives to its arms, against least squares on the cells."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ablations.averages import AVERAGE, average, average_metric, average_record, average_shots
from ablations.contrasts import (
    Contrast,
    Design,
    ScoreKey,
    by_seed,
    effect,
    level_means,
    matched,
    slope,
)
from ablations.errors import UserError
from ablations.workload import Metric, Task


def grid(sizes: dict[str, int], without: tuple[str, ...] = ()) -> Design:
    """A factorial; arms are called after their levels, `a0b1`."""
    factors = {name: tuple(f"{name}{i}" for i in range(n)) for name, n in sizes.items()}
    arms = {
        "".join(chosen): dict(zip(factors, chosen, strict=True))
        for chosen in itertools.product(*factors.values())
        if "".join(chosen) not in without
    }
    return Design(factors, arms)


def key(arm: str, metric: str = "accuracy") -> ScoreKey:
    return ScoreKey(arm, "task", metric, 0, "intact")


def test_a_main_effect_is_the_least_squares_coefficient_of_the_additive_model():
    design = grid({"a": 2, "b": 3})
    scores = dict(zip(design.arms, np.random.default_rng(0).normal(size=6), strict=True))
    columns = [
        [1.0, where["a"] == "a1", where["b"] == "b1", where["b"] == "b2"]
        for where in design.arms.values()
    ]
    fitted, *_ = np.linalg.lstsq(np.array(columns, float), np.array([*scores.values()]), rcond=None)
    weights = effect(design, "a", "a0", "a1")
    assert sum(w * scores[arm] for arm, w in weights.items()) == pytest.approx(fitted[1])
    weights = effect(design, "b", "b0", "b2")
    assert sum(w * scores[arm] for arm, w in weights.items()) == pytest.approx(fitted[3])


def test_weights_of_a_difference_sum_to_nothing_and_only_matched_arms_have_any():
    design = grid({"a": 2, "b": 2}, without=("a1b1",))
    assert matched(design, "a", ("a0", "a1")) == [{"a0": "a0b0", "a1": "a1b0"}]
    assert effect(design, "a", "a0", "a1") == {"a1b0": 1.0, "a0b0": -1.0}
    assert effect(design, "a", "a1", "a1") == {}
    whole = grid({"a": 2, "b": 2, "c": 3})
    assert math.fsum(effect(whole, "c", "c2", "c0").values()) == pytest.approx(0)
    assert len(effect(whole, "c", "c2", "c0")) == 8
    simple = effect(whole, "c", "c2", "c0", {"a": "a1", "b": "b0"})
    assert simple == {"a1b0c0": 1.0, "a1b0c2": -1.0}


def test_where_no_arms_differ_in_a_factor_alone_nothing_is_made_up():
    corners = Design(
        {"a": ("0", "1"), "b": ("0", "1")},
        {"base": {"a": "0", "b": "0"}, "both": {"a": "1", "b": "1"}},
    )
    with pytest.raises(UserError, match=r"no arms of this design differ only in a \(0, 1\)"):
        level_means(corners, "a", ("0", "1"))
    with pytest.raises(UserError, match=r"differ only in a \(0, 1\), b=1"):
        effect(corners, "a", "0", "1", {"b": "1"})


def test_a_slope_is_that_of_the_line_through_the_means():
    design = grid({"a": 3, "b": 2})
    scores = dict(zip(design.arms, np.random.default_rng(1).normal(size=6), strict=True))
    places = {"a0": 1.0, "a1": 4.0, "a2": 16.0}
    means = [np.mean([scores[f"{level}{b}"] for b in ("b0", "b1")]) for level in places]
    weights = slope(design, "a", places)
    found = sum(w * scores[arm] for arm, w in weights.items())
    assert found == pytest.approx(np.polyfit([*places.values()], means, 1)[0])


def test_a_contrast_is_read_from_the_seeds_that_have_all_of_it():
    contrast = Contrast.over({"x": 1.0, "y": -0.5}, lambda arm: Contrast({key(arm): 1.0}))
    scores = {key("x"): {1: 3.0, 2: 4.0, 3: 5.0}, key("y"): {3: 2.0, 1: 8.0}}
    there = by_seed(scores, contrast.weights)
    assert {seed: contrast.value(row) for seed, row in there.items()} == {1: -1.0, 3: 4.0}
    assert by_seed(scores, [key("x"), key("z")]) == {}
    assert contrast.error({key("x"): 3.0, key("y"): 8.0}) == 5.0


def test_the_average_is_the_mean_of_what_its_tasks_are_known_by():
    mean = average("x", 8, "intact", {"one": "accuracy", "two": "cider"})
    assert mean.weights == {
        ScoreKey("x", "one", "accuracy", 8, "intact"): 0.5,
        ScoreKey("x", "two", "cider", 8, "intact"): 0.5,
    }
    assert average_shots(average_metric(8)) == 8
    with pytest.raises(UserError, match=f"{AVERAGE} has no metric 'accuracy'"):
        average_shots("accuracy")


def test_what_is_known_of_an_average_is_what_its_tasks_share():
    def task(goal, unit):
        return Task(metrics=(Metric(name="m", goal=goal, unit=unit, worst=0.0),))

    same = average_record("0_shot", [task("maximise", "%"), task("maximise", "%")])
    assert (same.goal, same.unit, same.worst) == ("maximise", "%", None)
    mixed = average_record("0_shot", [task("maximise", "%"), task("minimise", "")])
    assert (mixed.goal, mixed.unit) == (None, "")
