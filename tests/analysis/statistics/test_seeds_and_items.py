"""Seed and item noise apart: the worked table, coverage for other seeds and other items."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from ablations.errors import UserError
from analysis.statistics.seeds_and_items import seed_and_item_noise, two_way

WORKED = 100 * np.array([[1, 0, 1, 0, -1, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, -1, 0, 0]], float)


def examples(values, images=None):
    frame = {"item_id": [f"i{n}" for n in range(len(values))], "score": values}
    return pandas.DataFrame({**frame, **({} if images is None else {"image_id": images})})


def pairs(differences, images=None):
    return {
        seed: (examples(np.zeros(len(row)), images), examples(row, images))
        for seed, row in enumerate(differences, start=1)
    }


def test_the_worked_table() -> None:
    (row,) = seed_and_item_noise(pairs(WORKED)).to_dict("records")
    assert (row["seeds"], row["items"], row["unmatched"]) == (3, 6, 0)
    assert row["effect"] == pytest.approx(27.777778)
    assert row["se_seeds"] == pytest.approx(11.111111)
    ms = {"seed": 2222.222222, "item": 7222.222222, "rest": 3555.555556}
    assert row["se_both"] == pytest.approx(((ms["seed"] + ms["item"]) / 18) ** 0.5)  # three seeds
    assert row["sd_item"] == pytest.approx(((ms["item"] - ms["rest"]) / 3) ** 0.5)
    assert row["sd_seed"] == 0
    assert row["sd_rest"] == pytest.approx(ms["rest"] ** 0.5)


def test_from_five_seeds_on_it_is_the_subtractive_variance(monkeypatch) -> None:
    monkeypatch.setattr("analysis.statistics.seeds_and_items.ADDITIVE_TO", 2)
    found = two_way(WORKED)
    assert found["se_both"] == pytest.approx(18.087578)
    assert found["df_both"] == pytest.approx(6.723313)


def test_questions_on_one_image_are_averaged_first() -> None:
    images = [0, 0, 1, 1, 2, 2]
    (row,) = seed_and_item_noise(pairs(WORKED, images)).to_dict("records")
    assert row["items"] == 3
    assert row["effect"] == pytest.approx(27.777778)
    (single,) = seed_and_item_noise(pairs(WORKED, images), by_image=False).to_dict("records")
    assert single["items"] == 6


def test_items_that_not_all_have_are_told() -> None:
    given = pairs(WORKED)
    given[2] = (given[2][0], given[2][1].iloc[1:])
    (row,) = seed_and_item_noise(given).to_dict("records")
    assert (row["items"], row["unmatched"]) == (5, 1)
    with pytest.raises(UserError, match="needs two seeds, there are examples of 1"):
        seed_and_item_noise({1: given[1]})


CASES = [(3, 3, 20, 50), (3, 1, 40, 40), (5, 1, 40, 40), (5, 3, 20, 50)]


@pytest.mark.parametrize(("n", "su", "sv", "sw"), CASES)
def test_it_covers_for_other_seeds_and_other_items(n, su, sv, sw) -> None:
    draw, covered, naive = np.random.default_rng(n), 0, 0
    for _ in range(1000):
        d = draw.normal(0, su, (n, 1)) + draw.normal(0, sv, (1, 400)) + draw.normal(0, sw, (n, 400))
        found = two_way(d)
        covered += found["both_low"] <= 0 <= found["both_high"]
        naive += found["seeds_low"] <= 0 <= found["seeds_high"]
    assert covered / 1000 >= 0.95 - 4 * (0.0475 / 1000) ** 0.5
    if (su, sv) == (1, 40):
        assert naive / 1000 < 0.9  # seeds alone say nothing of other items


def test_seeds_alone_cover_for_these_items(within) -> None:
    draw, covered = np.random.default_rng(1), 0
    items = draw.normal(5, 20, (1, 400))
    for _ in range(1000):
        d = items + draw.normal(0, 3, (4, 1)) + draw.normal(0, 50, (4, 400))
        found = two_way(d)
        covered += found["seeds_low"] <= items.mean() <= found["seeds_high"]
    assert within(covered / 1000, 0.95, 1000)
