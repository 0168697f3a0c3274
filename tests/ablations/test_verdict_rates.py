"""Error rates of whole simulated studies, and controls that must fail the same checks.

2,000 studies each; a rate p may exceed its nominal value by 3 standard errors of the simulation.
"""

from __future__ import annotations

import numpy as np
import pytest

from ablations.conditions import Above, All, AnyOf, negated
from ablations.verdicts import Values, holm, p_value, t_interval

R = 2_000
ALPHA = 0.05
BOUND = ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / R)  # 0.0646


def above(values, boundary=0.0, reverse=False):
    return Above(Values.given(values), boundary, reverse)


def verdicts(conditions, correct=True):
    """+1 supported, -1 refuted, 0 undecided; `[studies, claims]`."""
    p_sup = np.stack([p_value(c) for c in conditions], axis=-1)
    p_ref = np.stack([p_value(negated(c)) for c in conditions], axis=-1)
    p = np.minimum(p_sup, p_ref)
    decided = (holm(p) if correct else p) <= ALPHA
    return np.where(decided, np.where(p_sup <= p_ref, 1, -1), 0)


def wrong(found, true_effects):
    """Share of studies with any wrong verdict; a true 0 makes "effect above 0" false."""
    supported_falsely = (found == 1) & (true_effects <= 0)
    refuted_falsely = (found == -1) & (true_effects > 0)
    return (supported_falsely | refuted_falsely).any(axis=-1).mean()


def claims(rng, true_effects, n, shared_base):
    """Arms against a base; noise such that each paired difference has SD 1."""
    noise = rng.normal(0, np.sqrt(0.5), (len(true_effects), R, n))
    base = rng.normal(0, np.sqrt(0.5), (1 if shared_base else len(true_effects), R, n))
    return [above(d) for d in noise - base + np.reshape(true_effects, (-1, 1, 1))]


@pytest.mark.parametrize("shared_base", [False, True], ids=["independent", "shared base"])
@pytest.mark.parametrize(
    "true_effects",
    [[0], [-0.3], [0] * 10, [-0.3] * 10, [0, 3] * 5],
    ids=["one null", "one below", "ten null", "ten below", "half true"],
)
@pytest.mark.parametrize("n", [3, 5])
def test_any_wrong_verdict_in_a_study_is_rare(true_effects, n, shared_base):
    rng = np.random.default_rng(n)
    found = verdicts(claims(rng, true_effects, n, shared_base))
    assert wrong(found, np.array(true_effects)) <= BOUND


@pytest.mark.parametrize("n", [3, 5, 10])
def test_six_unlike_claims_at_their_boundaries(n):
    rng = np.random.default_rng(n)

    def draws(*shape):
        return rng.normal(0, 1, (*shape, R, n))

    x = np.arange(5) - 2.0
    slope = np.einsum("l,lrs->rs", x, draws(5)) / (x**2).sum()
    cells = draws(2, 2)
    a, b = draws(2) + 2.0
    same = draws() + 1.0
    order, levels = draws(3), draws(3)
    found = verdicts(
        [
            above(slope),
            above(cells[1, 1] - cells[1, 0] - cells[0, 1] + cells[0, 0]),
            All((above(a - b), above(a + b))),
            All((above(same, -1.0), above(same, 1.0, reverse=True))),
            All((above(order[0] - order[1]), above(order[1] - order[2]))),
            All((above(levels[0] - levels[1]), above(levels[0] - levels[2]))),
        ]
    )
    # At its boundary a claim may be counted as true or false: either verdict is one error.
    assert (found == 1).any(axis=-1).mean() <= BOUND
    assert (found == -1).any(axis=-1).mean() <= BOUND


def test_equivalence_at_the_margin():
    values = np.random.default_rng(0).normal(1, 1, (R, 5))
    claim = All((above(values, -1.0), above(values, 1.0, reverse=True)))
    assert (verdicts([claim]) == 1).mean() <= BOUND


def test_larger_than_a_magnitude_when_both_are_equal():
    a, b = np.random.default_rng(0).normal(3, 1, (2, R, 5))
    supported = (verdicts([All((above(a - b), above(a + b)))]) == 1).mean()
    assert 0.0354 <= supported <= 0.0646


def test_magnitude_against_magnitude_of_a_noiseless_zero():
    a = np.random.default_rng(0).normal(0, 1, (R, 3))
    positive, negative = above(a), above(a, reverse=True)
    claim = AnyOf((All((positive, positive)), All((negative, negative))))
    assert (verdicts([claim]) == 1).mean() <= BOUND


def test_power_is_not_lost():
    values = np.random.default_rng(0).normal(2, 1, (R, 5))
    assert 0.964 <= (verdicts([above(values)]) == 1).mean() <= 0.986


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(("level", "low", "high"), [(0.95, 0.9354, 0.9646), (0.9, 0.8799, 0.9201)])
def test_intervals_cover(n, level, low, high):
    draws = np.random.default_rng(n).normal(0, 1, (R, n))
    assert low <= covered(draws, lambda x: t_interval(x, level)[1:]) <= high


def covered(draws, interval):
    bounds = np.array([interval(x) for x in draws])
    return ((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean()


class TestControlsFail:
    """Wrong methods must be seen by the checks above."""

    def test_percentile_bootstrap_of_three_seeds(self):
        rng = np.random.default_rng(0)
        draws = rng.normal(0, 1, (R, 3))

        def bootstrap(x):
            return np.quantile(rng.choice(x, (500, 3)).mean(axis=1), [0.025, 0.975])

        assert covered(draws, bootstrap) < 0.80

    def test_bootstrap_over_items_alone(self):
        """Seed SD 1 point, 5,000 items of SD 45: retraining is not in the interval."""
        rng = np.random.default_rng(0)
        error = np.sqrt(45**2 / (3 * 5_000))
        means = rng.normal(0, 1 / np.sqrt(3), R) + rng.normal(0, error, R)
        assert (np.abs(means) > 1.96 * error).mean() == pytest.approx(0.29, abs=0.04)

    def test_seeds_times_tasks_as_replicates(self):
        """Eight tasks scored on one model are not eight replicates (correlation 0.5)."""
        rng = np.random.default_rng(0)
        draws = rng.normal(0, 1, (R, 3, 1)) + rng.normal(0, 1, (R, 3, 8))
        pooled = covered(draws.reshape(R, 24), lambda x: t_interval(x, 0.95)[1:])
        assert pooled == pytest.approx(0.61, abs=0.05)
        per_seed = covered(draws.mean(axis=2), lambda x: t_interval(x, 0.95)[1:])
        assert 0.9354 <= per_seed <= 0.9646

    def test_ten_claims_without_holm(self):
        rng = np.random.default_rng(0)
        found = verdicts(claims(rng, [0] * 10, 5, False), correct=False)
        assert wrong(found, np.zeros(10)) == pytest.approx(0.40, abs=0.05)

    def test_a_look_after_every_seed(self):
        draws = np.random.default_rng(0).normal(0, 1, (R, 12))
        looks = [p_value(above(draws[:, :n])) <= ALPHA for n in range(3, 13)]
        assert np.any(looks, axis=0).mean() == pytest.approx(0.158, abs=0.03)
