"""Interactions: the worked example, what a design cannot say, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.errors import UserError
from analysis.statistics.interactions import interactions


def test_the_worked_interaction(factorial) -> None:
    (row,) = interactions(factorial).to_dict("records")
    assert (row["factor"], row["level"], row["by"], row["by_level"]) == (
        *("resolution", "336"),
        *("tokens", "144"),
    )
    assert row["interaction"] == pytest.approx(1.633333, abs=1e-6)
    assert row["p_uncorrected"] == pytest.approx(0.005371, abs=1e-6)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((1.116219, 2.150448), abs=1e-6)


def test_a_third_factor_is_averaged_over(table_of, cells) -> None:
    factors = {"a": ("0", "1"), "b": ("0", "1", "2"), "c": ("0", "1")}
    scores = {
        cell: np.full(2, 10.0) + [0, 0.01] + 2 * a * b + 4 * a * b * c
        for cell in cells(*factors.values())
        for a, b, c in [map(int, cell)]
    }
    found = interactions(table_of(factors, scores)).set_index(["factor", "level", "by", "by_level"])
    assert found["interaction"]["a", "1", "b", "1"] == pytest.approx(2 + 4 / 2)
    assert found["interaction"]["a", "1", "b", "2"] == pytest.approx(4 + 8 / 2)
    assert found["interaction"]["a", "1", "c", "1"] == pytest.approx(4 * (0 + 1 + 2) / 3)
    assert len(found) == 2 + 1 + 2


def test_one_factor_at_a_time_says_nothing_of_them(table_of) -> None:
    scores = {("0", "0"): (1.0, 2.0), ("1", "0"): (2.0, 3.5), ("0", "1"): (1.0, 2.5)}
    table = table_of({"a": ("0", "1"), "b": ("0", "1")}, scores)
    with pytest.raises(UserError, match="no two factors of this design were varied together"):
        interactions(table)


@pytest.mark.slow
def test_intervals_cover_and_p_values_hold_their_level(
    table_of, drawn, cells, forms, within
) -> None:
    means = {cell: 50.0 + 3 * (cell[0] == "1") + (cell[1] == "1") for cell in cells("01", "01")}
    table = table_of({"a": ("0", "1"), "b": ("0", "1")}, drawn(means, 4, 1000, number=5))
    rows = [interactions(table, form).iloc[0] for form in forms(table)]
    covered = np.mean([row["ci_low"] <= 0 <= row["ci_high"] for row in rows])
    assert within(covered, 0.95, 1000)
    assert within(np.mean([row["p_uncorrected"] <= 0.05 for row in rows]), 0.05, 1000)
