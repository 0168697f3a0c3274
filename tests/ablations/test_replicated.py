"""Studies whose seeds are added: what is registered, what is run, what is said of the claims."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.adaptive_seeds import MOST_SEEDS, Budget, Replication
from ablations.contrasts import ScoreKey
from ablations.deciding import claims_of, places
from ablations.errors import UserError
from ablations.estimates import at_once
from ablations.machine import load_machine
from ablations.plan import Plan
from ablations.replicated import Replicated, rule_of
from ablations.sequential import BOUNDARIES, nominal_p

ADAPTIVE = {"initial": 3, "max": 12, "until": "verdict"}
DESIGN = {"one_at_a_time": {"encoder.image_size": [32, 16, 48, 64]}}
CLAIMS = {
    "large": "effect(encoder.image_size, 16 -> 32) > 0",
    "none": "effect(encoder.image_size, 48 -> 32) > 0",
    "alike": "effect(encoder.image_size, 64 -> 32) == 0 within 4",
}
EFFECTS = {"encoder.image_size=16": -4.0}


@pytest.fixture
def plan(studies):
    return studies.plan(design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE)


def scores(plan, seed=0):
    rng = np.random.default_rng(seed)
    return {
        ScoreKey(arm.name, "easy_vqa", "accuracy", 0, "intact"): {
            one: 70 + EFFECTS.get(arm.name, 0.0) + rng.normal(0, 0.7) for one in plan.seeds
        }
        for arm in plan.arms
    }


def whole(plan, seed=0, diverged=(), lost=()):
    result = lambda arm, one: "lost" if (arm, one) in lost else "there"  # noqa: E731
    return Replicated(plan, scores(plan, seed), places(plan, diverged), result)


def verdicts(made, family=None):
    return {one.name: one for one in made.verdicts(claims_of(made.plan, family))}


def test_a_plan_holds_all_trials_that_may_come_and_the_first_ones_first(studies, plan):
    assert len(plan.trials) == 4 * 12
    assert [trial.seed for trial in plan.trials[:12]] == [0] * 4 + [1] * 4 + [2] * 4
    nulls = studies.plan(design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE, null_arms=2)
    seeds = {arm: [t.seed for t in nulls.trials if t.arm == arm] for arm in ("null=1", "base")}
    assert seeds == {"null=1": [0, 1, 2], "base": list(range(12))}
    only = studies.plan(design=DESIGN, claims={"a": CLAIMS["large"]}, seeds=ADAPTIVE)
    assert {t.arm for t in only.trials if t.seed > 2} == {"base", "encoder.image_size=16"}


def test_the_plan_of_a_fixed_study_is_what_it_was(studies):
    """Hashes of before there was any other way to choose seeds."""
    assert studies.plan(seeds=12).replication is None
    adaptive = studies.plan(claims={"a": "score(base) > 60"}, seeds=ADAPTIVE)
    fixed = studies.plan(claims={"a": "score(base) > 60"}, seeds=12)
    assert adaptive.hash != fixed.hash
    assert adaptive.stages.keys() < fixed.stages.keys()


def test_everything_that_could_be_chosen_later_is_registered(studies):
    def hash_of(**more):
        return studies.plan(design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE | more).hash

    hashes = {
        hash_of(),
        hash_of(max=11),
        hash_of(initial=4),
        hash_of(lookahead=2),
        hash_of(budget={"trials": 30}),
        hash_of(budget={"core_hours": 1000}),
        hash_of(budget={"money": 1000, "on": "a100-8"}),
        hash_of(budget={"money": 1000, "on": "h100-8"}),
        hash_of(budget={"wall_hours": 1000, "on": "a100-8"}),
    }
    assert len(hashes) == 9


def test_a_budget_of_a_machine_is_in_its_seconds(studies):
    def planned(**budget):
        made = studies.plan(design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE | {"budget": budget})
        return made.replication

    hours = planned(wall_hours=10, on="a100-8")
    assert hours.most_seconds == 36_000
    assert planned(device_hours=80, on="a100-8").most_seconds == pytest.approx(36_000)
    price = load_machine("a100-8").price.hourly
    assert planned(money=10 * price, on="a100-8").most_seconds == pytest.approx(36_000)
    both = planned(money=10 * price, wall_hours=2, on="a100-8")
    assert both.most_seconds == 7_200  # the smaller
    # Eight trials of one device run side by side, and the stages of one after one another.
    work = [one.work for one in studies.plan(design=DESIGN).stages.values()]
    assert {at_once(one, load_machine("a100-8")) for one in work} == {8}
    alone = planned(wall_hours=10, on="a100-1").seconds
    assert hours.seconds == pytest.approx({arm: one / 8 for arm, one in alone.items()}, rel=0.01)


def test_a_plan_of_before_keeps_its_budget(plan):
    """A snapshot that says core-hours and nothing of what they come to."""
    rule = plan.replication.model_copy(update={"budget": Budget(core_hours=2)})
    before = rule.model_dump(mode="json", exclude={"most_seconds"})
    old = plan.model_copy(update={"replication": Replication.model_validate(before)})
    assert rule_of(old).budget.seconds == 7_200


def test_a_machine_of_ones_own_lies_beside_the_study(studies):
    ours = studies.folder / "ours.yaml"
    ours.write_text("like: a100-8\nslices: 1\nprice: {hourly: 1}\n", encoding="utf-8")
    made = studies.plan(
        design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE | {"budget": {"money": 2, "on": "ours.yaml"}}
    )
    assert made.replication.most_seconds == 7_200


def test_a_budget_of_a_machine_ends_the_study(plan):
    """The trials that fit into the planned seconds are run and no more."""
    cost = plan.replication.seconds["base"]
    least = sum(plan.replication.seconds.values()) * plan.replication.initial
    capped = plan.model_copy(
        update={
            "replication": plan.replication.model_copy(
                update={"most_seconds": least + 2.5 * cost, "lookahead": 1}
            )
        }
    )
    free, made = whole(plan), whole(capped)
    spent = sum(plan.replication.seconds[arm] for arm, _ in made.trials)
    assert least <= spent <= least + 2.5 * cost
    assert made.trials == free.trials[: len(made.trials)]
    assert len(made.trials) < len(free.trials)


def test_a_snapshot_keeps_the_rule(plan):
    again = Plan.model_validate(plan.model_dump(mode="json"))
    assert again.replication == plan.replication
    assert again.replication.seconds.keys() == {arm.name for arm in plan.arms}


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ({"initial": 2}, "initial: 2 is not a number from 3 to 11"),
        ({"max": 3}, "max: 3 is not a number from 4 to 12"),
        ({"max": 50}, "max: 50 is not a number from 4 to 12"),
        ({"until": "bored"}, "until: 'bored' is not valid: expected verdict"),
        ({"lookahaed": 2}, "unknown key 'lookahaed'; did you mean 'lookahead'"),
        ({"budget": {"trails": 3}}, "budget: unknown key 'trails'; did you mean 'trials'"),
        ({"budget": {"trials": 11}}, "11 are fewer than the 12 to begin with"),
        ({"budget": {"core_hours": 1e-9}}, "are fewer than the"),
        ({"budget": {"money": 1e-9, "on": "a100-8"}}, "budget.money: 1e-09 are fewer than the"),
        ({"budget": {"money": 5}}, "budget.money: on which machine is missing"),
        ({"budget": {"on": "a100-8"}}, "budget.on: a machine needs one of device_hours, wall"),
        ({"budget": {"money": 5, "on": "a100"}}, "no machine 'a100'; did you mean 'a100-"),
        ({"budget": {"money": 5, "on": "none.yaml"}}, "none.yaml"),
        ({"budget": {"money": 5, "on": "simulated-8"}}, "no price of simulated-8 is known"),
        ({"budget": {"money": 5, "core_hours": 1, "on": "a100-8"}}, "take one of both"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(studies, seeds, told):
    with pytest.raises(UserError) as caught:
        studies.plan(design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE | seeds)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_claims_there_is_no_verdict_to_wait_for(studies):
    with pytest.raises(UserError, match="until: verdict needs claims"):
        studies.plan(seeds=ADAPTIVE, claims={})


def test_fresh_seeds_may_be_added_too(studies):
    plan = studies.plan(design=DESIGN, claims=CLAIMS, seeds=ADAPTIVE | {"from": "fresh"})
    assert len(plan.seeds) == 12
    assert min(plan.seeds) > 1000


def test_the_boundary_goes_as_far_as_seeds_may():
    assert max(BOUNDARIES) == MOST_SEEDS


def test_each_claim_ends_with_a_verdict_or_a_reason(plan):
    made = whole(plan)
    found = verdicts(made)
    assert made.ended
    assert found["large"].verdict == "supported"
    assert found["alike"].verdict == "supported"
    assert found["none"].verdict == "undecided"
    assert "futile" in found["none"].reason or "last of its 12" in found["none"].reason
    assert len(made.trials) < len(plan.trials)


def test_the_path_the_interval_and_the_verdict_agree(plan):
    for seed in range(6):
        for one in verdicts(whole(plan, seed)).values():
            assert [at.n for at in one.path] == list(range(3, one.n + 1))
            last = one.path[-1]
            assert last.p_value == one.p_value
            assert (one.ci_low, one.ci_high) == (last.ci_low, last.ci_high)
            assert len(one.by_seed) == one.n
            assert one.effect == pytest.approx(sum(one.by_seed.values()) / one.n)
            outside = not one.ci_low <= one.boundary <= one.ci_high
            assert outside == (one.verdict != "undecided")
            if one.verdict != "undecided":
                assert last.t >= last.boundary_t
                assert all(at.t < at.boundary_t for at in one.path[:-1])
                assert one.p_adjusted <= one.alpha


def test_holms_correction_is_over_the_claims_that_were_registered_together(plan):
    made = whole(plan)
    alone = verdicts(made, ["large"])["large"]
    together = verdicts(made)["large"]
    assert alone.p_adjusted == alone.p_value
    assert together.p_adjusted > together.p_value
    assert alone.n <= together.n


def test_a_study_that_is_not_finished_says_so_and_shows_verdicts_that_stand(plan):
    made = whole(plan)
    first = set(made.trials[:-1])
    result = lambda arm, one: "there" if (arm, one) in first else ""  # noqa: E731
    part = Replicated(plan, scores(plan), frozenset(), result)
    assert not part.ended
    for name, one in verdicts(part).items():
        final = verdicts(made)[name]
        if one.verdict != "undecided":
            assert (one.verdict, one.n, one.effect) == (final.verdict, final.n, final.effect)
        else:
            assert one.is_open
            assert one.reason.startswith("open:")


def test_a_diverged_trial_counts_with_the_worst_value_of_its_metric(plan):
    (trial,) = [t for t in plan.trials if (t.arm, t.seed) == ("base", 1)]
    made = whole(plan, diverged=[plan.main(trial)])
    found = verdicts(made)["large"]
    assert "base seed 1 diverged" in found.warnings
    assert found.by_seed[1] < -60
    assert made.ended


def test_a_failed_trial_leaves_its_claims_open_with_a_reason(plan):
    made = whole(plan, lost={("encoder.image_size=16", 2)})
    found = verdicts(made)
    assert made.ended
    assert found["large"].verdict == "undecided"
    assert found["large"].reason == "encoder.image_size=16 seed 2 failed"
    assert found["alike"].verdict == "supported"


def test_a_number_that_is_none_leaves_its_claim_open_with_a_reason(plan):
    numbers = scores(plan)
    key = ScoreKey("encoder.image_size=16", "easy_vqa", "accuracy", 0, "intact")
    numbers[key][1] = math.nan
    made = Replicated(plan, numbers, frozenset(), lambda arm, one: "there")
    assert "is nan" in verdicts(made)["large"].reason
    del numbers[key][1]
    made = Replicated(plan, numbers, frozenset(), lambda arm, one: "there")
    assert "seed 1 measured no accuracy" in verdicts(made)["large"].reason
    assert made.ended


def test_what_the_t_test_must_reach_is_stricter_than_with_one_look():
    assert (nominal_p(0.05, np.arange(3, 12), 12) < 0.05).all()


def test_only_the_trials_that_were_decided_on_are_the_study(plan):
    made = whole(plan)
    part = plan.only(made.trials)
    assert {(t.arm, t.seed) for t in part.trials} == set(made.trials)
    assert all(set(t.stages.values()) <= part.stages.keys() for t in part.trials)
    assert part.hash == plan.hash
