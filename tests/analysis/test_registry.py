"""Ways round a registration, and the honest ways beside them: each claim has its due standing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from ablations.plan import Plan, make_plan
from ablations.study import load_study
from analysis.caveats import caveats
from analysis.results import StudyResults, load_results
from mm1 import api
from mm1_jax.stage import ResultRow
from sweeps import store as store_module
from sweeps.store import Store

BETTER = "effect(encoder.image_size, 16 -> 32) > 0"
RECIPE = {
    "training": {"steps": 100, "batch_size": 4},
    "evaluation": {"easy_vqa": {}, "held_out_text": {}},
}


class Lab:
    """A store, and a clock that moves on by a minute with whatever is written."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.store = folder, Store(folder / "store")
        minutes = itertools.count()
        monkeypatch.setattr(
            store_module,
            "_now",
            lambda: "2026-11-02T{:02d}:{:02d}:00+00:00".format(*divmod(next(minutes), 60)),
        )

    def plan(self, study: str = "sizes", recipe: dict[str, Any] | None = None, **keys: Any) -> Plan:
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe or RECIPE), encoding="utf-8")
        file = {
            "study": study,
            "question": "Is it better?",
            "base": "recipe.yaml",
            "design": {"one_at_a_time": {"encoder.image_size": [32, 16]}},
            "seeds": [0, 1, 2],
            "primary_metric": "easy_vqa.accuracy",
            "claims": {"better": BETTER},
            **keys,
        }
        path = self.folder / f"{study}.yaml"
        path.write_text(yaml.safe_dump(file), encoding="utf-8")
        return make_plan(load_study(path))

    def register(self, *args: Any, **keys: Any) -> Plan:
        plan = self.plan(*args, **keys)
        self.store.register(plan)
        return plan

    def finish(self, plan: Plan, seeds: int | None = None) -> None:
        """Results of a plan's first seeds: the larger image is better by about 10."""
        for trial in plan.trials:
            if seeds is not None and trial.seed not in plan.seeds[:seeds]:
                continue
            level = (60.0 if "16" in trial.arm else 70.0) + trial.seed % 7 * 0.3
            self._done(plan, trial.train, [ResultRow("training", "loss", 1.0, step=1)])
            for one in trial.evaluations:
                metric = "accuracy" if one.task == "easy_vqa" else "perplexity"
                value = level + sum(f"{trial.arm} {trial.seed}".encode()) % 5 * 0.1
                row = ResultRow(one.task, metric, value, "test", one.shots, one.condition, 9, 10)
                self._done(plan, one.stage, [row])

    def _done(self, plan: Plan, stage: str, rows: list[ResultRow]) -> None:
        if not self.store.is_done(stage):
            attempt = self.store.begin(plan.stages[stage])
            self.store.finish(attempt, rows, {"seconds": 0.5})

    def run(self, *args: Any, **keys: Any) -> Plan:
        plan = self.register(*args, **keys)
        self.finish(plan)
        return plan

    def results(self, study: str = "sizes") -> StudyResults:
        return load_results(study, self.store)

    def standing(self, study: str = "sizes", claim: str = "better") -> str:
        return self.results(study).standing(claim)

    def told(self, study: str = "sizes", claim: str = "better") -> str:
        results = self.results(study)
        verdict = next(one for one in results.verdicts if one.name == claim)
        return " ".join(caveats(results, verdict))


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


class TestHonestWays:
    def test_registered_before_its_results(self, lab: Lab) -> None:
        lab.run()
        assert lab.standing() == "registered"
        assert lab.told() == ""

    def test_a_study_about_other_arms_is_nothing_to_it(self, lab: Lab) -> None:
        tokens = {"one_at_a_time": {"connector.tokens": [4, 9]}}
        lab.run("types", design=tokens, seeds=[5, 6, 7], claims={})
        lab.run()
        assert lab.standing() == "registered"

    def test_a_claim_that_was_mended_before_any_result(self, lab: Lab) -> None:
        lab.register(claims={"better": BETTER + " by 500"})
        lab.run()
        assert lab.standing() == "registered"

    def test_a_claim_added_later_leaves_the_others_their_standing_and_family(
        self, lab: Lab
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

    def test_another_name_of_the_claim_or_the_study_is_no_other_claim(self, lab: Lab) -> None:
        lab.run()
        lab.run("renamed", claims={"is-better": f" {BETTER} "})
        assert lab.standing("renamed", "is-better") == "registered"


class TestWaysRound:
    def test_other_seeds_under_the_same_name(self, lab: Lab) -> None:
        for first in (0, 10, 20):
            lab.run(seeds=[first, first + 1, first + 2])
        assert lab.standing() == "repeated"
        assert "the third set of results, one of 3 registrations" in lab.told()
        assert "up to 15 %" in lab.told()
        assert "seeds 10 to 12; claims better): better: supported" in lab.told()

    def test_other_seeds_under_another_name(self, lab: Lab) -> None:
        lab.run()
        lab.run("fresh-start", seeds=[10, 11, 12])
        assert lab.standing("fresh-start") == "repeated"
        assert lab.standing() == "registered"  # it was first

    def test_more_seeds_after_looking(self, lab: Lab) -> None:
        lab.run()
        lab.run(seeds=[0, 1, 2, 3, 4])
        assert lab.standing() == "exploratory"
        lab.run("softly", seeds=[0, 1, 2, 3, 4, 5])
        assert lab.standing("softly") == "partly known"

    @pytest.mark.parametrize("eps", [1.0001e-8, 1e-8])
    def test_the_best_of_many_arms_with_a_config_that_hardly_differs(
        self, lab: Lab, eps: float
    ) -> None:
        sizes = {"one_at_a_time": {"encoder.image_size": [32, 16, 24, 40, 48]}}
        lab.run("many", design=sizes, claims={})
        near = {**RECIPE, "optimizer": {"eps": eps}}
        lab.run("picked", recipe=near, seeds=[3, 4, 5])
        assert lab.standing("picked") == "repeated"
        assert "many" in lab.told("picked")

    def test_a_config_that_does_differ_is_another_study(self, lab: Lab) -> None:
        lab.run()
        lab.run("faster", recipe={**RECIPE, "optimizer": {"peak_lr": 0.01}}, seeds=[3, 4, 5])
        assert lab.standing("faster") == "registered"

    def test_a_task_more_does_not_make_other_arms(self, lab: Lab) -> None:
        lab.run()
        wider = {**RECIPE, "evaluation": {"easy_vqa": {}}}
        lab.run("narrow", recipe=wider, seeds=[3, 4, 5])
        assert lab.standing("narrow") == "repeated"

    def test_a_ladder_of_seeds_registered_before_results(self, lab: Lab) -> None:
        ladder = {size: lab.register(f"rung-{size}", seeds=list(range(size))) for size in (3, 5, 8)}
        for plan in ladder.values():
            lab.finish(plan)
        assert {lab.standing(f"rung-{size}") for size in ladder} == {"repeated"}

    def test_many_sets_of_claims_one_reported(self, lab: Lab) -> None:
        texts = [f"{BETTER} by {margin}" for margin in (0, 5, 9)]
        plans = [lab.register(claims={"better": text}) for text in texts]
        lab.finish(plans[0])
        assert lab.standing() == "registered"  # the last: it was fixed before there was a result
        lab.register(claims={"better": texts[0]})  # the first again, after looking
        assert lab.standing() == "repeated"
        assert "one of 2 registrations" in lab.told() or "one of 3 registrations" in lab.told()

    def test_one_study_a_claim(self, lab: Lab) -> None:
        for number in range(3):
            plan = lab.register(f"s{number}", claims={"better": f"{BETTER} by {number}"})
        lab.finish(plan)
        assert {lab.standing(f"s{number}") for number in range(3)} == {"repeated"}

    def test_claims_left_out_after_looking_still_count(self, lab: Lab) -> None:
        many = {f"c{margin}": f"{BETTER} by {margin}" for margin in range(9)}
        lab.run(claims={"better": BETTER, **many})
        lab.register()
        (better,) = lab.results().verdicts
        assert lab.standing() == "registered"
        assert better.p_adjusted is not None
        assert better.p_value is not None
        assert better.p_adjusted > better.p_value
        assert "over the 10 claims" in lab.told()

    def test_results_of_a_run_that_was_not_finished_were_seen_too(self, lab: Lab) -> None:
        lab.finish(lab.register(seeds=[7, 8, 9]), seeds=2)
        lab.run()
        assert lab.standing() == "repeated"

    def test_a_registration_that_comes_after_the_last_result_takes_nothing_away(
        self, lab: Lab
    ) -> None:
        lab.run()
        lab.run("later", seeds=[5, 6, 7])
        assert lab.standing() == "registered"


class TestFreshSeeds:
    FRESH: ClassVar = {"from": "fresh", "count": 3}

    def drawn(self, lab: Lab, study: str = "sizes", **keys: Any) -> Plan:
        lab.plan(study, seeds=self.FRESH, **keys)
        return api.plan(lab.folder / f"{study}.yaml", store=lab.store.root)

    def test_a_study_that_is_gone_on_with_keeps_its_seeds(self, lab: Lab) -> None:
        first = self.drawn(lab)
        lab.store.register(first)
        lab.finish(first, seeds=1)
        assert self.drawn(lab).seeds == first.seeds
        assert self.drawn(lab).hash == first.hash

    def test_a_set_that_is_drawn_again_is_counted_and_told(self, lab: Lab) -> None:
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
