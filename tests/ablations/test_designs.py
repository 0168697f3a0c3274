"""What a design comes to: arms and their recipes."""

from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.config.recipe import Recipe
from mm1_jax.workload import SCHEMA


def refuse(path, message):
    raise UserError(f"{path}: {message}")


def arms(plan):
    return {arm.name: arm for arm in plan.arms}


class TestOneAtATime:
    def test_each_factor_is_varied_alone_and_the_base_level_is_left_out(self, studies):
        design = {
            "one_at_a_time": {
                "encoder.image_size": [16, 32, 64],
                "connector.kind": ["average_pooling", "c_abstractor"],
            }
        }
        plan = studies.plan(design=design)
        assert list(arms(plan)) == [
            "base",
            "encoder.image_size=16",
            "encoder.image_size=64",
            "connector.kind=c_abstractor",
        ]
        assert plan.factors["encoder.image_size"] == ("32", "16", "64")
        assert arms(plan)["connector.kind=c_abstractor"].levels == {
            "encoder.image_size": "32",
            "connector.kind": "c_abstractor",
        }

    def test_a_factor_without_the_bases_level_still_has_it(self, studies):
        plan = studies.plan(design={"one_at_a_time": {"encoder.image_size": [16, 64]}})
        assert plan.factors["encoder.image_size"] == ("32", "16", "64")
        assert len(plan.arms) == 3

    def test_a_named_level_sets_several_paths(self, studies):
        levels = {
            "small": {"encoder.width": 32, "encoder.layers": 1},
            "medium": {"encoder.width": 64, "encoder.layers": 2},
        }
        plan = studies.plan(design={"one_at_a_time": {"encoder_size": levels}})
        assert plan.factors["encoder_size"] == ("medium", "small")  # medium is the base
        encoder = arms(plan)["encoder_size=small"].config["encoder"]
        assert (encoder["width"], encoder["layers"]) == (32, 1)

    def test_a_preset_is_a_factor_whose_base_level_is_found(self, studies):
        names = ["vit_small_mini", "vit_mini", "vit_b16"]
        plan = studies.plan(design={"one_at_a_time": {"encoder.preset": names}})
        assert plan.factors["encoder.preset"] == ("vit_mini", "vit_small_mini", "vit_b16")
        encoder = arms(plan)["encoder.preset=vit_b16"].config["encoder"]
        assert (encoder["width"], encoder["image_size"]) == (768, 224)

    def test_fields_set_beside_a_preset_win(self, studies):
        level = {"encoder.image_size": 32, "encoder.preset": "vit_small_mini"}
        plan = studies.plan(design={"one_at_a_time": {"size": {"bigger": level}}})
        encoder = arms(plan)["size=bigger"].config["encoder"]
        assert (encoder["width"], encoder["image_size"]) == (96, 32)


class TestFactorial:
    DESIGN = {  # noqa: RUF012
        "factorial": {
            "encoder.image_size": [32, 16],
            "connector.kind": ["average_pooling", "c_abstractor"],
        }
    }

    def test_every_combination_is_an_arm_once(self, studies):
        plan = studies.plan(design=self.DESIGN)
        assert list(arms(plan)) == [
            "base",
            "connector.kind=c_abstractor",
            "encoder.image_size=16",
            "encoder.image_size=16,connector.kind=c_abstractor",
        ]

    def test_a_base_outside_the_factorial_is_one_more_arm(self, studies):
        plan = studies.plan(design={"factorial": {"encoder.image_size": [16, 64]}})
        assert len(plan.arms) == 3

    def test_two_varied_shares_both_hold(self, studies):
        plan = studies.plan(
            design={
                "factorial": {
                    "data.mixture.easy_vqa": [0.7, 0.3],
                    "data.mixture.text": [0.05, 0.2],
                }
            }
        )
        mixture = arms(plan)["data.mixture.easy_vqa=0.3"].config["data"]["mixture"]
        assert (mixture["easy_vqa"], mixture["text"]) == (0.3, 0.05)
        assert mixture["emoji_captions"] / mixture["interleaved"] == pytest.approx(1.5)

    def test_a_path_in_two_factors_is_refused(self, studies):
        with pytest.raises(UserError, match="both set encoder"):
            studies.plan(
                design={
                    "factorial": {
                        "size": {"small": {"encoder.width": 32}},
                        "encoder.width": [64, 32],
                    }
                }
            )

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"encoder": {"width": 32}}, {"encoder": {"width": 48}}),
            ({"sft": None}, {"sft": {"images": 4}}),
        ],
    )
    def test_a_path_written_as_a_mapping_is_found_too(self, studies, one, other):
        studies.recipe["sft"] = {}
        with pytest.raises(UserError, match="both set"):
            studies.plan(design={"factorial": {"one": {"a": one}, "other": {"b": other}}})


def test_named_arms_are_levels_of_the_factor_arm(studies):
    plan = studies.plan(
        design={"arms": {"tiny": {"encoder.width": 32, "encoder.layers": 1}}},
        claims={"a": "effect(arm, tiny -> base) > 0", "b": "score(tiny) < score(base)"},
    )
    assert list(arms(plan)) == ["base", "tiny"]
    assert plan.factors == {"arm": ("base", "tiny")}


class TestSettingPaths:
    BASE = Recipe.model_validate(
        {"data": {"mixture": {"easy_vqa": 6, "emoji_captions": 3, "interleaved": 1}}}
    )

    def test_changing_the_kind_keeps_shared_fields_and_lists_what_is_dropped(self):
        attention, _ = SCHEMA.assign(
            self.BASE,
            {"connector.heads": 2, "connector.kind": "attention_pooling", "connector.tokens": 9},
            refuse,
        )
        changed, dropped = SCHEMA.assign(attention, {"connector.kind": "c_abstractor"}, refuse)
        assert changed.connector.kind == "c_abstractor"
        assert changed.connector.tokens == 9
        assert changed.connector.depth == 1
        assert dropped == ("connector.heads",)

    @pytest.mark.parametrize("kind", ["linear", "mlp"])
    def test_a_kind_whose_tokens_follow_from_the_patches_takes_no_other_kinds_number(self, kind):
        changed, dropped = SCHEMA.assign(self.BASE, {"connector.kind": kind}, refuse)
        assert (changed.connector.tokens, changed.image_tokens) == (None, 16)
        assert dropped == ("connector.tokens",)
        wider, _ = SCHEMA.assign(changed, {"encoder.image_size": 64}, refuse)
        assert wider.image_tokens == 64
        written = {"connector.kind": kind, "connector.tokens": 16}
        assert SCHEMA.assign(self.BASE, written, refuse)[0].connector.tokens == 16

    def test_the_plan_lists_what_was_dropped(self, studies):
        studies.recipe["connector"] = {"kind": "attention_pooling", "heads": 2}
        plan = studies.plan(design={"one_at_a_time": {"connector.kind": ["c_abstractor"]}})
        assert plan.arms[1].dropped == ("connector.heads",)

    def test_a_varied_share_leaves_the_ratio_of_the_others(self):
        changed, _ = SCHEMA.assign(self.BASE, {"data.mixture.easy_vqa": 0.2}, refuse)
        weights = changed.data.mixture.weights
        assert weights["easy_vqa"] == 0.2
        assert weights["emoji_captions"] == pytest.approx(0.6)
        assert weights["interleaved"] == pytest.approx(0.2)

    @pytest.mark.parametrize("weights", [(4, 1, 1), (1, 1, 1), (0.7, 0.2, 0.1), (45, 45, 10)])
    def test_the_bases_own_share_changes_no_bit(self, weights):
        sources = dict(zip(("easy_vqa", "emoji_captions", "text"), weights, strict=True))
        base = Recipe.model_validate({"data": {"mixture": sources}})
        share = round(weights[0] / sum(weights), 12)
        assert SCHEMA.assign(base, {"data.mixture.easy_vqa": share}, refuse)[0] == base
        assert (
            SCHEMA.assign(base, {"training.steps": 3, "optimizer.warmup_steps": 0}, refuse)[0].data
            == base.data
        )

    def test_a_whole_mixture_may_be_replaced(self):
        changed, _ = SCHEMA.assign(
            self.BASE, {"data.mixture": {"text": 0.75, "easy_vqa": 0.25}}, refuse
        )
        assert changed.data.mixture.weights == {"easy_vqa": 0.25, "text": 0.75}

    @pytest.mark.parametrize(
        "written",
        [
            {"data.mixture.captions": 0.5},
            {"data.mixture": {"captions": 0.5}},
            {"data": {"mixture": {"captions": 0.5}}},
            {"data": {"mixture.captions": 0.5}},
        ],
    )
    def test_a_mapping_sets_what_it_names_and_leaves_the_rest(self, written):
        weights = SCHEMA.assign(self.BASE, written, refuse)[0].data.mixture.weights
        assert weights == pytest.approx(
            {"captions": 0.5, "easy_vqa": 0.3, "emoji_captions": 0.15, "interleaved": 0.05}
        )

    @pytest.mark.parametrize(
        ("written", "path", "kept"),
        [
            ({"training.mesh": {"data": 2}}, "training.mesh.fsdp", 2),
            ({"training": {"divergence": {"policy": "skip"}}}, "training.divergence.most", 3),
            ({"evaluation": {"easy_vqa": {"shots": [4]}}}, "evaluation.easy_vqa.items", 50),
            ({"evaluation": {"held_out_text": {}}}, "evaluation.easy_vqa.items", 50),
            ({"evaluation.easy_vqa": {}}, "evaluation.easy_vqa.items", 50),
            ({"data.sources.b": {"folder": "y", "kind": "text"}}, "data.sources.a.folder", "x"),
            ({"data": {"sources": {"b": {"folder": "y", "kind": "text"}}}}, "data.fit", "pad"),
            ({"data.sources.a": {"folder": "y"}}, "data.sources.a.kind", "captions"),
            ({"data.exhausted": {"text": "stop"}}, "data.exhausted.easy_vqa", "reweight"),
            ({"connector": {"kind": "c_abstractor", "depth": 1}}, "connector.tokens", 9),
            ({"encoder": {"width": 32}}, "encoder.image_size", 48),
            ({"sft": {"mixture": {"emoji_chat": 0.25}}}, "sft.mixture.easy_vqa_chat", 0.75),
            ({"evaluation": {"official": {"gqa": {"folder": "g"}}}}, "evaluation.seed", 5),
            ({"evaluation.official.gqa.folder": "g"}, "evaluation.official.vqav2.items", 7),
            ({"evaluation.official.vqav2.shots": [4]}, "evaluation.official.vqav2.folder", "v"),
        ],
    )
    def test_no_mapping_resets_what_it_does_not_name(self, written, path, kept):
        base = Recipe.model_validate(
            {
                "encoder": {"image_size": 48},
                "connector": {"kind": "average_pooling", "tokens": 9},
                "training": {"batch_size": 8, "mesh": {"fsdp": 2}, "divergence": {"most": 3}},
                "data": {
                    "fit": "pad",
                    "sources": {"a": {"folder": "x", "kind": "captions"}},
                    "exhausted": {"easy_vqa": "reweight"},
                },
                "evaluation": {
                    "seed": 5,
                    "easy_vqa": {"items": 50},
                    "official": {"vqav2": {"folder": "v", "items": 7}},
                },
            }
        )
        found = SCHEMA.assign(base, written, refuse)[0].model_dump()
        for part in path.split("."):
            found = found[part]
        assert found == kept

    def test_a_list_is_replaced_whole_and_null_leaves_a_group_out(self):
        base, _ = SCHEMA.assign(self.BASE, {"sft": {}, "training.freeze": ["encoder"]}, refuse)
        changed, _ = SCHEMA.assign(base, {"sft": None, "training.freeze": ["connector"]}, refuse)
        assert (changed.sft, changed.training.freeze) == (None, ("connector",))

    def test_a_source_and_its_share_may_be_set_in_any_order(self):
        values = {
            "data.mixture.mine": 0.5,
            "data.sources.mine": {"folder": "x", "kind": "captions"},
        }
        turned = dict(reversed(values.items()))
        assert SCHEMA.assign(self.BASE, values, refuse) == SCHEMA.assign(self.BASE, turned, refuse)

    def test_a_kind_that_chooses_no_config_is_an_ordinary_value(self):
        scaling = {"language_model.rope_scaling": {"kind": "llama3", "factor": 8.0}}
        changed, _ = SCHEMA.assign(self.BASE, {"optimizer.kind": "adafactor", **scaling}, refuse)
        assert changed.optimizer.kind == "adafactor"
        assert changed.language_model.rope_scaling.kind == "llama3"
        assert (
            SCHEMA.assign(changed, {"optimizer.peak_lr": 0.5}, refuse)[0].optimizer.peak_lr == 0.5
        )

    def test_the_same_kind_again_changes_nothing(self):
        base, _ = SCHEMA.assign(self.BASE, {"connector": {"kind": "mlp", "tokens": 16}}, refuse)
        assert SCHEMA.assign(base, {"connector.kind": "mlp"}, refuse) == (base, ())

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ({"data.mixture": {"text": 3}}, "data.mixture.text: 3 is not a share of the mixture"),
            ({"sft": None, "sft.images": 3}, "sft.images is set, and so is sft as a whole"),
            (
                {"encoder": {"width": 32}, "encoder.width": 48},
                "encoder.width is set twice",
            ),
            ({"connector.kind": []}, "connector.kind: [] is not valid"),
            ({"encoder.preset": {}}, "encoder.preset: {} is not valid"),
        ],
    )
    def test_two_meanings_are_refused(self, written, message):
        with pytest.raises(UserError) as error:
            SCHEMA.assign(self.BASE, written, refuse)
        assert message in str(error.value)

    def test_order_of_paths_does_not_matter(self):
        values = {
            "connector.depth": 2,
            "connector.kind": "c_abstractor",
            "data.mixture.text": 0.1,
            "data.mixture.easy_vqa": 0.3,
        }
        turned = dict(reversed(values.items()))
        assert SCHEMA.assign(self.BASE, values, refuse) == SCHEMA.assign(self.BASE, turned, refuse)

    def test_a_group_the_base_leaves_out_can_be_filled(self):
        changed, _ = SCHEMA.assign(self.BASE, {"evaluation.emoji_caption.items": 50}, refuse)
        assert changed.evaluation.tasks["emoji_caption"].items == 50


def one(**levels):
    return {"one_at_a_time": {key.replace("__", "."): value for key, value in levels.items()}}


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ({}, "4: design: give exactly one of one_at_a_time, factorial, arms; got none"),
        ({"one_at_a_time": {}}, "4: design: one_at_a_time is empty"),
        ({"grid": {"a": [1]}}, "5: unknown key 'design.grid'"),
        (one(encoder__image_size=[32]), "6: encoder.image_size has no level other than the base's"),
        (one(encoder__image_size=[]), "6: encoder.image_size has no level other than the base's"),
        (one(encoder__image_size=16), "6: encoder.image_size: expected a list of levels, got 16"),
        (
            one(encoder__image_size=[32, 16, 16]),
            "9: encoder.image_size: levels 16 and 16 are the same model",
        ),
        (
            one(encoder__image_size=[32, [16]]),
            "8: encoder.image_size: a level in a list is a single value",
        ),
        (one(size={"small": 32}), "7: size: level 'small' must set paths"),
        (
            one(encoder__image_size=[32, 30]),
            "8: encoder.image_size=30: encoder: image_size 30 is not divisible by patch_size 8; "
            "nearest possible image_size: 32",
        ),
        (
            one(encoder__preset=["vit_mini", "vit_smallmini"]),
            "8: encoder.preset=vit_smallmini: encoder.preset: 'vit_smallmini' is not valid; "
            "did you mean 'vit_small_mini'?",
        ),
        (
            one(connector__tokens=[4, 5]),
            "8: connector.tokens=5: connector average_pooling cannot give 5 tokens "
            "from 16 patches (32 px, patch 8); nearest reachable: 4",
        ),
        (
            one(encoder__image_size=[32, "big"]),
            '8: encoder.image_size=big: encoder.image_size: "big" is not valid: expected a valid',
        ),
        (
            one(encoder__imagesize=[32, 16]),
            "7: encoder.imagesize=32: unknown path 'encoder.imagesize'; did you mean 'image_size'?",
        ),
        (
            one(image_size=[32, 16]),
            "7: image_size=32: unknown path 'image_size'; did you mean 'encoder.image_size'?",
        ),
        (
            one(colour=[32, 16]),
            "7: colour=32: unknown path 'colour'; it starts with one of encoder",
        ),
        (
            one(connector__kind=["average_pooling", "c_abstracter"]),
            "8: connector.kind=c_abstracter: connector.kind: 'c_abstracter' is not valid; "
            "did you mean 'c_abstractor'?",
        ),
        (
            one(connector__depth=[1, 2]),
            "7: connector.depth=1: connector.depth: average_pooling has no 'depth', "
            "only perceiver_resampler, c_abstractor have",
        ),
        (
            one(data__mixture__easy_vqa=[0.7, 1.5]),
            "8: data.mixture.easy_vqa=1.5: data.mixture.easy_vqa: 1.5 is not a share",
        ),
        (
            one(mix={"a": {"data.mixture.easy_vqa": 0.7, "data.mixture.text": 0.6}}),
            "8: mix=a: data.mixture: the shares",
        ),
        (one(task=[1, 2]), "6: a factor cannot be called 'task'"),
        ({"arms": {"base": {"encoder.width": 32}}}, "6: the base is always an arm"),
        ({"arms": {"same": {}}}, "6: arm 'same' sets nothing; it would be the base"),
        (
            {"arms": {"a": {"encoder": {"layers": 1, "width": "big"}}}},
            '9: a: encoder.width: "big" is not valid',
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(studies, design, message):
    with pytest.raises(UserError) as error:
        studies.plan(design=design)
    assert str(error.value).startswith(f"{studies.folder / 'study.yaml'}:{message}")


def test_the_only_source_has_the_whole_share(studies):
    studies.recipe["data"]["mixture"] = {"easy_vqa": 1}
    with pytest.raises(UserError, match="no other source has a weight"):
        studies.plan(design=one(data__mixture__easy_vqa=[1.0, 0.3]))
