"""Two one-sided tests: statsmodels, the worked examples, size at the margin."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_paired

from ablations.errors import UserError
from analysis.statistics.equivalence import equivalence

E1, E2 = (50.2, 49.7, 50.5, 50.1, 49.9), (50.0, 50.1, 50.2, 50.4, 49.8)


@pytest.mark.parametrize(("margin", "p"), [(1.0, 0.001075), (0.3, 0.057381)])
def test_the_worked_equivalence(table_of, margin, p) -> None:
    table = table_of({"kind": ("a", "b")}, {("a",): E2, ("b",): E1})
    (row,) = equivalence(table, margin).to_dict("records")
    assert row["effect"] == pytest.approx(-0.02)
    assert row["p_uncorrected"] == pytest.approx(p, abs=1e-6)
    known = ttost_paired(np.array(E1), np.array(E2), -margin, margin)[0]
    assert row["p_uncorrected"] == pytest.approx(known)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((-0.316932, 0.276932), abs=1e-6)
    inside = -margin <= row["ci_low"] and row["ci_high"] <= margin
    assert row["within"] == inside == (margin == 1.0)


def test_one_seed_and_no_spread_show_nothing(table_of) -> None:
    one = table_of({"k": ("a", "b")}, {("a",): (1.0,), ("b",): (1.1,)})
    flat = table_of({"k": ("a", "b")}, {("a",): (1.0, 2.0), ("b",): (1.5, 2.5)})
    for table in (one, flat):
        (row,) = equivalence(table, 5.0).to_dict("records")
        assert np.isnan(row["p_uncorrected"])
        assert not row["within"]


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_a_margin_is_above_zero(table_of, margin) -> None:
    table = table_of({"k": ("a", "b")}, {("a",): E1, ("b",): E2})
    with pytest.raises(UserError, match="no number above zero"):
        equivalence(table, margin)


@pytest.mark.slow
def test_an_effect_at_the_margin_is_called_equivalent_at_most_as_often_as_alpha(
    table_of, drawn, forms
) -> None:
    scores = drawn({("a",): 50.0, ("b",): 54.0}, 5, 1000, number=9)
    table = table_of({"k": ("a", "b")}, scores)
    found = [equivalence(table, 4.0, form)["within"].item() for form in forms(table)[:600]]
    assert np.mean(found) <= 0.05 + 3 * (0.0475 / 600) ** 0.5
    assert np.mean(found) >= 0.05 - 3 * (0.0475 / 600) ** 0.5  # and power is not thrown away
