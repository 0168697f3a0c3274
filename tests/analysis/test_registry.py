"""Ways round a registration, and the honest ways beside them: each claim has its due standing."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from ablations.plan import Plan
from mm1 import api

BETTER = "effect(encoder.image_size, 16 -> 32) > 0"
RECIPE = {
    "training": {"steps": 100, "batch_size": 4},
    "evaluation": {"easy_vqa": {}, "held_out_text": {}},
}


class TestHonestWays:
    def test_registered_before_its_results(self, lab: Any) -> None:
        lab.run()
        assert lab.standing() == "registered"
        assert lab.told() == ""

    def test_a_study_about_other_arms_is_nothing_to_it(self, lab: Any) -> None:
        tokens = {"one_at_a_time": {"connector.tokens": [4, 9]}}
        lab.run("types", design=tokens, seeds=[5, 6, 7], claims={})
        lab.run()
        assert lab.standing() == "registered"

    def test_a_claim_that_was_mended_before_any_result(self, lab: Any) -> None:
        lab.register(claims={"better": BETTER + " by 500"})
        lab.run()
        assert lab.standing() == "registered"

    def test_a_claim_added_later_leaves_the_others_their_standing_and_family(
        self, lab: Any
    ) -> None:
        lab.run(claims={"better": BETTER, "good": "score(base) > 60"})
        before = {one.name: one for one in lab.results().verdicts}
        lab.run(claims={"better": BETTER, "good": "score(base) > 60", "late": "score(base) > 65"})
        assert lab.standing() == "registered"
        assert lab.standing(claim="late") == "exploratory"
        after = {one.name: one for one in lab.results().verdicts}
        assert after["better"] == before["better"]
        assert after["late"].p_adjusted == after["late"].p_value  # alone in its family
        assert "over the 2 claims that were registered together" in lab.told()

    def test_another_name_of_the_claim_or_the_study_is_no_other_claim(self, lab: Any) -> None:
        lab.run()
        lab.run("renamed", claims={"is-better": f" {BETTER} "})
        assert lab.standing("renamed", "is-better") == "registered"


class TestWaysRound:
    def test_other_seeds_under_the_same_name(self, lab: Any) -> None:
        for first in (0, 10, 20):
            lab.run(seeds=[first, first + 1, first + 2])
        assert lab.standing() == "repeated"
        assert "the third set of results, one of 3 registrations" in lab.told()
        assert "up to 15 %" in lab.told()
        assert "seeds 10 to 12; claims better): better: supported" in lab.told()

    def test_other_seeds_under_another_name(self, lab: Any) -> None:
        lab.run()
        lab.run("fresh-start", seeds=[10, 11, 12])
        assert lab.standing("fresh-start") == "repeated"
        assert lab.standing() == "registered"  # it was first

    def test_more_seeds_after_looking(self, lab: Any) -> None:
        lab.run()
        lab.run(seeds=[0, 1, 2, 3, 4])
        assert lab.standing() == "exploratory"
        lab.run("softly", seeds=[0, 1, 2, 3, 4, 5])
        assert lab.standing("softly") == "partly known"

    @pytest.mark.parametrize("eps", [1.0001e-8, 1e-8])
    def test_the_best_of_many_arms_with_a_config_that_hardly_differs(
        self, lab: Any, eps: float
    ) -> None:
        sizes = {"one_at_a_time": {"encoder.image_size": [32, 16, 24, 40, 48]}}
        lab.run("many", design=sizes, claims={})
        near = {**RECIPE, "optimizer": {"eps": eps}}
        lab.run("picked", recipe=near, seeds=[3, 4, 5])
        assert lab.standing("picked") == "repeated"
        assert "many" in lab.told("picked")

    def test_a_config_that_does_differ_is_another_study(self, lab: Any) -> None:
        lab.run()
        lab.run("faster", recipe={**RECIPE, "optimizer": {"peak_lr": 0.01}}, seeds=[3, 4, 5])
        assert lab.standing("faster") == "registered"

    def test_a_task_more_does_not_make_other_arms(self, lab: Any) -> None:
        lab.run()
        wider = {**RECIPE, "evaluation": {"easy_vqa": {}}}
        lab.run("narrow", recipe=wider, seeds=[3, 4, 5])
        assert lab.standing("narrow") == "repeated"

    def test_a_ladder_of_seeds_registered_before_results(self, lab: Any) -> None:
        ladder = {size: lab.register(f"rung-{size}", seeds=list(range(size))) for size in (3, 5, 8)}
        for plan in ladder.values():
            lab.finish(plan)
        assert {lab.standing(f"rung-{size}") for size in ladder} == {"repeated"}

    def test_many_sets_of_claims_one_reported(self, lab: Any) -> None:
        texts = [f"{BETTER} by {margin}" for margin in (0, 5, 9)]
        plans = [lab.register(claims={"better": text}) for text in texts]
        lab.finish(plans[0])
        assert lab.standing() == "registered"  # the last: it was fixed before there was a result
        lab.register(claims={"better": texts[0]})  # the first again, after looking
        assert lab.standing() == "repeated"
        assert "one of 2 registrations" in lab.told() or "one of 3 registrations" in lab.told()

    def test_one_study_a_claim(self, lab: Any) -> None:
        for number in range(3):
            plan = lab.register(f"s{number}", claims={"better": f"{BETTER} by {number}"})
        lab.finish(plan)
        assert {lab.standing(f"s{number}") for number in range(3)} == {"repeated"}

    def test_claims_left_out_after_looking_still_count(self, lab: Any) -> None:
        many = {f"c{margin}": f"{BETTER} by {margin}" for margin in range(9)}
        lab.run(claims={"better": BETTER, **many})
        lab.register()
        (better,) = lab.results().verdicts
        assert lab.standing() == "registered"
        assert better.p_adjusted is not None
        assert better.p_value is not None
        assert better.p_adjusted > better.p_value
        assert "over the 10 claims" in lab.told()

    def test_results_of_a_run_that_was_not_finished_were_seen_too(self, lab: Any) -> None:
        lab.finish(lab.register(seeds=[7, 8, 9]), seeds=2)
        lab.run()
        assert lab.standing() == "repeated"

    def test_another_primary_metric_does_not_make_another_question(self, lab: Any) -> None:
        lab.run(seeds=[7, 8, 9])
        claims = {"better": "effect(encoder.image_size, 16 -> 32, task=easy_vqa) > 0"}
        lab.run("texts", primary_metric="held_out_text.perplexity", claims=claims)
        assert lab.standing("texts") == "repeated"

    def test_the_same_words_about_another_metric_of_a_task_are_another_claim(
        self, lab: Any
    ) -> None:
        good = {"good": "score(base) > 60"}
        lab.run(claims=good)
        lab.run(claims=good, primary_metric="easy_vqa.oracle_accuracy")
        (verdict,) = lab.results().verdicts
        assert (verdict.verdict, verdict.reason) == ("undecided", "0 of 3 seeds")
        assert lab.standing(claim="good") == "exploratory"

    def test_claims_on_another_task_are_another_question(self, lab: Any) -> None:
        reads = {"reads": "score(base, task=held_out_text) < 90"}
        lab.register("texts", primary_metric="held_out_text.perplexity", claims=reads)
        lab.run()
        assert lab.standing() == "registered"

    def test_a_plan_that_is_taken_away_is_told(self, lab: Any) -> None:
        lab.run(seeds=[7, 8, 9])
        (plan,) = (lab.folder / "store" / "studies" / "sizes").glob("*/plan.json")
        plan.unlink()
        lab.run()
        assert "lacks a file" in lab.results().unknown_registrations[0]

    def test_a_registration_that_comes_after_the_last_result_takes_nothing_away(
        self, lab: Any
    ) -> None:
        lab.run()
        lab.run("later", seeds=[5, 6, 7])
        assert lab.standing() == "registered"


class TestFreshSeeds:
    FRESH: ClassVar = {"from": "fresh", "count": 3}

    def drawn(self, lab: Any, study: str = "sizes", **keys: Any) -> Plan:
        lab.plan(study, seeds=self.FRESH, **keys)
        return api.plan(lab.folder / f"{study}.yaml", store=lab.store.root)

    def test_a_study_that_is_gone_on_with_keeps_its_seeds(self, lab: Any) -> None:
        first = self.drawn(lab)
        lab.store.register(first)
        lab.finish(first, seeds=1)
        assert self.drawn(lab).seeds == first.seeds
        assert self.drawn(lab).hash == first.hash

    def test_a_set_that_is_drawn_again_is_counted_and_told(self, lab: Any) -> None:
        first = self.drawn(lab)
        lab.store.register(first)
        lab.finish(first)
        for study, claim in (("renamed", BETTER), ("sizes", f"{BETTER} by 1e-9")):
            again = self.drawn(lab, study, claims={"better": claim})
            assert not set(again.seeds) & set(first.seeds)
            lab.store.register(again)
            lab.finish(again)
        assert [again.fresh_set, first.fresh_set] == [2, 0]
        assert lab.standing() == "repeated"
        assert "the third set of results" in lab.told()
