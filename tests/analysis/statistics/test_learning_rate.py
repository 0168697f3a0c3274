"""The learning-rate law: an exact grid, edges of the grid, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.errors import UserError
from analysis.statistics.learning_rate import AT_EDGE, INSIDE, learning_rate_law, peak

RATES = tuple(f"{10.0**e:.3g}" for e in np.arange(-5, -1.9, 0.5))
SIZES = ("9e6", "85e6", "302e6", "1.2e9")


def best_rate(size: float) -> float:
    """The published law (McKinzie et al. 2024)."""
    return math.exp(-0.4214 * math.log(size) - 0.5535)


def grid(seeds=3, noise=0.0, luck=0.0, number=0, goal="maximise", sizes=SIZES, rates=RATES):
    draw = np.random.default_rng(number)
    shared = draw.normal(0, luck, seeds)
    sign = 1 if goal == "maximise" else -1
    return {
        (n, rate): 60
        + sign * -4.0 * (math.log(float(rate)) - math.log(best_rate(float(n)))) ** 2
        + shared
        + draw.normal(0, noise, seeds)
        for n in sizes
        for rate in rates
    }


@pytest.mark.parametrize("goal", ["maximise", "minimise"])
def test_a_grid_that_follows_the_published_law_gives_it_back(table_of, goal) -> None:
    table = table_of({"size": SIZES, "peak_lr": RATES}, grid(luck=1.0, goal=goal), goal)
    found = learning_rate_law(table, "size", "peak_lr")
    assert found.optima["rate"].tolist() == pytest.approx([best_rate(float(n)) for n in SIZES])
    beta = found.parameters.set_index("parameter")["estimate"]
    assert beta["beta"] == pytest.approx(0.4214, abs=1e-6)
    assert math.log(beta["A"]) == pytest.approx(-0.5535, abs=1e-4)
    (row,) = found.held_out.to_dict("records")
    assert row["y"] == pytest.approx(row["observed"])
    predicted = found.predict([2.9e9])["y"].item()
    assert predicted == pytest.approx(5.92e-5, rel=2e-3)
    assert found.optima["spread"].tolist() == pytest.approx([0.0] * 4, abs=1e-9)


def test_a_best_rate_at_the_edge_of_the_grid_is_told_and_left_out(table_of) -> None:
    rates = ("3e-5", "1e-4", "2e-4", "4e-4")  # the smallest model wants more than the last of them
    scores = grid(seeds=1, rates=rates)
    table = table_of({"size": SIZES, "peak_lr": rates}, scores)
    found = learning_rate_law(table, "size", "peak_lr")
    assert found.optima["at"].tolist() == [AT_EDGE, INSIDE, INSIDE, INSIDE]
    assert math.isnan(found.optima["rate"][0])
    assert len(found.law.points) == 3
    few = {k: v for k, v in scores.items() if k[0] != "85e6"}
    table = table_of({"size": (SIZES[0], *SIZES[2:]), "peak_lr": rates}, few)
    with pytest.raises(UserError, match=r"there are 2 .*at the edge of the grid.*widen the grid"):
        learning_rate_law(table, "size", "peak_lr")


def test_names_of_sizes_are_given_their_numbers(table_of) -> None:
    names = dict(zip(("tiny", "small", "medium", "large"), map(float, SIZES), strict=True))
    scores = {
        (name, rate): value
        for name, size in zip(names, SIZES, strict=True)
        for (n, rate), value in grid().items()
        if n == size
    }
    table = table_of({"model": tuple(names), "lr": RATES}, scores)
    found = learning_rate_law(table, "model", "lr", sizes=names)
    assert found.parameters["estimate"].tolist()[1] == pytest.approx(0.4214, abs=1e-6)
    with pytest.raises(UserError, match="are no numbers"):
        learning_rate_law(table, "model", "lr")


def test_where_a_curve_is_highest() -> None:
    x = np.array([0.0, 1.0, 2.0, 4.0])
    assert peak(x, -((x - 1.3) ** 2))[0] == pytest.approx(1.3)
    assert math.isnan(peak(x, x)[0])
    assert math.isnan(peak(x, np.ones(4))[0])


@pytest.mark.slow
def test_the_exponents_interval_covers(table_of, within) -> None:
    covered = 0
    for number in range(400):
        table = table_of(
            {"size": SIZES, "peak_lr": RATES}, grid(noise=0.8, luck=1.0, number=number)
        )
        beta = learning_rate_law(table, "size", "peak_lr").parameters.iloc[1]
        covered += beta["ci_low"] <= 0.4214 <= beta["ci_high"]
    assert within(covered / 400, 0.95, 400)
