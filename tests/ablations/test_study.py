"""The study file: what is read, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.errors import UserError
from ablations.study import Claim, FreshSeeds
from mm1.studies import load_study
from mm1_jax.workload import load_recipe

SKETCH = """\
study: demo
question: What matters most for a small model that answers questions about pictures?
base: recipe.yaml          # a complete model + data + training + evaluation config
design:
  one_at_a_time:                    # each factor varied alone, from the base
    encoder.image_size: [32, 16]
    connector.kind: [average_pooling, c_abstractor]
    data.mixture.easy_vqa: [0.7, 0.3]
seeds: 3                            # paired: the same seed is the same data order in every arm
primary_metric: easy_vqa.accuracy
claims:
  sees: score(base) > score(base, condition=shuffled)
  beats-the-blind: score(base) > blind(easy_vqa)
  resolution-over-type: effect(encoder.image_size, 16 -> 32) > abs(effect(connector.kind, average_pooling -> c_abstractor))
  type-hardly-matters: score(connector.kind=c_abstractor) == score(base) within 3.0
"""  # noqa: E501


def test_the_sketch_works_as_written(studies):
    plan = studies.plan(SKETCH)
    assert [arm.name for arm in plan.arms] == [
        "base",
        "encoder.image_size=16",
        "connector.kind=c_abstractor",
        "data.mixture.easy_vqa=0.3",
    ]
    assert len(plan.trials) == 12
    assert len(plan.claims) == 4
    assert plan.warnings == ()


@pytest.mark.parametrize("name", ["demo", "first"])
def test_shipped_studies_plan_without_warnings(name):
    from ablations.plan import make_plan

    plan = make_plan(load_study(Path("ablations/studies") / f"{name}.yaml"))
    assert plan.study == name
    assert plan.warnings == ()


def test_the_shipped_recipe_writes_out_every_value():
    import yaml

    path = Path("ablations/recipes/mini.yaml")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))

    def check(written, resolved, at):
        for key, value in resolved.items():
            if key in ("seeds", "total_tokens") or at.startswith("evaluation."):
                continue
            assert key in written, f"{at}{key} is not written out"
            if isinstance(value, dict):
                check(written[key], value, f"{at}{key}.")

    check(written, load_recipe(path).model_dump(mode="json"), "")


@pytest.mark.parametrize(
    ("seeds", "read"),
    [
        (3, (0, 1, 2)),
        ([5, 7], (5, 7)),
        ({"from": "fresh", "count": 2}, FreshSeeds(count=2)),
    ],
)
def test_seeds_may_be_a_number_a_list_or_fresh(studies, seeds, read):
    assert studies.load(seeds=seeds).file.seeds == read


def test_a_claim_may_carry_a_minimum_effect(studies):
    claims = {"a": {"claim": "score(base) > 60", "min_effect": 2}, "b": "score(base) > 1"}
    found = studies.load(claims=claims).file.claims
    assert found["a"] == Claim(text="score(base) > 60", min_effect=2)
    assert studies.plan(claims=claims).min_effects == {"a": 2.0}


def test_overrides_change_the_base(studies):
    study = studies.load(overrides={"training.steps": 77, "connector.kind": "c_abstractor"})
    assert study.base.training.steps == 77
    assert study.base.connector.kind == "c_abstractor"


def test_an_override_of_a_mapping_leaves_what_it_does_not_name(studies):
    """Half of the documents are captions; it does not train on captions alone."""
    study = studies.load(overrides={"data.mixture": {"captions": 0.5}})
    assert study.base.data.mixture.weights == pytest.approx(
        {
            "captions": 0.5,
            "easy_vqa": 0.35,
            "emoji_captions": 0.075,
            "interleaved": 0.05,
            "text": 0.025,
        }
    )


TOP = """\
study: demo
question: Why?
base: recipe.yaml
design: {one_at_a_time: {encoder.image_size: [32, 16]}}
seeds: 3
primary_metric: easy_vqa.accuracy
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOP + "clams: {}", "7: unknown key 'clams'; did you mean 'claims'?"),
        (TOP.replace("seeds: 3\n", ""), "1: key 'seeds' is missing"),
        (TOP.replace("seeds: 3", "seeds: 0"), "5: seeds: 0 is not valid: expected how many"),
        (TOP.replace("seeds: 3", "seeds: [1, 1]"), "5: seeds: [1, 1] names a seed twice"),
        (TOP.replace("seeds: 3", "seeds: {from: old, count: 2}"), "5: seeds: {'from': 'old'"),
        (TOP.replace("seeds: 3", "seeds: true"), "5: seeds: True is not valid"),
        (TOP.replace("seeds: 3", "seeds: 99999999999"), "5: seeds: 99999999999 is not valid"),
        (TOP.replace("seeds: 3", "seeds: [-1]"), "5: seeds: [-1] is not valid"),
        (TOP.replace("seeds: 3", "seeds: {from: fresh, count: 0}"), "5: seeds: count: 0 is not"),
        (TOP.replace("study: demo", "study: a/b"), '1: study: "a/b" is not valid'),
        (TOP.replace("recipe.yaml", "recip.yaml"), "3: base: no such file"),
        (TOP + "alpha: 0.7", "7: alpha: 0.7 is out of range; it must be below 0.5"),
        (TOP + "null_arms: -1", "7: null_arms: -1 is out of range; it must be at least 0"),
        (
            TOP.replace("easy_vqa.acc", "easy_vqa.ac"),
            "6: primary_metric: task easy_vqa has no metric 'acuracy'; did you mean 'accuracy'?",
        ),
        (
            TOP.replace("easy_vqa.acc", "easyvqa.acc"),
            "6: primary_metric: no task 'easyvqa'; did you mean 'easy_vqa'?",
        ),
        (
            TOP.replace("easy_vqa.accuracy", "accuracy"),
            "6: primary_metric: 'accuracy' is no task.metric",
        ),
        (
            TOP + "claims:\n  a: score(base) > 1\n  b: score(bse) > 1",
            "9: claim b: no arm 'bse'; did you mean 'base'?",
        ),
        (TOP + "claims:\n  a: 5", "8: claims.a: expected"),
        (
            TOP + "claims:\n  a: {claim: score(base) > 1, min: 5}",
            "8: claims.a: unknown key 'min'; valid: claim, min_effect",
        ),
        (
            TOP + "claims:\n  a: {claim: score(base) > 1, min_effect: -5}",
            "8: claims.a: min_effect: -5 is not a number of at least 0",
        ),
        (
            TOP + "overrides: {training.step: 3}",
            "7: overrides: unknown path 'training.step'; did you mean 'steps'?",
        ),
        (
            TOP + "overrides:\n  data:\n    text_tokens: 5\n    mixture:\n      text: 3",
            "11: overrides: data.mixture.text: 3 is not a share of the mixture, from 0 to 1",
        ),
        (TOP + "labels: {bse: the base}", "7: labels: no arm or level 'bse'; did you mean 'base'?"),
        (
            TOP + "runners: {multimodl: a.b:c}",
            "7: runners.multimodl: no stage of this kind; did you mean 'multimodal'?",
        ),
        (TOP + "runners: {multimodal: a.b.c}", "1: runners.multimodal: 'a.b.c' is not package"),
        (
            TOP + "runners: {multimodal: 'no_such_package.trainer:run'}",
            "7: runners.multimodal: module 'no_such_package.trainer' cannot be found",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(studies, text, message):
    with pytest.raises(UserError) as error:
        studies.plan(text)
    assert str(error.value).startswith(f"{studies.folder / 'study.yaml'}:{message}")


def test_a_mistake_in_the_recipe_points_there(studies):
    studies.recipe["training"]["step"] = 3
    with pytest.raises(UserError) as error:
        studies.load()
    assert str(error.value).startswith(f"{studies.folder / 'recipe.yaml'}:")
    assert "did you mean 'steps'?" in str(error.value)


def test_the_primary_metric_must_be_evaluated_by_the_base(studies):
    del studies.recipe["evaluation"]["emoji_caption"]
    with pytest.raises(UserError, match="the base does not evaluate task 'emoji_caption'"):
        studies.plan(primary_metric="emoji_caption.cider")


def test_texts_have_no_images_to_shuffle(studies):
    studies.recipe["evaluation"]["held_out_text"] = {"conditions": ["shuffled"]}
    with pytest.raises(UserError, match="held_out_text asks no questions"):
        studies.plan()
