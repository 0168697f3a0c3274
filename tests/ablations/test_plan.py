"""What a study comes to: trials, shared stages, identities, costs, warnings."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from ablations.conditions import quantities
from ablations.contrasts import ScoreKey
from ablations.deciding import conditions
from ablations.errors import UserError
from ablations.plan import Plan, make_plan, plan_of_one
from mm1_jax.config.recipe import Recipe
from mm1_jax.scale import costs
from mm1_jax.scale.costs import SECONDS_PER_EVALUATION
from mm1_jax.workload import RECIPE

SIZES = {"one_at_a_time": {"encoder.image_size": [32, 16]}}


def trainings(plan, arm="base"):
    return [plan.main(trial) for trial in plan.trials if trial.arm == arm]


def evaluations(plan, arm="base"):
    (first,) = [t for t in plan.trials if (t.arm, t.seed) == (arm, plan.seeds[0])]
    return plan.answers(first)


class TestTrials:
    def test_order_is_seed_major_with_the_base_first(self, studies):
        plan = studies.plan()
        assert [(t.seed, t.arm) for t in plan.trials] == [
            (seed, arm) for seed in range(3) for arm in ("base", "encoder.image_size=16")
        ]

    def test_a_trial_ends_in_one_evaluation_per_task_shots_and_condition(self, studies):
        studies.recipe["evaluation"]["easy_vqa"]["shots"] = [0, 4]
        assert set(evaluations(studies.plan())) == {
            ("easy_vqa", 0, "intact"),
            ("easy_vqa", 0, "shuffled"),
            ("easy_vqa", 4, "intact"),
            ("easy_vqa", 4, "shuffled"),
            ("emoji_caption", 0, "intact"),
            ("held_out_text", 0, "intact"),
        }

    def test_an_average_is_of_metrics_of_which_more_is_better(self, studies):
        studies.recipe["evaluation"]["average"] = ["easy_vqa", "held_out_text"]
        with pytest.raises(UserError, match=r"average: of held_out_text.perplexity more is not"):
            studies.plan()

    def test_evaluations_read_the_training_of_their_own_seed(self, studies):
        plan = studies.plan()
        for trial in plan.trials:
            train = plan.main(trial)
            for stage in plan.answers(trial).values():
                assert plan.stages[stage].inputs == {"model": train}
                assert plan.stages[stage].seed == plan.stages[train].seed == trial.seed

    def test_a_claim_adds_the_evaluation_it_needs_to_its_arm_only(self, studies):
        studies.recipe["evaluation"] = {"easy_vqa": {}}
        claims = {
            "sees": "score(base) > score(base, condition=shuffled)",
            "reads": "score(encoder.image_size=16, task=held_out_text) < 100",
            "learns": "score(base, shots=4) > score(base)",
        }
        plan = studies.plan(claims=claims)
        assert set(evaluations(plan)) == {
            ("easy_vqa", 0, "intact"),
            ("easy_vqa", 0, "shuffled"),
            ("easy_vqa", 4, "intact"),
        }
        assert set(evaluations(plan, "encoder.image_size=16")) == {
            ("easy_vqa", 0, "intact"),
            ("held_out_text", 0, "intact"),
        }

    def test_a_claim_without_shots_means_the_recipes_first(self, studies):
        studies.recipe["evaluation"]["easy_vqa"]["shots"] = [4, 0]
        plan = studies.plan(claims={"a": "score(base) > blind(easy_vqa)"})
        assert len(evaluations(plan)) == 6

    def test_null_arms_differ_from_the_base_in_their_first_weights_only(self, studies):
        plan = studies.plan(null_arms=2)
        assert plan.null_arms == ("null=1", "null=2")
        base, null = plan.arms[0], plan.arms[-1]
        assert null.levels == base.levels
        assert null.config["seeds"].pop("initialisation_salt") == 2
        assert base.config["seeds"].pop("initialisation_salt") == 0
        assert null.config == base.config
        assert len({*trainings(plan), *trainings(plan, "null=1"), *trainings(plan, "null=2")}) == 9

    def test_claims_cannot_name_null_arms(self, studies):
        with pytest.raises(UserError, match="no factor or option 'null'"):
            studies.plan(null_arms=1, claims={"a": "score(null=1) > 3"})

    def test_more_than_ten_thousand_trials_must_be_meant(self, studies):
        steps = {"factorial": {"training.steps": list(range(50, 100)), "encoder.layers": [1, 2]}}
        with pytest.raises(UserError, match=r"about 10,100 trials, more than 10,000; say --yes"):
            studies.plan(design=steps, seeds=101)

    def test_many_trials_go_through_when_they_are_meant(self, studies):
        studies.recipe["evaluation"] = {"easy_vqa": {}}
        assert len(studies.plan(seeds=5_001, many=True).trials) == 10_002

    def test_a_huge_design_is_refused_before_it_is_expanded(self, studies):
        factors = ("encoder.layers", "encoder.width", "training.steps", "optimizer.warmup_steps")
        huge = {"factorial": {factor: list(range(1, 1_000)) for factor in factors}}
        for many in (False, True):
            with pytest.raises(UserError, match=r"has about [\d,]+ trials, and a study at most"):
                studies.plan(design=huge, many=many)


class TestOfficialTasks:
    """Folders of the user's: what they hold decides, not where they are."""

    @pytest.fixture
    def official(self, studies):
        """Studies whose recipe asks VQAv2's questions, which lie in `one` and in `other`."""
        for name in ("one", "other"):
            for split in ("test", "train"):
                place = studies.folder / name / split
                place.mkdir(parents=True)
                (place / "v2_mscoco_annotations.json").write_text(f'["{split}"]', encoding="utf-8")
        self.ask(studies, "one")
        return studies

    @staticmethod
    def ask(studies, name, **settings):
        folder = str(studies.folder / name)
        asked = {"folder": folder, "shots": [0, 4], "conditions": ["intact", "no_image"]}
        studies.recipe["evaluation"]["official"] = {"vqav2": asked | settings}

    @staticmethod
    def stages(plan):
        return {key: stage for key, stage in evaluations(plan).items() if key[0] == "vqav2"}

    def test_each_number_of_shots_and_condition_is_a_stage(self, official):
        plan = official.plan()
        assert set(self.stages(plan)) == {
            ("vqav2", shots, condition) for shots in (0, 4) for condition in ("intact", "no_image")
        }
        config = plan.stages[self.stages(plan)["vqav2", 4, "intact"]].config["official"]
        assert config["prompt"] == "Question: {question} Short answer:"
        assert len(config["content"]) == 65

    def test_the_same_files_elsewhere_are_the_same_evaluation(self, official):
        one = official.plan()
        self.ask(official, "other")
        other = official.plan()
        assert evaluations(one) == evaluations(other)
        assert one.hash == other.hash

    @pytest.mark.parametrize("split", ["test", "train"])
    def test_other_annotations_are_another_evaluation_of_the_same_training(self, official, split):
        one = official.plan()
        file = official.folder / "one" / split / "v2_mscoco_annotations.json"
        file.write_text('["other answers"]', encoding="utf-8")
        other = official.plan()
        assert trainings(one) == trainings(other)
        assert set(self.stages(one).values()).isdisjoint(self.stages(other).values())
        kept = ("emoji_caption", 0, "intact")
        assert evaluations(one)[kept] == evaluations(other)[kept]

    @pytest.mark.parametrize("change", [{"prompt": "Q: {question}"}, {"stop": []}, {"items": 3}])
    def test_another_way_of_asking_is_another_evaluation(self, official, change):
        one = official.plan()
        self.ask(official, "one", **change)
        assert set(self.stages(one).values()).isdisjoint(self.stages(official.plan()).values())

    @pytest.mark.parametrize(
        ("official_tasks", "message"),
        [
            ({"vqa2": {"folder": "one"}}, "no official task 'vqa2'; did you mean 'vqav2'"),
            ({"vqav2": {"folder": "nowhere"}}, "vqav2: no folder nowhere"),
            ({"vqav2": {"folder": ".", "train": "trian"}}, "vqav2: train: no 'trian' in "),
            (
                {"vqav2": {"folder": ".", "prompt": "{nope}"}},
                r"vqav2\.prompt.*has an unknown \{nope\}; valid: \{prompt\}, \{question\}",
            ),
            ({"vqav2": {}}, "evaluation.official.vqav2.folder"),
            ({"vqav2": {"folder": "ablations"}}, "ablations holds no annotations: expected files"),
            ({"piqa": {"folder": ".", "conditions": ["shuffled"]}}, "piqa asks about no images"),
        ],
    )
    def test_mistakes_are_told(self, studies, official_tasks, message):
        studies.recipe["evaluation"]["official"] = official_tasks
        with pytest.raises(UserError, match=message):
            studies.plan()

    def test_a_claim_on_a_task_without_a_folder_says_where_to_write_it(self, studies):
        with pytest.raises(UserError, match=r"evaluation\.official\.vqav2\.folder"):
            studies.plan(claims={"a": "score(base, task=vqav2) > 3"})


class TestAverage:
    """The mean of several tasks, by the number of demonstrations."""

    @pytest.fixture
    def averaged(self, studies):
        studies.recipe["evaluation"] |= {
            "average": ["easy_vqa", "emoji_caption"],
            "easy_vqa": {"shots": [0, 4]},
            "emoji_caption": {"shots": [0, 4]},
        }
        return studies

    def test_a_study_may_be_about_it(self, averaged):
        claims = {
            "bigger": "effect(encoder.image_size, 16 -> 32) > 0",
            "learns": "score(base) > score(base, shots=0) by 3",
        }
        plan = averaged.plan(primary_metric="average.4_shot", claims=claims)
        found = conditions(plan)
        (contrast,) = quantities(found["bigger"])
        assert contrast.weights == {
            ScoreKey(arm, task, metric, 4, "intact"): weight
            for task, metric in (("easy_vqa", "accuracy"), ("emoji_caption", "cider"))
            for arm, weight in (("base", 0.5), ("encoder.image_size=16", -0.5))
        }
        (contrast,) = quantities(found["learns"])
        assert {key.shots: weight for key, weight in contrast.weights.items()} == {4: 0.5, 0: -0.5}

    def test_a_claim_adds_the_evaluations_that_it_averages(self, averaged):
        plan = averaged.plan(claims={"a": "score(base, task=average, shots=8) > 3"})
        assert {("easy_vqa", 8, "intact"), ("emoji_caption", 8, "intact")} <= set(evaluations(plan))
        by_name = averaged.plan(claims={"a": "score(base, task=average, metric=8_shot) > 3"})
        assert conditions(by_name) == conditions(plan)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"primary_metric": "average.8_shot"}, "does not ask task 'easy_vqa' with 8 shots"),
            ({"primary_metric": "average.score"}, "it is called 0_shot"),
            (
                {"claims": {"a": "score(base, task=average, metric=4_shot, shots=8) > 3"}},
                "metric=4_shot and shots=8; say one of them",
            ),
        ],
    )
    def test_mistakes_are_told(self, averaged, change, message):
        with pytest.raises(UserError, match=message):
            averaged.plan(**change)

    def test_an_average_of_nothing_is_told(self, studies):
        with pytest.raises(UserError, match=r"evaluation\.average of the base names no tasks"):
            studies.plan(primary_metric="average.0_shot")
        studies.recipe["evaluation"]["average"] = ["easy_vqaa"]
        with pytest.raises(UserError, match="average: task 'easy_vqaa' is not evaluated"):
            studies.plan()
        studies.recipe["evaluation"]["average"] = ["easy_vqa", "easy_vqa"]
        with pytest.raises(UserError, match="average: task 'easy_vqa' is named twice"):
            studies.plan()


class TestFreshSeeds:
    FRESH = {"from": "fresh", "count": 3}  # noqa: RUF012

    def test_they_are_the_same_each_time_and_extend(self, studies):
        seeds = studies.plan(seeds=self.FRESH).seeds
        assert seeds == studies.plan(seeds=self.FRESH).seeds
        assert len(set(seeds)) == 3
        assert studies.plan(seeds={"from": "fresh", "count": 2}).seeds == seeds[:2]

    def test_another_study_or_a_changed_claim_gets_others(self, studies):
        found = [
            studies.plan(seeds=self.FRESH, study=name, claims={"a": claim}).seeds
            for name in ("one", "two")
            for claim in ("score(base) > 60", "score(base) > 61")
        ]
        assert len({seed for seeds in found for seed in seeds}) == 12

    def test_a_set_more_on_record_gives_others(self, studies):
        study = studies.load(seeds=self.FRESH)
        sets = [make_plan(study, fresh_set=number).seeds for number in range(3)]
        assert len({seed for seeds in sets for seed in seeds}) == 9
        named = studies.load(seeds=[1, 2])
        assert make_plan(named, fresh_set=5).hash == make_plan(named).hash


class TestIdentity:
    def test_names_labels_and_the_question_change_no_stage(self, studies):
        plan = studies.plan()
        named = {"one_at_a_time": {"size": {"tiny": {"encoder.image_size": 16}}}}
        renamed = studies.plan(study="other", question="Another?", design=named)
        labelled = studies.plan(labels={"encoder.image_size=16": "small pictures", "base": "ours"})
        assert set(plan.stages) == set(renamed.stages) == set(labelled.stages)
        assert [arm.label for arm in labelled.arms] == ["ours", "small pictures"]

    def test_what_can_mislead_a_reader_is_part_of_the_meaning(self, studies):
        plan = studies.plan()
        labelled = studies.plan(labels={"encoder.image_size=16": "the usual size"})
        asked = studies.plan(question="Why is it better?")
        assert len({plan.hash, labelled.hash, asked.hash}) == 3
        assert studies.plan(question="Does  it\nwork?").hash == plan.hash

    def test_what_is_printed_along_the_way_changes_no_stage(self, studies):
        before = studies.plan()
        studies.recipe["training"]["log_every"] = 7
        studies.recipe["evaluation"]["batch_size"] = 8
        assert set(studies.plan().stages) == set(before.stages)

    def test_a_mesh_of_evaluations_reaches_them_and_changes_no_stage(self, studies):
        before = studies.plan()
        studies.recipe["evaluation"]["mesh"] = {"fsdp": 4}
        after = studies.plan()
        assert set(after.stages) == set(before.stages)
        meshes = [s.config["mesh"]["fsdp"] for s in after.stages.values() if "mesh" in s.config]
        assert len(meshes) == len(
            {stage for t in after.trials for stage in after.answers(t).values()}
        )
        assert set(meshes) == {4}

    def test_a_mesh_of_evaluations_must_go_with_the_model(self, studies):
        studies.recipe["evaluation"]["mesh"] = {"tensor": 16}
        with pytest.raises(UserError, match=r"evaluation\.mesh\.tensor 16 does not divide"):
            studies.plan()

    @pytest.mark.parametrize(
        "change",
        [
            {"emoji_caption": None},
            {"easy_vqa": {"items": 100}},
            {"easy_vqa": {"shots": [0, 8]}},
            {"seed": 5},
        ],
    )
    def test_a_change_of_evaluation_never_retrains(self, studies, change):
        before = studies.plan()
        studies.recipe["evaluation"].update(change)
        after = studies.plan()
        assert trainings(after) == trainings(before)
        assert set(after.stages) != set(before.stages)

    def test_another_task_leaves_the_other_evaluations_alone(self, studies):
        all_three = studies.plan()
        del studies.recipe["evaluation"]["emoji_caption"]
        assert set(studies.plan().stages) < set(all_three.stages)

    def test_two_studies_share_what_they_have_in_common(self, studies):
        one = studies.plan()
        kinds = {"one_at_a_time": {"connector.kind": ["average_pooling", "c_abstractor"]}}
        other = studies.plan(study="other", design=kinds, seeds=5)
        assert trainings(one) == trainings(other)[:3]
        assert evaluations(one) == evaluations(other)
        factorial = {"factorial": {**SIZES["one_at_a_time"], **kinds["one_at_a_time"]}}
        both = studies.plan(design=factorial)
        assert set(one.stages) < set(both.stages)

    def test_order_of_keys_changes_nothing(self, studies):
        before = studies.plan()
        studies.recipe = {
            key: dict(reversed(value.items())) for key, value in reversed(studies.recipe.items())
        }
        after = studies.plan()
        assert list(after.stages) == list(before.stages)
        assert after.hash == before.hash

    def test_only_the_ratio_of_the_mixture_counts(self, studies):
        found = []
        for weights in ((45, 45, 10), (9, 9, 2), (0.45, 0.45, 0.1)):
            sources = ("easy_vqa", "emoji_captions", "text")
            studies.recipe["data"]["mixture"] = dict(zip(sources, weights, strict=True))
            found.append(trainings(studies.plan()))
        assert found[0] == found[1] == found[2]

    def test_the_rate_of_the_law_is_the_same_written_out(self, studies):
        law = studies.plan()
        assert law.arms[0].config["optimizer"]["peak_lr"] is None
        studies.recipe["optimizer"] = {"peak_lr": law.arms[0].figures["peak_lr"]}
        written = studies.plan()
        assert trainings(written) == trainings(law)
        studies.recipe["optimizer"] = {"peak_lr": law.arms[0].figures["peak_lr"] * 2}
        assert trainings(studies.plan()) != trainings(law)

    def test_arms_of_one_model_run_once(self, studies):
        design = {
            "arms": {"a": {"encoder.image_size": 16}, "b": {"encoder.image_size": 16}},
        }
        plan = studies.plan(design=design, claims={"same": "score(a) > score(b)"})
        assert trainings(plan, "a") == trainings(plan, "b")
        assert len(plan.trials) == 9
        assert plan.warnings == (
            "a, b come to the same stages: they differ in nothing that decides a result, so any "
            "difference between them is 0",
            "claim same cannot be decided: its arms come to the same stage",
        )

    def test_a_users_own_trainer_is_another_training(self, studies):
        ours = studies.plan()
        theirs = studies.plan(runners={"multimodal": "ablations.stage:Run"})
        assert {stage.run for stage in theirs.stages.values() if stage.kind == "multimodal"} == {
            "ablations.stage:Run"
        }
        assert not set(ours.stages) & set(theirs.stages)

    def test_the_studys_hash_follows_its_meaning(self, studies):
        before = studies.plan(claims={"a": "score(base) > 60"})
        spaced = studies.plan(claims={"a": "score(base)   > 60"})
        assert spaced.hash == before.hash
        for change in (
            {"claims": {"a": "score(base) > 61"}},
            {"claims": {"a": {"claim": "score(base) > 60", "min_effect": 1}}},
            {"claims": {"a": "score(base) > 60"}, "seeds": 4},
            {"claims": {"a": "score(base) > 60"}, "alpha": 0.1},
        ):
            assert studies.plan(**change).hash != before.hash


def test_what_is_printed_along_the_way_does_not_change_what_a_study_means(studies):
    before = studies.plan().hash
    studies.recipe["training"] |= {"log_every": 7, "checkpoint_every": 9}
    assert studies.plan().hash == before
    studies.recipe["training"]["steps"] = 101
    assert studies.plan().hash != before


def test_arms_carry_their_costs(studies):
    arm = studies.plan().arms[0]
    recipe = Recipe.model_validate(arm.config)
    assert arm.parameters == costs.parameters(recipe)
    assert arm.memory_bytes == costs.memory_bytes(recipe)
    assert arm.flops_per_trial == sum(costs.flops_per_step(recipe).values()) * 100


def test_more_items_and_shots_cost_more(studies):
    def seconds(plan):  # of asking; reading the checkpoint costs the same however much is asked
        asked = plan.stages[evaluations(plan)["easy_vqa", 0, "intact"]].seconds
        return asked - SECONDS_PER_EVALUATION

    whole = seconds(studies.plan())
    assert whole > 0
    studies.recipe["evaluation"]["easy_vqa"]["items"] = 100
    assert seconds(studies.plan()) < whole / 50


class TestWarnings:
    def test_a_fair_design_has_none(self, studies):
        plan = studies.plan(
            design={"one_at_a_time": {"data.mixture.easy_vqa": [0.7, 0.3]}},
            claims={"a": "score(base) > 60"},
        )
        assert plan.warnings == ()
        assert [arm.warnings for arm in plan.arms] == [(), ()]

    def test_another_learning_rate_is_said_unless_it_is_what_varies(self, studies):
        design = {"one_at_a_time": {"language_model.layers": [2, 4]}}
        arm = studies.plan(design=design).arms[1]
        assert any("peak learning rate" in warning for warning in arm.warnings)
        design = {"one_at_a_time": {"optimizer.peak_lr": [1e-3, 3e-3]}}
        assert studies.plan(design=design).arms[1].warnings == ()

    def test_other_compute_and_text_are_said(self, studies):
        arm = studies.plan(design={"one_at_a_time": {"training.steps": [100, 200]}}).arms[1]
        assert arm.warnings == (
            "2 times the base's training FLOPs",
            "2 times the base's text tokens",
        )

    def test_filling_a_total_length_is_said(self, studies):
        studies.recipe["data"].update({"packing": "total", "total_tokens": 160})
        plan = studies.plan(design={"one_at_a_time": {"connector.tokens": [4, 1]}})
        assert plan.warnings[0].startswith("packing: total")
        assert any("other documents" in warning for warning in plan.arms[1].warnings)

    def test_a_factor_without_effect_is_said(self, studies):
        design = {"one_at_a_time": {"data.embedded.captions.rich": [0.0, 0.07]}}
        (warning,) = studies.plan(design=design).arms[1].warnings
        assert warning == (
            "data.embedded.captions.rich does nothing: captions are not in the mixture"
        )
        studies.recipe["data"]["mixture"] = {"captions": 1}
        assert studies.plan(design=design).arms[1].warnings == ()

    def test_a_source_whose_kind_has_no_share_is_said(self, studies):
        studies.recipe["data"] |= {"mixture": {"easy_vqa": 1, "text": 1}}
        design = {"arms": {"talk": {"data.kinds": {"conversations": 1}}}}
        (warning,) = studies.plan(design=design).arms[1].warnings
        assert warning == "data.mixture.text is not read: data.kinds has no share for text"

    def test_what_an_override_drops_is_said(self, studies):
        studies.recipe["connector"] = {"kind": "attention_pooling"}
        plan = studies.plan(overrides={"connector.kind": "c_abstractor"})
        assert plan.warnings == ("overrides dropped connector.heads",)

    def test_fixed_first_weights_are_said(self, studies):
        studies.recipe["seeds"] = {"initialisation": 7}
        assert "first weights only" in studies.plan().warnings[0]

    @pytest.mark.parametrize(("seeds", "start"), [(1, "1 seed gives"), (2, "2 seeds give")])
    def test_too_few_seeds_for_claims_are_said(self, studies, seeds, start):
        plan = studies.plan(seeds=seeds, claims={"a": "score(base) > 60"})
        assert plan.warnings[0].startswith(start)
        assert studies.plan(seeds=seeds).warnings == ()


@pytest.mark.parametrize("seeds", [3, {"from": "fresh", "count": 3}, [7, 2, 5]])
def test_the_first_seed_alone_is_the_same_study_with_that_seeds_stages(studies, seeds):
    study = studies.load(seeds=seeds, design=SIZES, null_arms=1)
    whole, first = make_plan(study), make_plan(study, first_seed_alone=True)
    assert (first.hash, first.seeds, first.arms) == (whole.hash, whole.seeds, whole.arms)
    assert first.trials == whole.trials[:3]
    assert first.stages == whole.only((t.arm, t.seed) for t in first.trials).stages


def test_a_plan_survives_its_json(studies):
    plan = studies.plan(null_arms=1, claims={"a": {"claim": "score(base) > 1", "min_effect": 2}})
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_plan_read_back_has_its_configs_as_they_were_and_its_json_has_them_once(studies):
    rates = [0.001 * number for number in range(1, 21)]
    plan = studies.plan(design={"one_at_a_time": {"optimizer.peak_lr": rates}}, null_arms=2)
    written = plan.model_dump(mode="json")
    # Of the base, null and the rate that follows.
    assert sum(part.get("kind") == "adamw" for part in written["parts"]) == len(rates) + 2
    assert sum(part.get("kind") == "vit" for part in written["parts"]) == 1
    for arm, read in zip(plan.arms, Plan.model_validate(written).arms, strict=True):
        assert json.dumps(arm.config) == json.dumps(read.config)  # with keys in their order


def test_an_arm_costs_no_more_in_a_study_of_many(studies, monkeypatch):
    """That time does not grow with the square; how much there is, benchmarks/planning.py says."""

    def calls(arms: int) -> int:
        rates = [1e-5 * number for number in range(1, arms)]
        first, last = rates[0], rates[-1]
        study = studies.load(
            design={"one_at_a_time": {"optimizer.peak_lr": rates}},
            claims={"better": f"effect(optimizer.peak_lr, {first} -> {last}) > 0"},
        )
        make_plan(study)  # what is kept in a process is kept
        count = 0

        def one_more(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(one_more)
        try:
            make_plan(study)
        finally:
            sys.setprofile(None)
        return count

    few, many = calls(20), calls(80)
    assert many < 4.2 * few


def test_the_source_is_kept_as_it_was(studies):
    path = studies.write()
    assert studies.plan().source == path.read_text(encoding="utf-8")
    assert yaml.safe_load(studies.plan().source)["study"] == "test"


PLANNING = """
import sys
from ablations.plan import make_plan
from mm1.studies import load_study
make_plan(load_study("ablations/studies/demo.yaml"))
heavy = ("jax", "ray", "mlflow", "scipy", "pandas", "numpy")
print([name for name in heavy if name in sys.modules])
"""


def test_planning_imports_nothing_heavy():
    """How quick it is, benchmarks/planning.py measures."""
    ran = subprocess.run(
        [sys.executable, "-c", PLANNING], capture_output=True, encoding="utf-8", check=True
    )
    assert ran.stdout == "[]\n"


def test_a_config_on_its_own_is_a_plan_of_the_stages_that_a_study_has(studies):
    study, base = studies.plan(), studies.load().base
    plan = plan_of_one("alone", RECIPE, base, 1, "the text")
    (trial,) = plan.trials
    (same,) = [t for t in study.trials if (t.arm, t.seed) == ("base", 1)]
    assert trial == same
    assert set(trial.stages.values()) == set(plan.stages)
    assert (plan.seeds, plan.claims, plan.primary_metric) == ((1,), {}, ("easy_vqa", "accuracy"))
    assert Plan.model_validate_json(plan.model_dump_json()).stages == plan.stages
    other = plan_of_one("alone", RECIPE, base, 2, "the text")
    assert other.hash != plan.hash
