"""Importance: statsmodels' analysis of variance, the worked example, what is local and said so."""

from __future__ import annotations

import itertools

import numpy as np
import pandas
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from ablations.errors import UserError
from analysis.statistics.importance import LOCAL, SHARE, anova, importance, local_importance


def test_the_worked_analysis_of_variance(factorial) -> None:
    found = anova(factorial).set_index("term")
    both = "resolution × tokens"
    terms = ["resolution", "tokens", both]
    assert list(found.index) == [*terms, "seed", "residual"]
    assert found["sum_squares"].tolist() == pytest.approx(
        [42.1875, 10.2675, 2.000833, 1.061667, 0.071667], abs=1e-6
    )
    assert found["df"].tolist() == [1, 1, 1, 2, 6]
    assert found["f"][terms].tolist() == pytest.approx(
        [3531.976744, 859.604651, 167.511628], abs=1e-5
    )
    assert found["p_uncorrected"][both] == pytest.approx(0.000013, abs=5e-7)
    assert found["omega2"][terms].tolist() == pytest.approx(
        [0.758538, 0.184449, 0.035771], abs=1e-6
    )
    assert found["partial_omega2"][terms].tolist() == pytest.approx(
        [0.996613, 0.986216, 0.932777], abs=1e-6
    )
    assert found["share"][terms].tolist() == pytest.approx([0.775001, 0.188452, 0.036547], abs=1e-6)
    assert found["note"].unique().tolist() == [""]


def test_importance_of_a_factorial_is_shares_in_their_order(factorial) -> None:
    found = importance(factorial)
    assert found["term"].tolist() == ["resolution", "tokens", "resolution × tokens"]
    assert found["kind"].unique().tolist() == [SHARE]
    assert found["importance"].sum() == pytest.approx(1.0)
    assert found["largest_effect"][0] == pytest.approx(np.mean([3.8, 3.65, 3.8]))


def frame_of(scores):
    return pandas.DataFrame(
        [
            (*cell, seed, value)
            for cell, values in scores.items()
            for seed, value in enumerate(values)
            if np.isfinite(value)
        ],
        columns=[*"abc"[: len(next(iter(scores)))], "seed", "y"],
    )


@pytest.mark.parametrize("lost", [0, 4])
def test_it_is_type_two_of_statsmodels_with_seeds_as_blocks(table_of, lost) -> None:
    draw = np.random.default_rng(lost)
    factors = {"a": ("0", "1"), "b": ("0", "1", "2"), "c": ("0", "1")}
    scores = {
        cell: draw.normal(10 + sum(map(int, cell)), 1, 4)
        for cell in itertools.product(*factors.values())
    }
    for number in range(lost):
        scores[list(scores)[2 * number]][number % 4] = np.nan
    found = anova(table_of(factors, scores)).set_index("term")
    fit = smf.ols("y ~ C(a, Sum)*C(b, Sum)*C(c, Sum) + C(seed)", frame_of(scores)).fit()
    known = sm.stats.anova_lm(fit, typ=2)
    for term, row in known.iterrows():
        ours = str(term).replace("C(", "").replace(", Sum)", "").replace(")", "")
        mine = found.loc[ours.replace(":", " × ").replace("Residual", "residual")]
        assert mine["sum_squares"] == pytest.approx(row["sum_sq"], rel=1e-8), term
        assert mine["df"] == row["df"], term
        if ours not in ("seed", "Residual"):
            assert mine["p_uncorrected"] == pytest.approx(row["PR(>F)"], rel=1e-6), term
    assert found["share"].notna().any() == (not lost)
    assert ("not balanced" in found["note"].iloc[0]) == bool(lost)


def test_one_seed_gives_sums_of_squares_and_nothing_of_noise(table_of, factorial_numbers) -> None:
    scores = {cell: values[:1] for cell, values in factorial_numbers.items()}
    table = table_of({"r": ("224", "336"), "t": ("64", "144")}, scores)
    found = anova(table)
    assert found[["f", "p_uncorrected", "omega2", "share"]].isna().all().all()
    assert "one seed" in found["note"].iloc[0]
    found = importance(table)
    assert found["kind"].unique().tolist() == [LOCAL]
    assert found["importance"].isna().all()
    assert found["largest_effect"].notna().all()
    assert found["note"].str.contains("one seed").all()


ONE_AT_A_TIME = {
    ("0", "0"): (50.0, 51.0, 52.0),
    ("1", "0"): (53.0, 54.2, 54.8),
    ("2", "0"): (51.0, 51.5, 53.0),
    ("0", "1"): (50.1, 50.8, 52.1),
}


def test_one_at_a_time_is_local_and_says_so(table_of) -> None:
    table = table_of({"a": ("0", "1", "2"), "b": ("0", "1")}, ONE_AT_A_TIME)
    found = importance(table).set_index("term")
    assert found["kind"].unique().tolist() == [LOCAL]
    assert list(found.index) == ["a", "b"]
    gains = [np.array([3.0, 3.2, 2.8]), np.array([1.0, 0.5, 1.0])]
    sizes = [max(0, g.mean() ** 2 - g.var(ddof=1) / 3) for g in gains]
    assert found["importance"]["a"] == pytest.approx(np.mean(sizes) ** 0.5)
    assert found["importance"]["b"] == 0  # less than its own noise
    assert LOCAL in found["note"]["a"]
    assert "selection" in found["note"]["a"]
    local = local_importance(table).set_index("factor")
    assert local["largest_level"]["a"] == "1"
    with pytest.raises(UserError, match="no full factorial"):
        anova(table)


@pytest.mark.slow
def test_p_values_hold_their_level_and_omega_squared_is_not_biased(
    table_of, drawn, cells, forms, within
) -> None:
    means = dict.fromkeys(cells("01", "012"), 50.0)
    table = table_of({"a": tuple("01"), "b": tuple("012")}, drawn(means, 3, 500, number=7))
    found = pandas.concat([anova(table, form) for form in forms(table)])
    for term in ("a", "b", "a × b"):
        own = found[found["term"] == term]
        assert within((own["p_uncorrected"] <= 0.05).mean(), 0.05, 500), term
        assert own["omega2"].mean() < 0.03, term
    # The plain share of the sum of squares is not near zero: the check can tell.
    wide = found.set_index(["metric", "term"])["sum_squares"].unstack()
    assert (wide["b"] / wide[["a", "b", "a × b", "residual"]].sum(axis=1)).mean() > 0.1
