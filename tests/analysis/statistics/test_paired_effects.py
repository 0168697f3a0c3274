"""Effects, simple effects and differences of arms: known answers, coverage, what can be seen."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from ablations.errors import UserError
from analysis.statistics.paired_effects import arm_differences, paired_effects, simple_effects

A = (52.1, 50.8, 53.0, 51.6, 52.4)
B = (50.3, 50.1, 51.2, 50.9, 50.6)


def test_the_worked_paired_t_test(table_of) -> None:
    table = table_of({"size": ("small", "large")}, {("small",): B, ("large",): A})
    (row,) = paired_effects(table).to_dict("records")
    assert (row["factor"], row["base_level"], row["level"], row["n"]) == (
        *("size", "small", "large"),
        5,
    )
    assert row["effect"] == pytest.approx(1.36, abs=1e-6)
    assert row["sd"] == pytest.approx(0.602495, abs=1e-6)
    assert row["p_uncorrected"] == pytest.approx(0.007244, abs=1e-6)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.611904, 2.108096), abs=1e-6)
    assert row["unit"] == "%"
    (other,) = arm_differences(table, "size=large").to_dict("records")
    assert other["arm"] == "base"
    assert other["effect"] == pytest.approx(-1.36)
    assert other["correlation"] == pytest.approx(np.corrcoef(A, B)[0, 1])


def test_simple_effects_are_those_of_each_cell(factorial) -> None:
    found = simple_effects(factorial, "resolution").set_index("at")["effect"]
    assert found["tokens=64"] == pytest.approx(np.mean([2.9, 2.8, 3.1]))
    assert found["tokens=144"] == pytest.approx(np.mean([4.7, 4.5, 4.5]))
    main = paired_effects(factorial).set_index("factor")["effect"]["resolution"]
    assert main == pytest.approx(found.mean())


def seen(table_of, n, sd):
    """`detectable` of n seeds whose differences have this SD."""
    gains = np.arange(n) / np.std(np.arange(n), ddof=1) * sd
    scores = {("small",): np.full(n, 50.0), ("large",): 50 + gains}
    return paired_effects(table_of({"size": ("small", "large")}, scores))["detectable"].item()


@pytest.mark.parametrize(("n", "size"), [(3, 3.26), (4, 2.13), (5, 1.68), (8, 1.16), (12, 0.89)])
def test_the_smallest_effect_that_could_have_been_seen(table_of, n, size) -> None:
    assert seen(table_of, n, 1.0) == pytest.approx(size, abs=0.006)
    assert seen(table_of, n, 2.5) == pytest.approx(2.5 * seen(table_of, n, 1.0))


def test_it_is_found_as_often_as_it_says(table_of, within) -> None:
    draw = np.random.default_rng(0).normal(seen(table_of, 4, 1.0), 1.0, (4000, 4))
    assert within((scipy.stats.ttest_1samp(draw, 0, axis=1).pvalue <= 0.05).mean(), 0.8, 4000)


def test_one_seed_has_an_effect_and_nothing_else(table_of) -> None:
    table = table_of({"size": ("small", "large")}, {("small",): B[:1], ("large",): A[:1]})
    (row,) = paired_effects(table).to_dict("records")
    assert row["effect"] == pytest.approx(1.8)
    assert np.isnan([row["sd"], row["ci_low"], row["p_uncorrected"], row["detectable"]]).all()


def test_names_that_are_not_there_are_told_with_the_nearest(factorial) -> None:
    with pytest.raises(UserError, match=r"no factor 'resolutoin'; did you mean 'resolution'"):
        simple_effects(factorial, "resolutoin")
    with pytest.raises(UserError, match="no arm 'bse'; did you mean 'base'"):
        arm_differences(factorial, "bse")


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_and_p_values_hold_their_level(
    table_of, drawn, forms, within, seeds
) -> None:
    scores = drawn({("a",): 50.0, ("b",): 50.0}, seeds, 1000, number=seeds)
    table = table_of({"x": ("a", "b")}, scores)
    found = paired_effects(table)
    assert len(found) == 1000
    assert within(((found["ci_low"] <= 0) & (found["ci_high"] >= 0)).mean(), 0.95, 1000)
    assert within((found["p_uncorrected"] <= 0.05).mean(), 0.05, 1000)


def test_tasks_are_no_replicates(within) -> None:
    """The same check sees what it must: pooling eight tasks of three seeds covers too rarely."""
    draw = np.random.default_rng(0)
    shared = draw.normal(size=(2000, 3, 1)) * 0.5**0.5
    pooled = (shared + draw.normal(size=(2000, 3, 8)) * 0.5**0.5).reshape(2000, 24)
    covered = (scipy.stats.ttest_1samp(pooled, 0, axis=1).pvalue > 0.05).mean()
    assert not within(covered, 0.95, 2000)
    assert covered == pytest.approx(0.61, abs=0.04)
