"""Against scipy.stats, statsmodels and worked examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from ablations.conditions import Above, All, AnyOf, mapped, negated
from ablations.verdicts import (
    Evidence,
    Values,
    binding,
    holm,
    holm_levels,
    judge,
    p_above,
    p_value,
    t_interval,
)

A = np.array([52.1, 50.8, 53.0, 51.6, 52.4])
B = np.array([50.3, 50.1, 51.2, 50.9, 50.6])
E1 = np.array([50.2, 49.7, 50.5, 50.1, 49.9])
E2 = np.array([50.0, 50.1, 50.2, 50.4, 49.8])
RESOLUTION = np.array([3.8, 3.65, 3.8])
TOKENS = np.array([2.0, 1.75, 1.8])


def above(values, boundary=0.0, reverse=False):
    return Above(Values.given(values), boundary, reverse)


def equivalent(values, margin):
    return All((above(values, -margin), above(values, margin, reverse=True)))


def evidence(condition, name="claim", n=5, problem=""):
    return Evidence(name=name, text=name, condition=condition, n=n, problem=problem)


def rounded(*numbers, digits=6):
    return [round(float(number), digits) for number in numbers]


class TestKnownAnswers:
    def test_paired_t_test_and_its_intervals(self):
        assert rounded(p_above(Values.given(A - B))) == [0.003622]
        assert rounded(2 * p_above(Values.given(A - B))) == [0.007244]
        assert rounded(*t_interval(A - B, 0.95)) == [1.36, 0.611904, 2.108096]
        assert rounded(*t_interval(A - B, 0.90)) == [1.36, 0.785587, 1.934413]
        assert rounded(p_above(Values.given((A - B)[:3]))) == [0.029823]

    def test_holm(self):
        p = [0.001, 0.012, 0.02, 0.04, 0.3]
        assert rounded(*holm(p)) == [0.005, 0.048, 0.06, 0.08, 0.3]
        assert (holm(p) <= 0.05).tolist() == [True, True, False, False, False]

    def test_equivalence(self):
        difference = E1 - E2
        assert rounded(p_value(equivalent(difference, 1))) == [0.001075]
        assert rounded(p_value(above(difference, -1))) == [0.001075]
        assert rounded(p_value(above(difference, 1, reverse=True))) == [0.000925]
        assert rounded(*t_interval(difference, 0.90)) == [-0.02, -0.316932, 0.276932]
        assert rounded(p_value(equivalent(difference, 0.3))) == [0.057381]
        assert rounded(p_value(equivalent(A - B, 1))) == [0.873767]

    def test_effect_against_effect(self):
        minus, plus = above(RESOLUTION - TOKENS), above(RESOLUTION + TOKENS)
        assert rounded(p_value(minus), p_value(plus)) == [0.000461, 0.000212]
        assert rounded(p_value(All((minus, plus)))) == [0.000461]
        negative = All(
            (above(RESOLUTION + TOKENS, reverse=True), above(RESOLUTION - TOKENS, reverse=True))
        )
        assert rounded(p_value(AnyOf((All((minus, plus)), negative)))) == [0.000922]

    def test_trend(self):
        x = np.array([0, 25, 50, 75, 100.0])
        y = np.array(
            [
                [58.0, 59.1, 60.2, 60.9, 61.3],
                [57.2, 58.9, 59.4, 60.1, 61.5],
                [58.4, 58.8, 60.0, 61.2, 61.1],
            ]
        )
        centered = x - x.mean()
        slopes = y @ centered / (centered**2).sum()
        assert rounded(*slopes, digits=4) == [0.0336, 0.0392, 0.0312]
        assert rounded(p_above(Values.given(slopes))) == [0.002321]
        assert rounded(*t_interval(slopes, 0.95)) == [0.034667, 0.024469, 0.044865]


class TestAgainstScipyAndStatsmodels:
    @pytest.mark.parametrize("n", [2, 3, 5, 20])
    def test_t_test_and_interval(self, n):
        x = np.random.default_rng(n).normal(0.5, 1, (50, n))
        ours = p_above(Values.given(x), 0.2)
        theirs = stats.ttest_1samp(x, 0.2, axis=1, alternative="greater").pvalue
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
        found = stats.ttest_1samp(x[0], 0).confidence_interval(0.9)
        np.testing.assert_allclose(t_interval(x[0], 0.9)[1:], found, rtol=1e-10)

    def test_equivalence(self):
        _, lower, upper = ttost_paired(A, B, -2, 2)
        ours = p_value(equivalent(A - B, 2))
        assert float(ours) == pytest.approx(max(lower[1], upper[1]))

    @pytest.mark.parametrize("m", [1, 2, 7, 30])
    def test_holm(self, m):
        p = np.random.default_rng(m).beta(0.5, 3, (3, m))
        theirs = [multipletests(row, method="holm")[1] for row in p]
        np.testing.assert_allclose(holm(p), theirs, rtol=1e-12)

    def test_power_at_three_seeds(self):
        """P(reject) at the effect that the noncentral t gives power 0.8: 2.30 SD."""
        draws = np.random.default_rng(0).normal(2.30, 1, (20_000, 3))
        assert (p_above(Values.given(draws)) <= 0.05).mean() == pytest.approx(0.8, abs=0.01)


class TestComposition:
    def test_all_takes_the_largest_p_and_any_pays_for_its_choices(self):
        parts = (above(A - B), above(E1 - E2, -0.3), above(TOKENS))
        p = [float(p_value(part)) for part in parts]
        assert float(p_value(All(parts))) == max(p)
        assert float(p_value(AnyOf(parts))) == pytest.approx(3 * min(p))

    def test_refuting_equivalence_costs_two(self):
        p = p_value(negated(equivalent(A - B, 0.2)))
        assert float(p) == pytest.approx(2 * float(p_value(above(A - B, 0.2))))

    def test_magnitudes_refuted_are_the_magnitudes_exchanged(self):
        def larger(a, b):
            return AnyOf(
                (
                    All((above(a - b), above(a + b))),
                    All((above(a + b, reverse=True), above(a - b, reverse=True))),
                )
            )

        rng = np.random.default_rng(1)
        for _ in range(50):
            a, b = rng.normal(rng.normal(0, 3, (2, 1)), 1, (2, 5))
            assert float(p_value(negated(larger(a, b)))) == pytest.approx(
                float(p_value(larger(b, a)))
            )

    def test_binding_names_the_part_that_decides(self):
        weak, strong = above(E1 - E2), above(A - B)
        assert binding(All((strong, weak))) == (weak, 1)
        assert binding(AnyOf((weak, strong))) == (strong, 2)
        assert binding(All((AnyOf((strong, strong)), AnyOf((weak, strong, weak)))))[1] == 3


class TestVerdict:
    def test_supported_with_the_interval_of_its_own_level(self):
        (verdict,) = judge([evidence(above(A - B))], 0.05)
        assert verdict.verdict == "supported"
        assert verdict.ci_level == pytest.approx(0.9)
        assert rounded(verdict.effect, verdict.ci_low, verdict.ci_high) == [
            1.36,
            0.785587,
            1.934413,
        ]
        assert rounded(verdict.p_value, verdict.p_adjusted) == [0.003622, 0.003622]
        assert verdict.reason == "adjusted p 0.00362 <= 0.05"

    def test_refuted_when_the_effect_is_on_the_other_side(self):
        (verdict,) = judge([evidence(above(B - A))], 0.05)
        assert verdict.verdict == "refuted"
        assert rounded(verdict.effect, verdict.p_value) == [-1.36, 0.003622]

    def test_holm_counts_every_claim_of_the_study(self):
        weak = np.array([0.9, -0.5, 1.1, 0.2, -0.3])
        alone = judge([evidence(above(A - B, 0.5))], 0.05)[0]
        among = judge(
            [evidence(above(A - B, 0.5))] + [evidence(above(weak), str(i)) for i in range(9)], 0.05
        )[0]
        assert (alone.verdict, among.verdict) == ("supported", "undecided")
        assert among.p_adjusted == pytest.approx(10 * alone.p_value)
        assert among.ci_level == pytest.approx(1 - 2 * 0.05 / 10)

    def test_missing_seeds_leave_it_undecided_with_interim_effect(self):
        (verdict,) = judge([evidence(above((A - B)[:2]), n=2, problem="2 of 3 seeds")], 0.05)
        assert verdict.verdict == "undecided"
        assert verdict.reason == "2 of 3 seeds"
        assert verdict.effect == pytest.approx(1.25)
        assert verdict.ci_low is not None
        assert verdict.p_value is None
        assert verdict.p_adjusted is None

    def test_sensitive_from_five_seeds_if_one_changes_the_verdict(self):
        solid, lucky = np.array([2.0, 2.1, 1.9, 2.0, 2.1]), np.array([1.0, 1.3, 0.9, 1.2, -0.5])
        found = judge([evidence(above(solid)), evidence(above(lucky))], 0.05)
        assert [verdict.sensitive for verdict in found] == [False, True]

    def test_sensitive_below_five_seeds_only_if_the_sign_changes(self):
        shaky, steady = np.array([1.0, 1.0, -1.5]), np.array([4.0, 1.0, 0.1])
        found = judge([evidence(above(shaky), n=3), evidence(above(steady), n=3)], 0.05)
        assert [verdict.sensitive for verdict in found] == [True, False]

    @pytest.mark.parametrize("seed", range(20))
    def test_interval_and_verdict_never_disagree(self, seed):
        rng = np.random.default_rng(seed)
        values = [rng.normal(rng.normal(0, 2), 1, 5) for _ in range(8)]
        claims = [
            above(values[0]),
            above(values[1], 1.0),
            above(values[2], -0.5, reverse=True),
            equivalent(values[3], 1.5),
            All((above(values[4] - values[5]), above(values[4] + values[5]))),
            AnyOf((above(values[6]), above(values[7], -1.0, reverse=True))),
        ]
        for verdict in judge([evidence(c, str(i)) for i, c in enumerate(claims)], 0.05):
            inside = verdict.ci_low <= verdict.boundary <= verdict.ci_high
            assert inside == (verdict.verdict == "undecided")

    def test_no_claims_no_verdicts(self):
        assert judge([], 0.05) == []


class TestExtremeSeeds:
    def found(self, values):
        claim = Evidence("c", "c", above(values), len(values), seeds=tuple(range(len(values))))
        return judge([claim], 0.05)[0].extreme_seeds

    def test_failures_are_named_however_much_they_widen_the_spread(self):
        assert self.found([9.8, 10.1, -60.0, 10.0, 9.9, -70.0, 10.2]) == (2, 5)

    def test_a_calm_set_of_seeds_has_none(self):
        assert self.found([9.8, 10.1, 10.6, 9.2, 10.0]) == ()
        assert self.found([5.0, 5.0, 5.0, 5.0]) == ()

    def test_normal_seeds_are_rarely_called_extreme(self):
        rng = np.random.default_rng(0)
        assert np.mean([bool(self.found(x)) for x in rng.normal(size=(400, 5))]) < 0.09


class TestHolmLevels:
    @pytest.mark.parametrize("seed", range(10))
    def test_a_verdict_stays_when_claims_that_waited_with_p_1_come_in(self, seed):
        rng = np.random.default_rng(seed)
        p = rng.beta(0.3, 3, 8)
        early = np.where(rng.random(8) < 0.5, 1.0, p)
        assert ((holm(p) <= 0.05) >= (holm(early) <= 0.05)).all()

    def test_rejected_claims_step_down_and_the_rest_share_a_level(self):
        levels = holm_levels([0.04, 0.001, 0.3, 0.012, 0.02], 0.05)
        np.testing.assert_allclose(levels, 0.05 / np.array([3, 5, 3, 4, 3]))

    @pytest.mark.parametrize("seed", range(10))
    def test_a_claim_is_rejected_exactly_if_its_p_is_below_its_level(self, seed):
        p = np.random.default_rng(seed).choice([0.0004, 0.004, 0.004, 0.02, 0.3], 8)
        assert ((p <= holm_levels(p, 0.05)) == (holm(p) <= 0.05)).all()


class TestInvariances:
    CLAIMS = (
        above(A - B),
        above(E1 - E2, 0.1),
        equivalent(E1 - E2, 1.0),
        AnyOf((above(A - B, 1), above(B - A, 1))),
    )

    def verdicts(self, conditions):
        return judge([evidence(c, str(i)) for i, c in enumerate(conditions)], 0.05)

    @pytest.mark.parametrize("factor", [0.01, 3.0, 1e4])
    def test_units_do_not_matter(self, factor):
        def scaled(condition):
            if isinstance(condition, Above):
                values = Values.given(condition.quantity.values * factor)
                return Above(values, condition.boundary * factor, condition.reverse)
            return type(condition)(tuple(map(scaled, condition.parts)))

        for one, other in zip(
            self.verdicts(self.CLAIMS), self.verdicts(map(scaled, self.CLAIMS)), strict=True
        ):
            assert other.verdict == one.verdict
            assert other.p_value == pytest.approx(one.p_value, rel=1e-9)

    def test_order_of_seeds_does_not_matter(self):
        def turned(values):
            return Values.given(values.values[[3, 1, 4, 0, 2]])

        for one, other in zip(
            self.verdicts(self.CLAIMS),
            self.verdicts([mapped(c, turned) for c in self.CLAIMS]),
            strict=True,
        ):
            assert other.verdict == one.verdict
            assert other.p_value == pytest.approx(one.p_value, rel=1e-9)

    def test_order_of_claims_does_not_matter(self):
        known = {v.name: v for v in self.verdicts(self.CLAIMS)}
        claims = [evidence(c, str(i)) for i, c in enumerate(self.CLAIMS)]
        for order in itertools.permutations(claims):
            assert {v.name: v for v in judge(order, 0.05)} == known

    def test_swapping_arms_swaps_supported_and_refuted(self):
        one, other = self.verdicts([above(A - B)])[0], self.verdicts([above(B - A)])[0]
        assert (one.verdict, other.verdict) == ("supported", "refuted")
        assert one.p_value == pytest.approx(other.p_value)


class TestDegenerateInput:
    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ([2.0, 2.0, 2.0], "all 3 seeds gave the same difference"),
            ([0.0, 0.0, 0.0], "all 3 seeds gave the same difference"),
            ([2.0], "1 seed has no spread to test against"),
        ],
    )
    def test_nothing_to_test_is_undecided_with_a_reason(self, values, reason):
        (verdict,) = judge([evidence(above(values), n=len(values))], 0.05)
        assert verdict.verdict == "undecided"
        assert verdict.reason.startswith(reason)
        assert verdict.p_value == 1.0
        assert verdict.effect == values[0]
        assert (verdict.ci_low, verdict.ci_high) == (None, None)

    def test_the_reason_is_of_the_part_that_decides(self):
        flat, noisy = above([5.0, 5.0, 5.0]), above([1.0, -2.0, 0.5])
        (verdict,) = judge([evidence(AnyOf((flat, noisy)), n=3)], 0.05)
        assert verdict.reason.startswith("adjusted p")

    def test_rounding_is_no_spread(self):
        scores = np.array([81.1, 1.3, 0.7])
        rounding = (scores + 0.1) - scores  # 0.1 but for the last bits
        values = Values(rounding, np.abs(scores).max())
        assert len(set(rounding.tolist())) > 1
        assert float(p_above(values)) == 1.0

    def test_p_is_never_zero(self):
        values = Values.given(np.full(200, 5.0) + np.linspace(0, 1e-9, 200))
        assert 0 < float(p_above(values)) < 1e-100

    def test_no_seed_at_all(self):
        (verdict,) = judge([evidence(above([]), n=0, problem="0 of 3 seeds")], 0.05)
        assert (verdict.verdict, verdict.effect, verdict.ci_low) == ("undecided", None, None)


@pytest.mark.filterwarnings("ignore:overflow")
def test_numbers_without_a_finite_spread_decide_nothing():
    (verdict,) = judge([evidence(above([1e200, 3e200, 2e200]), n=3)], 0.05)
    assert (verdict.verdict, verdict.p_value) == ("undecided", 1.0)
    assert verdict.reason == "the numbers are too large to have a spread"


def test_a_p_value_close_to_alpha_is_told_on_its_side():
    (verdict,) = judge([evidence(above(A - B))], 0.003622)
    assert verdict.verdict == "undecided"
    assert verdict.reason.endswith(" > 0.003622")
    told = float(verdict.reason.split()[2])
    assert told > 0.003622
