"""Error rates and cost of simulated studies whose seeds are added (`benchmarks/adaptive.py`).

Short here, with wide bands and one generator seed; the slow forms have 2,000 studies. Controls that
err too often must fail the same check.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))  # the benchmarks are no package

from ablations.sequential import BOUNDARIES, repeated_interval
from benchmarks.adaptive import (
    BUDGETS,
    CONTROLS,
    EFFECTS,
    SCENES,
    allocated,
    bound,
    boundaries,
    by_trials,
    differences,
    error_rates,
    one_claim,
    studies_of,
    trials_for,
)

WAYS = ("fixed, 12 seeds", "adaptive, uniform seeds", "adaptive, the rule with futility")


def check(rates, studies):
    for way in WAYS:
        assert rates[way] <= bound(studies), way


def test_wrong_verdicts_are_rare_and_the_controls_are_seen():
    scene, studies = "10 claims, all d = 0", 80
    (rates,) = error_rates(studies, [scene]).values()
    check(rates, studies)
    for control in CONTROLS:
        assert rates[control] > bound(studies)


def test_seeds_by_the_rule_decide_twice_what_uniform_seeds_do():
    curves, errors = by_trials(EFFECTS, 40, lookaheads=[1])
    rule = next(curve for way, curve in curves.items() if way.startswith("the rule"))
    at = BUDGETS.index(54)
    assert rule[at] > 1.5 * curves["uniform seeds, looked at"][at]
    assert max(errors.values()) <= bound(40)


def test_one_claim_keeps_its_level_and_its_power():
    at_zero, at_two = (one_claim(d, 4_000) for d in (0.0, 2.0))
    size = {way: rates[0] for way, rates in at_zero.items()}
    assert size["adaptive, at most 12"] <= bound(4_000)
    assert size["adaptive, at most 12, futility"] <= size["adaptive, at most 12"]
    assert size["control: t test after every seed"] > bound(4_000)
    supported, _, seeds = at_two["adaptive, at most 12"]
    assert supported >= 0.99
    assert 5.0 < seeds < 5.4


def test_the_constants_are_found_again():
    assert boundaries(5, 200_000)[:4] == pytest.approx(BOUNDARIES[5][:4], abs=0.03)


def test_coverage_of_the_repeated_interval():
    """Of the interval at the end, whenever that was: at least its nominal 90 %."""
    effects = [1.0]
    values = differences(np.random.default_rng(5), effects, 300)
    covered = []
    for study, known in enumerate(studies_of(values)):
        course = allocated(known).courses["0"]
        n = course.decided_n or course.n
        _, low, high = repeated_interval(values[study, 0, :n], 0.05, 12)
        covered.append(low <= 1.0 <= high)
    assert np.mean(covered) >= 0.9 - 3 * np.sqrt(0.09 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_wrong_verdicts_are_rare_in_two_thousand_studies(scene):
    (rates,) = error_rates(2_000, [scene]).values()
    check(rates, 2_000)
    if scene == "10 claims, all d = 0":
        assert min(rates[control] for control in CONTROLS) > bound(2_000)


@pytest.mark.slow
def test_cost_in_two_thousand_studies():
    curves, errors = by_trials(EFFECTS, 2_000, lookaheads=[1, 4])
    uniform, *rules = (curves[way] for way in curves if "uniform seeds" in way or "rule" in way)
    assert max(errors.values()) <= bound(2_000)
    at = BUDGETS.index(54)
    assert all(rule[at] >= 2 * uniform[at] for rule in rules)
    for budget in (36, 45, 54, 63):
        assert budget / trials_for(rules[0][BUDGETS.index(budget)], uniform) <= 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "power", "seeds"),
    [
        (1.0, (0.879, 0.919), (7.82, 8.16)),
        (2.0, (0.995, 1.0), (5.10, 5.26)),
        (3.0, (0.995, 1.0), (4.30, 4.41)),
    ],
)
def test_power_and_seeds_of_one_claim(d, power, seeds):
    supported, _, mean = one_claim(d, 20_000)["adaptive, at most 12"]
    assert power[0] <= supported <= power[1]
    assert seeds[0] <= mean <= seeds[1]
