"""Sequential p values, boundaries and predictive probabilities against known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ablations.conditions import Above, All, AnyOf, negated
from ablations.paths import chances, p_path
from ablations.sequential import (
    BOUNDARIES,
    LEVELS,
    boundary_t,
    chance_above,
    constant,
    constants,
    repeated_interval,
    sequential_p,
    z_of,
)
from ablations.verdicts import Values

L = [1.8, 0.7, 1.8, 0.7, 1.8, 1.2]


def above(values, boundary=0.0, reverse=False):
    return Above(Values.given(values), boundary, reverse)


def t_test(values):
    return stats.ttest_1samp(values, 0, alternative="greater").pvalue


def test_a_sequential_p_value_of_six_seeds():
    found = p_path(above(L), range(3, 7), 12)
    assert found == pytest.approx([0.184711, 0.104139, 0.033341, 0.009329], abs=5e-7)
    z = [float(z_of(t_test(L[:n]))) for n in (3, 6)]
    assert z == pytest.approx([1.883402, 3.117570], abs=5e-7)


@pytest.mark.parametrize(
    ("level", "most", "expected"),
    [
        (0.05, 12, [14.409, 6.150, 4.263, 3.479, 3.052, 2.781, 2.591, 2.449, 2.338, 2.248]),
        (0.025, 12, [27.637, 9.131, 5.705, 4.423, 3.769, 3.372, 3.104, 2.908, 2.759, 2.639]),
        (0.05, 8, [8.900, 4.545, 3.382, 2.858, 2.558, 2.360]),
        (0.025, 8, [15.375, 6.400, 4.393, 3.568, 3.121, 2.839]),
        (0.05, 6, [6.482, 3.697, 2.872, 2.479]),
        (0.025, 6, [10.591, 5.076, 3.684, 3.076]),
    ],
)
def test_boundaries_as_t_values(level, most, expected):
    found = boundary_t(level, np.arange(3, most + 1), most)
    assert found == pytest.approx(expected, abs=6e-4)


def test_p_values_and_boundaries_are_each_others_inverse():
    for most in (3, 5, 7, 12):
        for level in (0.2, 0.05, 0.013, 0.001, 0.0002):
            z = float(constant(level, most)) / (4 / most) ** 0.25
            assert sequential_p([-1.0, z], [3, 4], most)[-1] == pytest.approx(level, rel=1e-9)
    assert sequential_p([0.1], [3], 12) == [1.0]
    assert sequential_p([np.inf], [3], 12) > 0


def test_more_seeds_never_raise_a_p_value_and_other_numbers_take_the_next_larger_row():
    rng = np.random.default_rng(1)
    paths = p_path(above(rng.normal(0.3, 1, (200, 12))), range(3, 13), 12)
    assert (np.diff(paths, axis=-1) <= 0).all()
    assert (constants(7) == BOUNDARIES[8]).all()
    rows = np.array([BOUNDARIES[most] for most in sorted(BOUNDARIES)])
    assert (np.diff(rows, axis=0) > 0).all()  # so that a larger row is never too lax
    assert (np.diff(rows, axis=1) > 0).all()
    assert len(LEVELS) == rows.shape[1]


def test_the_predictive_probability_of_a_verdict():
    first = np.array([1.8, 0.7, 1.8, 0.7])
    needed = 2.248102 * first.std(ddof=1) / np.sqrt(12)
    mean, sd = first.mean(), first.std(ddof=1)
    assert chance_above(mean, sd, 4, 12, needed) == pytest.approx(0.975920, abs=5e-7)
    assert chance_above(-mean, sd, 4, 12, needed) == pytest.approx(0.003845, abs=5e-7)
    flat = above([0.3, -0.4, 0.2, -0.1])
    for one in (flat, negated(flat)):
        assert chances(one, 4, [12], 0.05, 12) == pytest.approx([0.105067], abs=2e-5)


def test_the_repeated_interval_leaves_out_a_boundary_exactly_when_it_is_crossed():
    rng = np.random.default_rng(2)
    for _ in range(200):
        values = rng.normal(0.8, 1, int(rng.integers(3, 13)))
        n = len(values)
        t = values.mean() / values.std(ddof=1) * np.sqrt(n)
        _, low, high = repeated_interval(values, 0.05, 12)
        assert (low > 0) == (t > boundary_t(0.05, n, 12))
        assert (high < 0) == (-t > boundary_t(0.05, n, 12))


def test_composite_claims_take_the_largest_p_of_a_look_or_k_times_the_smallest():
    rng = np.random.default_rng(3)
    a, b = above(rng.normal(1, 1, 12)), above(rng.normal(1.5, 1, 12))
    looks = range(3, 13)
    nominal = [max(t_test(x.quantity.values[:n]) for x in (a, b)) for n in looks]
    both = p_path(All((a, b)), looks, 12)
    assert both == pytest.approx(sequential_p(z_of(nominal), list(looks), 12))
    either = p_path(AnyOf((a, b)), looks, 12)
    one = np.minimum(p_path(a, looks, 12), p_path(b, looks, 12))
    assert either == pytest.approx(np.minimum(1, 2 * one))
    mixed = p_path(All((a, AnyOf((a, b)))), looks, 12)
    assert mixed == pytest.approx(np.maximum(p_path(a, looks, 12), either))


def test_the_chance_of_equivalence_is_that_of_lying_between_the_boundaries():
    values = np.array([0.3, -0.4, 0.2, -0.1, 0.05])
    inside = All((above(values, -2.0), above(values, 2.0, reverse=True)))
    assert chances(inside, 5, [12], 0.05, 12) > 0.99
    assert chances(negated(inside), 5, [12], 0.05, 12) < 0.01
    narrow = All((above(values, -0.05), above(values, 0.05, reverse=True)))
    assert chances(narrow, 5, [12], 0.05, 12) == 0  # the sides of its interval never fit in


def test_seeds_that_are_all_alike_decide_nothing():
    flat = above([1.0] * 6)
    assert (p_path(flat, range(3, 7), 6) == 1).all()
    assert (chances(flat, 4, [5, 6], 0.05, 6) == 0).all()


@pytest.mark.parametrize("q", [0.1, 0.05, 0.01])
def test_sequential_p_values_are_as_rare_as_they_say(q):
    paths = p_path(above(np.random.default_rng(4).normal(0, 1, (20_000, 12))), range(3, 13), 12)
    share = (paths[:, -1] <= q).mean()
    assert share == pytest.approx(q, abs=4 * np.sqrt(q * (1 - q) / 20_000))
