"""The rule that adds seeds: what it decides on, and that nothing but results decides it."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.conditions import Above, negated
from ablations.paths import chances, p_path
from ablations.replication import Allocation, Budget, Pair, Rule
from ablations.verdicts import Values

ARMS = ["base", "a", "b", "c"]
CLAIMS = {"a": ["base", "a"], "b": ["base", "b"], "c": ["base", "c"]}
EFFECTS = {"base": 0.0, "a": 3.0, "b": 1.0, "c": 0.0}


class Seen:
    """Evidence of arms against a base, from numbers that are all known to the test."""

    def __init__(self, numbers, rule, bad=()):
        self.numbers, self.rule, self.bad = numbers, rule, set(bad)
        self.asked = {}  # claim → the most seeds that it was asked of
        self.known = {}

    def problem(self, claim, n):
        return f"{claim} is odd" if (claim, n) in self.bad else ""

    def condition(self, claim, n):
        self.asked[claim] = max(n, self.asked.get(claim, 0))
        return Above(Values.given(self.numbers[claim][:n] - self.numbers["base"][:n]), 0.0)

    def p(self, claim, n):
        seen, looks = self.condition(claim, n), range(self.rule.initial, n + 1)
        if (claim, n) not in self.known:
            sides = (seen, negated(seen))
            found = tuple(float(p_path(one, looks, self.rule.most)[-1]) for one in sides)
            self.known[claim, n] = found
        return self.known[claim, n]

    def chances(self, claim, n, level):
        seen, later = self.condition(claim, n), range(n + 1, self.rule.most + 1)
        sides = (seen, negated(seen))
        return sum(chances(one, n, later, level, self.rule.most) for one in sides)


def numbers(seed, most=12):
    rng = np.random.default_rng(seed)
    return {arm: effect + rng.normal(0, 0.7, most) for arm, effect in EFFECTS.items()}


def allocation(seen, rule, **more):
    costs = dict.fromkeys(ARMS, 1.0) | more
    return Allocation(rule, ARMS, CLAIMS, costs, seen)


def whole(seed, rule, **more):
    made = allocation(Seen(numbers(seed), rule), rule, **more)
    made.advance(lambda trial: "there")
    assert made.ended
    return made


def in_store(trials):
    """Results that are there."""
    return lambda trial: "there" if trial in trials else ""


def outcomes(made):
    return {
        name: (course.verdict, course.n, course.decided_n, course.p, course.level)
        for name, course in made.courses.items()
    }


def test_all_arms_begin_with_their_initial_seeds_and_seeds_come_in_order():
    made = whole(0, Rule(3, 12, 0.05))
    assert made.trials[:12] == [Pair(arm, index) for index in range(3) for arm in ARMS]
    assert len(set(made.trials)) == len(made.trials)
    for arm in ARMS:
        own = [trial.index for trial in made.trials if trial.arm == arm]
        assert own == list(range(len(own)))


def test_seeds_go_where_the_verdict_is_open():
    made = whole(0, Rule(3, 12, 0.05))
    count = {arm: sum(trial.arm == arm for trial in made.trials) for arm in ARMS}
    assert made.courses["a"].verdict == "supported"
    assert count["a"] < 8
    assert count["base"] == max(count.values())
    assert len(made.trials) < 48
    for name, course in made.courses.items():
        assert (made.reason(name) == "") == (course.verdict != "undecided")


@pytest.mark.parametrize("lookahead", [1, 4])
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_other_machines_and_other_orders_of_arrival_take_the_same_decisions(workers, lookahead):
    rule = Rule(3, 12, 0.05, lookahead=lookahead)
    for seed in range(2):
        expected = whole(seed, rule)
        rng = np.random.default_rng([seed, workers])
        made = allocation(Seen(numbers(seed), rule), rule)
        came, running = set(), []
        while True:
            made.advance(in_store(came))
            assert made.trials == expected.trials[: len(made.trials)]
            waiting = [t for t in made.trials if t not in came and t not in running]
            running += waiting[: workers - len(running)]
            if not running:
                break
            came.add(running.pop(int(rng.integers(len(running)))))
        assert made.ended
        assert made.trials == expected.trials
        assert outcomes(made) == outcomes(expected)


def test_a_study_that_is_resumed_anywhere_takes_the_same_decisions():
    rule = Rule(3, 8, 0.05, lookahead=2)
    expected = whole(3, rule)
    for there in range(len(expected.trials) + 1):
        known = set(expected.trials[:there])
        made = allocation(Seen(numbers(3), rule), rule)
        made.advance(in_store(known))
        assert made.trials == expected.trials[: len(made.trials)]
        assert len(made.trials) <= max(12, there + 2)  # no more than the lookahead ahead


def test_what_a_decision_uses_is_the_results_that_were_due_and_no_others():
    rule = Rule(3, 12, 0.05, lookahead=2)
    expected = whole(1, rule)
    for place in range(13, len(expected.trials) + 1):
        due = set(expected.trials[: place - 2])
        made = allocation(Seen(numbers(1), rule), rule)
        made.advance(in_store(due))
        if len(made.trials) < place:  # nothing was to be had without one more result
            due.add(expected.trials[place - 2])
            made.advance(in_store(due))
        assert made.trials[:place] == expected.trials[:place]


def test_a_verdict_stands_and_its_seeds_with_it():
    rule = Rule(3, 12, 0.05)
    for seed in range(4):
        made = allocation(Seen(numbers(seed), rule), rule)
        came, seen = set(), {}
        while not made.ended:
            made.advance(in_store(came))
            for name, course in made.courses.items():
                if name in seen:
                    assert (course.verdict, course.decided_n, course.p) == seen[name]
                elif course.verdict != "undecided":
                    seen[name] = course.verdict, course.decided_n, course.p
            came.add(made.trials[len(came)] if len(came) < len(made.trials) else None)


def test_a_trial_that_is_lost_blocks_its_claims_and_no_others():
    rule = Rule(3, 12, 0.05)
    lost = Pair("c", 2)
    made = allocation(Seen(numbers(0), rule), rule)
    made.advance(lambda trial: "lost" if trial == lost else "there")
    assert made.ended
    assert made.courses["a"].verdict == "supported"
    assert made.reason("c") == f"{lost} failed"
    assert made.courses["c"].n == 2
    assert Pair("c", 3) not in made.trials
    made = allocation(Seen(numbers(0), rule), rule)
    made.advance(lambda trial: "lost" if trial.arm == "base" else "there")
    assert made.ended
    assert len(made.trials) == 12


def test_a_number_that_cannot_be_counted_blocks_its_claim_alone():
    rule = Rule(3, 12, 0.05)
    made = allocation(Seen(numbers(0), rule, bad={("b", 4)}), rule)
    made.advance(lambda trial: "there")
    assert made.reason("b") == "b is odd"
    assert made.courses["b"].n == 3
    assert made.courses["a"].verdict == "supported"


@pytest.mark.parametrize("budget", [12, 15, 20])
def test_a_budget_of_trials_is_kept(budget):
    rule = Rule(3, 12, 0.05, budget=Budget(trials=budget))
    made = whole(0, rule)
    assert len(made.trials) == budget
    assert any("budget" in made.reason(name) for name in CLAIMS)
    assert made.trials == whole(0, Rule(3, 12, 0.05)).trials[:budget]


def test_a_budget_of_seconds_counts_planned_costs():
    rule = Rule(3, 12, 0.05, budget=Budget(seconds=100.0))
    made = whole(0, rule, base=5.0)
    assert 60 < made.seconds <= 100
    assert made.seconds == sum(5.0 if t.arm == "base" else 1.0 for t in made.trials)


def test_a_dear_arm_is_run_later():
    def first_of(made, arm):
        return next((i for i, t in enumerate(made.trials) if t == Pair(arm, 3)), 10**6)

    rule = Rule(3, 12, 0.05)
    assert first_of(whole(0, rule, a=50.0), "a") > first_of(whole(0, rule), "a")


def test_what_the_rule_asks_of_evidence_is_there():
    rule = Rule(3, 12, 0.05, lookahead=4)
    seen = Seen(numbers(2), rule)
    made = allocation(seen, rule)
    made.advance(lambda trial: "there" if trial.index < 3 else "")
    assert seen.asked == dict.fromkeys(CLAIMS, 3)
