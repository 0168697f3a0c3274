"""The stages before the multimodal training: sharing, identity, seeds, weights from folders."""

from __future__ import annotations

import json

import pytest

from ablations.errors import UserError
from ablations.plan import Plan
from mm1 import plan_text
from mm1_jax.config.recipe import Recipe

# A runner of one's own for every part, so that these tests plan without our trainers' code.
RUNNERS = dict.fromkeys(
    ("encoder", "language_model", "weights", "encoder_evaluation", "language_model_evaluation"),
    "ablations.stage:Run",
)
BOTH = {
    "encoder_pretraining": {"training": {"steps": 60}, "optimizer": {"peak_lr": 0.001}},
    "language_model_pretraining": {"training": {"steps": 60}},
}
TOKENS = {"one_at_a_time": {"connector.tokens": [4, 1]}}


@pytest.fixture
def pretrained(studies):
    """Studies whose recipe pre-trains both parts."""
    studies.recipe |= BOTH

    def plan(**changes) -> Plan:
        return studies.plan(**{"runners": RUNNERS, **changes})

    plan.recipe = studies.recipe
    plan.folder = studies.folder
    return plan


def stages(plan, kind):
    return {stage.id: stage for stage in plan.stages.values() if stage.kind == kind}


def trial(plan, arm="base", seed=0):
    return next(t for t in plan.trials if (t.arm, t.seed) == (arm, seed))


def before(plan, one):
    """Role → stage of what is trained or read before a trial's last training."""
    trained = plan.trainings(one)
    return {role: stage for role, stage in trained.items() if stage != plan.main(one)}


def checkpoint(folder, config, kind="encoder", weights=b"weights"):
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "values").write_bytes(weights)
    (folder / "config.json").write_text(
        json.dumps({"kind": kind, "config": config}), encoding="utf-8"
    )
    return folder


class TestDag:
    def test_the_multimodal_stage_reads_both_parts_of_its_own_seed(self, pretrained):
        plan = pretrained()
        for one in plan.trials:
            train = plan.stages[plan.main(one)]
            assert train.inputs == before(plan, one)
            assert set(train.inputs) == {"encoder", "language_model"}
            for part, stage in before(plan, one).items():
                assert plan.stages[stage].kind == part
                assert plan.stages[stage].seed == train.seed == one.seed
                assert plan.stages[stage].inputs == {}

    def test_a_trial_names_each_stage_once_and_inputs_first(self, pretrained):
        pretrained.recipe["evaluation"]["pretrained_text"] = {}
        plan = pretrained()
        one = trial(plan)
        named = list(one.stages.values())
        assert len(named) == len(set(named)) == 3 + len(plan.answers(one))
        for place, stage in enumerate(named):
            assert set(plan.stages[stage].inputs.values()) <= set(named[:place])

    def test_arms_with_another_connector_share_the_parts(self, pretrained):
        plan = pretrained(design=TOKENS)
        assert before(plan, trial(plan)) == before(plan, trial(plan, "connector.tokens=1"))
        assert plan.main(trial(plan)) != plan.main(trial(plan, "connector.tokens=1"))
        assert len(stages(plan, "encoder")) == len(stages(plan, "language_model")) == 3
        assert len(stages(plan, "multimodal")) == 6

    def test_arms_with_another_encoder_share_the_language_model_only(self, pretrained):
        plan = pretrained(design={"one_at_a_time": {"encoder.layers": [2, 1]}})
        base, other = trial(plan), trial(plan, "encoder.layers=1")
        assert base.stages["language_model"] == other.stages["language_model"]
        assert base.stages["encoder"] != other.stages["encoder"]

    def test_studies_share_the_parts(self, pretrained):
        one = pretrained(design=TOKENS)
        steps = {"one_at_a_time": {"training.steps": [100, 80]}}
        other = pretrained(study="other", design=steps)
        assert set(stages(one, "encoder")) == set(stages(other, "encoder"))
        assert one.main(trial(one)) != other.main(trial(other, "training.steps=80"))

    def test_the_objective_is_a_factor(self, pretrained):
        kinds = {"one_at_a_time": {"encoder_pretraining.objective.kind": ["clip", "siglip", "aim"]}}
        plan = pretrained(design=kinds, seeds=1)
        assert len(stages(plan, "encoder")) == 3
        assert len(stages(plan, "language_model")) == 1

    def test_pretraining_or_not_is_a_factor(self, pretrained):
        arms = {"arms": {"from scratch": {"encoder_pretraining": None}}}
        plan = pretrained(design=arms, seeds=1)
        assert set(before(plan, trial(plan))) == {"encoder", "language_model"}
        assert set(before(plan, trial(plan, "from scratch"))) == {"language_model"}

    def test_null_arms_pretrain_their_parts_anew(self, pretrained):
        plan = pretrained(null_arms=1)
        base, null = trial(plan), trial(plan, "null=1")
        assert not set(before(plan, base).values()) & set(before(plan, null).values())

    def test_claims_read_evaluations_and_the_checkpoints_they_score(self, pretrained):
        from ablations.deciding import claim_stages

        pretrained.recipe["evaluation"]["pretrained_text"] = {}
        plan = pretrained(
            seeds=1,
            claims={"reads": "score(base, task=pretrained_text, metric=perplexity) < 100"},
        )
        (scored,) = (s for e, s in plan.answers(trial(plan)).items() if e.task == "pretrained_text")
        language_model = trial(plan).stages["language_model"]
        assert claim_stages(plan)["reads"] == {scored, language_model}


class TestIdentity:
    def test_a_pretraining_changes_only_what_depends_on_it(self, studies):
        without = studies.plan()
        studies.recipe |= BOTH
        both = studies.plan(runners=RUNNERS)
        assert not set(stages(without, "multimodal")) & set(stages(both, "multimodal"))
        del studies.recipe["encoder_pretraining"]
        text_only = studies.plan(runners=RUNNERS)
        assert set(stages(text_only, "language_model")) == set(stages(both, "language_model"))

    def test_a_recipe_without_pretraining_has_the_stages_it_had(self, studies):
        before = studies.plan()
        studies.recipe |= {"encoder_pretraining": None, "initial_weights": {"encoder": None}}
        assert set(studies.plan().stages) == set(before.stages)

    def test_what_is_printed_along_the_way_changes_no_stage(self, pretrained):
        before = pretrained()
        for part in BOTH:
            pretrained.recipe[part]["training"] |= {"log_every": 7, "checkpoint_every": 30}
        pretrained.recipe["language_model_pretraining"]["training"] |= {"micro_batches": 2}
        assert set(pretrained().stages) == set(before.stages)

    def test_the_law_gives_the_language_models_rate(self, pretrained):
        pretrained.recipe["language_model_pretraining"]["optimizer"] = {"peak_lr": None}
        plan = pretrained()
        rate = plan.stages[trial(plan).stages["language_model"]].config["optimizer"]["peak_lr"]
        assert rate == plan.arms[0].figures["peak_lr"]
        pretrained.recipe["language_model_pretraining"]["optimizer"] = {"peak_lr": rate}
        assert set(pretrained().stages) == set(plan.stages)

    def test_a_mixture_of_experts_from_dense_shares_the_dense_pretraining(self, pretrained):
        moe = {"language_model.kind": "moe", "language_model.from_dense": True}
        plan = pretrained(design={"arms": {"moe": moe}}, seeds=1)
        assert before(plan, trial(plan)) == before(plan, trial(plan, "moe"))


class TestScoredParts:
    def test_each_task_scores_the_checkpoint_it_is_about(self, pretrained):
        pretrained.recipe["evaluation"] |= {"pretrained_text": {}, "emoji_probe": {}}
        plan = pretrained()
        one = trial(plan)
        scored = {e.task: plan.stages[stage] for e, stage in plan.answers(one).items()}
        assert scored["easy_vqa"].inputs == {"model": plan.main(one)}
        assert scored["easy_vqa"].kind == "evaluation"
        assert scored["pretrained_text"].inputs == {"model": one.stages["language_model"]}
        assert scored["pretrained_text"].kind == "language_model_evaluation"
        assert scored["emoji_probe"].inputs == {"model": one.stages["encoder"]}
        assert scored["emoji_probe"].kind == "encoder_evaluation"

    def test_arms_share_the_scores_of_parts_they_share(self, pretrained):
        pretrained.recipe["evaluation"] = {"easy_vqa": {}, "pretrained_text": {}}
        plan = pretrained(design=TOKENS, seeds=1)
        assert len(stages(plan, "language_model_evaluation")) == 1
        assert len(stages(plan, "evaluation")) == 2

    @pytest.mark.parametrize(
        ("task", "missing"),
        [("pretrained_text", "language_model"), ("emoji_retrieval", "encoder")],
    )
    def test_a_task_without_its_stage_says_what_is_missing(self, studies, task, missing):
        studies.recipe["evaluation"][task] = {}
        expected = f"base: task {task} scores .* give {missing}_pretraining or initial_weights"
        with pytest.raises(UserError, match=expected):
            studies.plan()

    @pytest.mark.parametrize("asked_by", ["recipe", "claim"])
    def test_a_task_without_questions_says_what_the_data_lacks(self, studies, asked_by):
        claims = {"a": "score(base, task=emoji_languages) > 1"} if asked_by == "claim" else {}
        if asked_by == "recipe":
            studies.recipe["evaluation"]["emoji_languages"] = {}
        with pytest.raises(
            UserError, match=r"has no questions: data\.embedded\.language_documents\.languages is"
        ):
            studies.plan(claims=claims)
        studies.recipe["data"]["embedded"] = {"language_documents": {"languages": ["de", "en"]}}
        with pytest.raises(UserError, match=r"data\.embedded\.drawings\.styles has no openmoji"):
            studies.plan(claims=claims)

    def test_an_arm_that_lacks_the_stage_is_named(self, pretrained):
        pretrained.recipe["evaluation"]["emoji_probe"] = {}
        arms = {"arms": {"scratch": {"encoder_pretraining": None}}}
        with pytest.raises(UserError, match="scratch: task emoji_probe"):
            pretrained(design=arms)

    def test_retrieval_needs_captions(self, pretrained):
        pretrained.recipe["evaluation"]["emoji_retrieval"] = {}
        levels = {
            "clip": {"encoder_pretraining.objective.kind": "clip"},
            "aim": {"encoder_pretraining.objective.kind": "aim"},
        }
        with pytest.raises(UserError, match=r"objective=aim: task emoji_retrieval .* reads none"):
            pretrained(design={"one_at_a_time": {"objective": levels}})
        levels["aim"]["evaluation.emoji_retrieval"] = None
        plan = pretrained(design={"one_at_a_time": {"objective": levels}}, seeds=1)
        assert len(stages(plan, "encoder_evaluation")) == 1

    def test_an_evaluation_of_ones_own_may_ask_what_no_record_has(self, pretrained):
        runners = {**RUNNERS, "evaluation": "ablations.stage:Run"}
        plan = pretrained(
            runners=runners,
            claims={"asked": "score(base, task=my_task, metric=quality) > 0.5"},
            seeds=1,
        )
        mine = [s for s in stages(plan, "evaluation").values() if s.config["task"] == "my_task"]
        assert len(mine) == 1
        assert mine[0].seconds > 0

    def test_parts_are_scored_in_one_form_only(self, pretrained):
        pretrained.recipe["evaluation"]["emoji_probe"] = {"conditions": ["shuffled"]}
        with pytest.raises(UserError, match="emoji_probe asks no questions"):
            pretrained()


class TestWeightsFromFolders:
    def encoder(self, plan):
        return Recipe.model_validate(plan.arms[0].config).encoder.model_dump(mode="json")

    @pytest.fixture
    def folder(self, studies, tmp_path):
        """A checkpoint of the recipe's encoder."""
        stated = {"encoder": self.encoder(studies.plan()), "vocabulary": 1024}
        return checkpoint(tmp_path / "weights", stated)

    def pin(self, studies, folder, **changes):
        studies.recipe["initial_weights"] = {"encoder": str(folder)}
        return studies.plan(runners=RUNNERS, **changes)

    def test_all_seeds_and_arms_share_them(self, studies, folder):
        plan = self.pin(studies, folder, design=TOKENS)
        (weights,) = stages(plan, "weights").values()
        assert all(before(plan, one) == {"encoder": weights.id} for one in plan.trials)
        assert all(plan.stages[plan.main(t)].inputs == {"encoder": weights.id} for t in plan.trials)
        assert len(stages(plan, "multimodal")) == 6

    def test_what_they_hold_counts_and_not_where_they_are(self, studies, folder, tmp_path):
        before = self.pin(studies, folder)
        folder.rename(tmp_path / "elsewhere")
        moved = self.pin(studies, tmp_path / "elsewhere")
        assert set(moved.stages) == set(before.stages)
        assert moved.hash == before.hash
        (tmp_path / "elsewhere" / "checkpoint" / "values").write_bytes(b"others")
        changed = self.pin(studies, tmp_path / "elsewhere")
        assert not set(stages(changed, "multimodal")) & set(stages(before, "multimodal"))
        assert changed.hash != before.hash

    def test_a_claim_across_two_of_them_is_about_these_checkpoints_only(
        self, studies, folder, tmp_path
    ):
        other = checkpoint(
            tmp_path / "other",
            json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"],
            weights=b"others",
        )
        arms = {"other": {"initial_weights.encoder": str(other)}, "few": {"connector.tokens": 1}}
        claims = {"across": "score(base) > score(other)", "within": "score(base) > score(few)"}
        plan = self.pin(studies, folder, design={"arms": arms}, claims=claims)
        (warning,) = plan.warnings
        assert warning.startswith("claim across compares arms whose encoder differ")
        assert "these checkpoints only" in warning

    def test_another_image_size_is_no_other_encoder(self, studies, folder):
        plan = self.pin(studies, folder)  # the design varies encoder.image_size
        assert len(stages(plan, "weights")) == 1

    def test_weights_of_another_encoder_are_refused_with_the_difference(self, studies, folder):
        studies.recipe["encoder"] = {"width": 96}
        with pytest.raises(UserError, match=r"encoder\.width is 64 there and 96 in the recipe"):
            self.pin(studies, folder)

    def test_a_checkpoint_without_the_part_is_refused(self, studies, folder):
        studies.recipe["initial_weights"] = {"language_model": str(folder)}
        with pytest.raises(UserError, match="kind encoder: it has no language_model"):
            studies.plan(runners=RUNNERS)

    @pytest.mark.parametrize("name", ["nowhere", "empty"])
    def test_a_folder_without_weights_is_refused(self, studies, tmp_path, name):
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match=r"no folder .*nowhere|empty holds no weights"):
            self.pin(studies, tmp_path / name)

    def test_they_exclude_a_pretraining_of_the_same_part(self, studies, folder):
        studies.recipe |= BOTH
        with pytest.raises(UserError, match=r"initial_weights\.encoder and encoder_pretraining"):
            self.pin(studies, folder)


class TestCost:
    def test_a_trial_costs_what_its_parts_cost_too(self, pretrained):
        plan = pretrained(design=TOKENS)
        one = trial(plan)
        trainings = plan.trainings(one).values()
        assert plan.arms[0].flops_per_trial == sum(plan.stages[s].flops for s in trainings)
        assert all(plan.stages[s].flops > 0 and plan.stages[s].seconds > 0 for s in trainings)

    def test_a_longer_pretraining_is_told_as_more_compute(self, pretrained):
        steps = {"one_at_a_time": {"encoder_pretraining.training.steps": [60, 6000]}}
        (warning,) = pretrained(design=steps).arms[1].warnings
        assert "times the base's training FLOPs" in warning

    def test_equal_programs_share_a_compile_class(self, pretrained):
        varied = {
            "encoder_pretraining.training.steps": 70,
            "language_model_pretraining.optimizer.peak_lr": 0.001,
        }
        plan = pretrained(design={"arms": {"other": varied}}, seeds=1)
        for kind in ("encoder", "language_model"):
            assert len(stages(plan, kind)) == 2
            assert len({stage.compile_class for stage in stages(plan, kind).values()}) == 1
        assert len({stage.compile_class for stage in stages(plan, "multimodal").values()}) == 1


class TestPlanText:
    def test_it_lists_the_parts_and_how_far_they_are_shared(self, pretrained, capsys):
        plan = pretrained(design={"one_at_a_time": {"encoder.layers": [2, 1]}})
        plan_text.show(plan, 2, set())
        out = capsys.readouterr().out
        assert "before: encoder: 2 different × 3 seeds, for 2 of 2 arms" in out
        assert "before: language model: 1 different × 3 seeds, for 2 of 2 arms" in out
        before = plan_text.summary(plan, 2, set())["before"]
        assert before["encoder"]["stages"] == 6
        assert before["language_model"]["stages"] == 3

    def test_without_them_it_says_nothing(self, studies, capsys):
        plan_text.show(studies.plan(), 2, set())
        assert "before:" not in capsys.readouterr().out


SFT = {"image_size": 32, "images": 2, "training": {"steps": 60, "batch_size": 4}}


class TestInstructionTuning:
    @pytest.fixture
    def tuned(self, studies):
        """Studies whose recipe tunes on instructions."""
        studies.recipe["sft"] = SFT
        runners = dict.fromkeys(("sft", "multimodal", "evaluation"), "ablations.stage:Run")

        def plan(**changes) -> Plan:
            return studies.plan(**{"runners": runners, "seeds": 1, **changes})

        plan.recipe = studies.recipe
        return plan

    def test_it_goes_on_from_the_multimodal_stage_and_is_what_is_scored(self, tuned):
        plan = tuned()
        (one,) = (t for t in plan.trials if t.arm == "base")
        sft = plan.stages[plan.main(one)]
        multimodal = one.stages["multimodal"]
        assert (sft.kind, sft.inputs) == ("sft", {"model": multimodal})
        assert plan.stages[multimodal].kind == "multimodal"
        for evaluation in plan.answers(one).values():
            assert plan.stages[evaluation].inputs == {"model": sft.id}
        assert list(one.stages)[:2] == ["multimodal", "sft"]
        assert plan.arms[0].flops_per_trial == sft.flops + plan.stages[multimodal].flops

    def test_what_it_adds_is_a_factor_that_trains_nothing_twice(self, tuned):
        arms = {"arms": {"untuned": {"sft": None}, "sharper": {"sft.sub_images.kind": "grid"}}}
        plan = tuned(design=arms)
        base, untuned, sharper = (trial(plan, arm) for arm in ("base", "untuned", "sharper"))
        assert plan.main(untuned) == base.stages["multimodal"] == sharper.stages["multimodal"]
        assert len(stages(plan, "multimodal")) == 1
        assert len(stages(plan, "sft")) == 2
        grid, plain = plan.stages[plan.main(sharper)], plan.stages[plan.main(base)]
        assert grid.flops > 1.5 * plain.flops
        memory = {arm.name: arm.memory_bytes for arm in plan.arms}
        assert memory["sharper"] > memory["base"]
        assert grid.compile_class != plain.compile_class

    def test_its_config_is_the_recipes_model_with_its_own_data_and_optimisation(self, tuned):
        tuned.recipe["sft"] = {**SFT, "mixture": {"emoji_chat": 1}, "template": "vicuna"}
        plan = tuned()
        config = plan.stages[plan.main(trial(plan))].config
        assert config["encoder"]["image_size"] == 32
        assert config["data"]["mixture"]["emoji_chat"] == 1.0
        assert config["data"]["template"] == "vicuna"
        assert config["data"]["images"] == 2
        assert config["training"]["steps"] == 60
        assert (config["optimizer"]["kind"], config["optimizer"]["peak_lr"]) == ("adafactor", 1e-5)
        assert config["training"]["freeze"] == []
        base = plan.arms[0].config
        for part in ("connector", "language_model", "seeds"):
            assert config[part] == base[part]
        assert config["data"]["vocabulary"] == base["data"]["vocabulary"]

    def test_how_pretraining_mixes_and_packs_is_not_carried_over(self, tuned):
        tuned.recipe["data"] |= {"kinds": {"captions": 1, "text": 1}, "packing": "total"}
        tuned.recipe["data"]["total_tokens"] = 100
        plan = tuned(design={"arms": {"x": {"training.steps": 90}}})
        data = plan.stages[plan.main(trial(plan))].config["data"]
        assert (data["kinds"], data["packing"], data["total_tokens"]) == (None, "budgets", None)

    def test_what_is_prepared_is_kept_so_that_few_shot_tasks_can_be_asked(self, tuned):
        languages = {"languages": ["de", "en"]}
        tuned.recipe["data"]["embedded"] = {
            "language_documents": languages,
            "glossary_documents": languages,
            "captions": {"rich": 0.5},
        }
        tuned.recipe["evaluation"]["emoji_attributes"] = {"shots": [2]}
        plan = tuned(design={"arms": {"x": {"training.steps": 90}}})
        stage = plan.stages[plan.main(trial(plan))]
        embedded = stage.config["data"]["embedded"]
        assert embedded["glossary_documents"]["languages"] == ["de", "en"]
        assert embedded["captions"]["rich"] == 0.0  # how sources are mixed is said anew
        before = plan.stages[stage.inputs["model"]]
        assert stage.data_fingerprint == before.data_fingerprint

    def test_a_source_that_is_not_there_is_told_in_one_line(self, tuned):
        tuned.recipe["sft"] = {**SFT, "mixture": {"emoji_chart": 1}}
        with pytest.raises(UserError, match=r"sft: mixture\.emoji_chart: no such source; did you"):
            tuned()

    def test_shares_of_its_mixture_are_levels(self, tuned):
        levels = {"one_at_a_time": {"sft.mixture.emoji_chat": [0, 0.25]}}
        plan = tuned(design=levels)
        mixture = plan.stages[plan.main(trial(plan, "sft.mixture.emoji_chat=0.25"))].config["data"]
        assert mixture["mixture"]["easy_vqa_chat"] == 0.75
        assert mixture["mixture"]["emoji_chat"] == 0.25

    def test_an_impossible_tuning_is_told_in_one_line(self, tuned):
        tuned.recipe["sft"] = {**SFT, "image_size": 33}
        with pytest.raises(UserError, match=r"sft: .*image_size 33 is not divisible by patch_size"):
            tuned()

    def test_the_plan_tells_what_it_costs(self, tuned, capsys):
        plan_text.show(tuned(), workers=2, finished=set())
        assert "multimodal" in capsys.readouterr().out
