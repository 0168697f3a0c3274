"""Ways round a registration, and the honest ways beside them: each claim has its due standing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ablations.errors import UserError
from ablations.plan import Plan
from analysis.compare import comparison
from mm1 import api
from sweeps import store as store_module
from sweeps.store import Store

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
        assert "lacks a file" in lab.results().gaps[0]

    def test_a_registration_that_comes_after_the_last_result_takes_nothing_away(
        self, lab: Any
    ) -> None:
        lab.run()
        lab.run("later", seeds=[5, 6, 7])
        assert lab.standing() == "registered"
        assert words_beside(lab) == ["asked again since"]
        assert "later (" in lab.told()
        assert "better: supported" in lab.told()


def words_beside(lab: Any, study: str = "sizes") -> list[str]:
    (claim,) = comparison(lab.results(study)).claims
    return [caveat.word for caveat in claim.caveats]


class TestQuestionsAskedInPieces:
    def test_arms_that_were_looked_at_in_studies_of_their_own(self, lab: Any) -> None:
        near = {**RECIPE, "optimizer": {"eps": 1.00001e-8}, "encoder": {"image_size": 40}}
        for study, size in (("a", 16), ("b", 32)):
            arms = {"arms": {"one": {"encoder.image_size": size}, "two": {"connector.tokens": 9}}}
            lab.run(study, recipe=near, design=arms, claims={})
        lab.run()
        assert lab.standing() == "repeated"
        assert "a (" in lab.told()
        assert "b (" in lab.told()

    def test_an_arm_alone_that_others_had_as_well_takes_nothing_away(self, lab: Any) -> None:
        tokens = {"one_at_a_time": {"connector.tokens": [4, 9]}}
        for number in range(3):
            lab.run(f"tokens-{number}", design=tokens, seeds=[5, 6, 7 + number], claims={})
        lab.run()
        assert lab.standing() == "registered"
        assert lab.told() == ""

    def test_the_same_task_with_other_shots(self, lab: Any) -> None:
        for number, shots in enumerate((4, 2, 0)):
            recipe = {**RECIPE, "evaluation": {"easy_vqa": {"shots": [shots]}}}
            lab.run(f"s{number}", recipe=recipe, seeds=[10 * number + seed for seed in range(3)])
        assert lab.standing("s2") == "repeated"
        assert "the third set of results" in lab.told("s2")

    def test_a_family_is_not_made_smaller_by_registering_its_claims_elsewhere(
        self, lab: Any
    ) -> None:
        claims = {
            "better": BETTER,
            "small": "effect(encoder.image_size, 24 -> 40) > 0",
            "large": "effect(encoder.image_size, 48 -> 56) > 0",
        }

        def sizes(*levels: int) -> dict[str, Any]:
            return {"one_at_a_time": {"encoder.image_size": list(levels)}}

        plan = lab.register(design=sizes(32, 16, 24, 40, 48, 56), claims=claims)
        lab.register("x", design=sizes(32, 24, 40), claims={"small": claims["small"]})
        lab.register("y", design=sizes(32, 48, 56), claims={"large": claims["large"]})
        lab.finish(plan)
        families = [set(history.family) for history in lab.results().histories.values()]
        assert families == [set(claims)] * 3

    def test_a_claim_taken_out_of_its_family_before_results_tells_of_it(self, lab: Any) -> None:
        claims = {"better": BETTER, "tiny": "effect(encoder.image_size, 24 -> 32) > 0"}
        design = {"one_at_a_time": {"encoder.image_size": [32, 16, 24]}}
        lab.register("all", design=design, claims=claims)
        lab.run("single", design=design)
        assert lab.standing("single") == "repeated"
        assert "all (" in lab.told("single")

    def test_the_same_names_of_other_arms_are_another_claim(self, lab: Any) -> None:
        def arms(one: int, two: int) -> dict[str, Any]:
            return {"arms": {"a": {"encoder.image_size": one}, "b": {"encoder.image_size": two}}}

        better = {"better": "score(a) > score(b)"}
        lab.run("one", design=arms(16, 32), claims=better)
        lab.run("two", design=arms(32, 16), claims=better)
        (two,) = lab.results("two").verdicts
        (one,) = lab.results("one").verdicts
        assert two.effect == pytest.approx(-one.effect)
        assert lab.standing("two") == "exploratory"


class TestConfigsThatHardlyDiffer:
    @pytest.mark.parametrize(
        "field", [{"optimizer": {"eps": 1e-7}}, {"language_model": {"dropout": 1e-12}}]
    )
    def test_tiny_numbers_are_near_whatever_their_ratio(
        self, lab: Any, field: dict[str, Any]
    ) -> None:
        lab.run("first", recipe={**RECIPE, **field}, seeds=[5, 6, 7], claims={})
        lab.run()
        assert lab.standing() == "repeated"

    # A head of 16 is what follows from the width anyway: the two are the same model.
    SAME: ClassVar = {**RECIPE, "language_model": {"head_width": 16}}

    def test_the_contrast_on_another_config_is_told_with_what_differs(self, lab: Any) -> None:
        lab.run("first", seeds=[5, 6, 7], claims={})
        lab.run(recipe=self.SAME)
        assert lab.standing() == "registered"
        assert words_beside(lab) == ["seen on other configs"]
        assert "language_model.head_width: None instead of 16" in lab.told()

    def test_a_config_that_has_the_same_luck_with_the_same_seeds_is_no_other(
        self, lab: Any
    ) -> None:
        lab.run("first", claims={})
        lab.run(recipe=self.SAME)
        assert lab.standing() == "repeated"
        assert "head_width: None instead of 16, with the same luck" in lab.told()

    def test_a_config_that_has_luck_of_its_own_is(
        self, lab: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lab.run("first", claims={})
        rows, luck = lab.rows, iter([0.7, -0.4, 0.1, 0.9, -0.8, 0.2, -0.6, 0.5] * 9)
        monkeypatch.setattr(
            lab, "rows", lambda task, level, *more: rows(task, level + next(luck), *more)
        )
        lab.run(recipe={**RECIPE, "optimizer": {"peak_lr": 0.01}})
        assert lab.standing() == "registered"
        assert words_beside(lab) == ["seen on other configs"]

    def test_a_single_arm_with_the_same_luck_counts_though_more_differs(self, lab: Any) -> None:
        good, seeds = {"better": "score(base) > 60"}, [0, 1, 2, 3, 4]
        lab.run("first", claims={}, seeds=seeds)
        nothing = {"divergence": {"most": 99}, "steps": 100, "batch_size": 4}
        recipe = {
            **self.SAME,
            "training": nothing,
            "data": {"embedded": {"captions": {"rich": 0.5}}},
        }
        lab.run(recipe=recipe, claims=good, seeds=seeds)
        assert lab.standing() == "repeated"

    def test_other_weights_in_a_folder_of_the_same_name_make_another_config(self, lab: Any) -> None:
        for study, content, first in (("one", "a" * 32, 0), ("two", "b" * 32, 10)):
            plan = lab.plan(study, seeds=[first, first + 1, first + 2])
            main = plan.stages[plan.main(plan.trials[0])]
            pinned = main.work.model_copy(update={"pinned": True})
            weights = dataclasses.replace(main, id=content, work=pinned)
            trials = [
                dataclasses.replace(trial, stages={"encoder": content, **trial.stages})
                for trial in plan.trials
            ]
            stages = {content: weights, **plan.stages}
            plan = plan.model_copy(update={"trials": tuple(trials), "stages": stages})
            lab.store.register(plan)
            lab.finish(plan)
        assert lab.standing("two") == "registered"
        assert f"pinned encoder: {'a' * 32} instead of {'b' * 32}" in lab.told("two")

    def test_it_is_nothing_to_the_one_that_was_first(self, lab: Any) -> None:
        lab.run()
        lab.run("later", recipe={**RECIPE, "optimizer": {"peak_lr": 0.01}}, seeds=[3, 4, 5])
        assert lab.told() == ""
        assert words_beside(lab, "later") == ["seen on other configs"]

    def test_a_single_arm_is_told_only_where_little_differs(self, lab: Any) -> None:
        good = {"better": "score(base) > 60"}
        lab.run("near", recipe={**RECIPE, "optimizer": {"b2": 0.5}}, claims={})
        far = {**RECIPE, "optimizer": {"b1": 0.5, "b2": 0.5, "clip_norm": 9.0}}
        lab.run("far", recipe=far, claims={})
        lab.run(claims=good, seeds=[5, 6, 7])
        assert "near (" in lab.told()
        assert "far (" not in lab.told()


class TestRecordsThatAreGone:
    """Whoever takes away what could be seen leaves a gap, and the gap stands beside the verdict."""

    def files(self, lab: Any, pattern: str) -> list[Path]:
        found = list((lab.folder / "store").glob(pattern))
        assert found
        return found

    def test_results_of_another_store_that_are_brought_in_after_registering(self, lab: Any) -> None:
        lab.run(claims={})
        stages = self.files(lab, "stages")[0]
        stages.rename(lab.folder / "kept")
        shutil.rmtree(lab.folder / "store")
        lab.store = Store(lab.folder / "store")
        lab.register()
        shutil.copytree(lab.folder / "kept", stages)
        assert lab.standing() == "exploratory"

    @pytest.mark.parametrize("files", ["*/registration.json", "*/plan.json", "**/*.json"])
    def test_files_of_another_registration(self, lab: Any, files: str) -> None:
        lab.run("first", seeds=[7, 8, 9])
        for path in self.files(lab, f"studies/first/{files}"):
            path.unlink()
        lab.run()
        assert words_beside(lab) == ["gaps in the record"]

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "{}",
            lambda text: '{"schema_version": 1}',
            lambda text: text.replace("easy_vqa", "other").replace("held_out_text", "more"),
            lambda text: json.dumps({**json.loads(text), "trials": []}),
        ],
    )
    def test_an_edited_plan(self, lab: Any, change: Callable[[str], str]) -> None:
        lab.run("first", seeds=[7, 8, 9])
        for path in self.files(lab, "studies/first/*/plan.json"):
            path.write_text(change(path.read_text("utf-8")), "utf-8")
        lab.run()
        assert words_beside(lab) == ["gaps in the record"]

    def test_a_record_without_its_checksum_is_damaged(self, lab: Any) -> None:
        lab.run(claims={})
        lab.register()
        for path in self.files(lab, "studies/sizes/*/registration.json"):
            record = json.loads(path.read_text("utf-8"))
            del record["checksum"]
            path.write_text(json.dumps({**record, "known_stages": []}), "utf-8")
        with pytest.raises(UserError, match="it has no checksum"):
            lab.results()

    def test_a_whole_registration(self, lab: Any) -> None:
        lab.run(seeds=[7, 8, 9])
        lab.run("other", seeds=[17, 18, 19])
        (first,) = self.files(lab, "studies/sizes/*-*")
        lab.run()
        shutil.rmtree(first)
        shutil.rmtree(lab.folder / "store/studies/other")
        assert words_beside(lab) == ["gaps in the record"]
        notices = comparison(lab.results()).notices
        assert "an earlier registration of its name is gone" in notices
        assert any(notice.endswith("is not known: other") for notice in notices)

    def test_results_of_another_registration_that_somebody_saw(self, lab: Any) -> None:
        lab.run("first", seeds=[7, 8, 9])
        lab.results("first").looked("mm1 compare")
        shutil.rmtree(lab.folder / "store/stages")
        lab.store = Store(lab.folder / "store")
        lab.run()
        assert lab.standing() == "repeated"

    def test_a_damaged_result_may_have_been_seen(self, lab: Any) -> None:
        lab.run("first", seeds=[7, 8, 9])
        for path in self.files(lab, "stages/*/*/done.json"):
            path.write_text("{", "utf-8")
        lab.run()
        assert lab.standing() == "repeated"

    def test_own_results_that_were_seen_and_made_anew(self, lab: Any) -> None:
        plan = lab.run()
        lab.results().looked("mm1 compare")
        shutil.rmtree(lab.folder / "store/stages")
        lab.store = Store(lab.folder / "store")
        assert "that mm1 compare showed on 2026-11-02" in lab.told()
        lab.finish(plan)
        assert words_beside(lab) == ["gaps in the record"]

    def test_results_that_were_out_of_the_way_while_registering(self, lab: Any) -> None:
        lab.run(claims={})
        stages = lab.folder / "store/stages"
        stages.rename(lab.folder / "kept")
        lab.store = Store(lab.folder / "store")
        lab.register()
        (lab.folder / "kept").rename(stages)
        assert lab.standing() == "exploratory"

    def test_a_look_takes_nothing_away(self, lab: Any) -> None:
        plan = lab.register()
        lab.finish(plan, seeds=1)
        lab.results().looked("mm1 compare")
        lab.finish(plan)
        lab.results().looked("mm1 compare")
        assert lab.told() == ""

    def test_a_clock_that_was_turned_back(self, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        now = store_module.utc_now
        with monkeypatch.context() as ahead:
            ahead.setattr(store_module, "utc_now", lambda: "2027-01-01T00:00:00.000+00:00")
            lab.run("first", seeds=[7, 8, 9])
        assert store_module.utc_now is now
        lab.run()
        assert lab.standing() == "repeated"
        assert "the clock was turned back: first" in lab.told()

    def test_curves_that_were_there_before_the_claim(self, lab: Any) -> None:
        plan = lab.register(claims={"better": "effect(encoder.image_size, 32 -> 16) > 0"})
        for trial in plan.trials:
            scratch = lab.store.scratch(plan.main(trial))
            scratch.mkdir(parents=True)
            line = '{"step": 90, "time": 1.0, "loss": 2.5}\n'
            (scratch / "reports.jsonl").write_text(line, "utf-8")
        lab.run()
        assert lab.standing() == "partly known"

    def test_a_study_that_goes_on_after_its_curves_were_seen_keeps_its_standing(
        self, lab: Any
    ) -> None:
        plan = lab.register()
        scratch = lab.store.scratch(plan.trials[0].stages["multimodal"])
        scratch.mkdir(parents=True)
        (scratch / "reports.jsonl").write_text('{"step": 9, "time": 1.0, "loss": 2}\n', "utf-8")
        lab.run()
        assert lab.told() == ""


def test_an_alpha_above_the_usual_stands_beside_the_verdict(lab: Any) -> None:
    lab.run(alpha=0.4)
    assert words_beside(lab) == ["alpha 40 %"]


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
