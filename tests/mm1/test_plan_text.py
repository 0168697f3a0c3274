"""What `mm1 plan` says of the arms of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.errors import UserError
from ablations.plan import make_plan
from analysis.new_stages import Difference, New
from mm1 import plan_text
from mm1.studies import load_study
from mm1_jax.workload import load_recipe
from sweeps.scheduler import START_SECONDS

STUDY = """\
study: shares
question: Is half of it better?
base: recipe.yaml
overrides:
  data.mixture: {captions: 0.5}
design:
  arms:
    small: {encoder: {width: 32}, training.steps: 60}
    fewer: {data.mixture: {captions: 0.1}}
    chat: {sft: {}}
seeds: 2
primary_metric: easy_vqa.accuracy
"""


@pytest.fixture
def plan(tmp_path):
    def make(recipe="data: {mixture: {easy_vqa: 1}}\n"):
        (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
        (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
        return make_plan(load_study(tmp_path / "study.yaml"))

    return make


def test_each_arms_mixture_and_what_a_named_arm_sets_are_shown(plan, capsys):
    plan_text.show(plan(), workers=1, finished=set())
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "base: data.mixture: easy_vqa 50 %, captions 50 %" in lines
    assert "fewer: data.mixture: easy_vqa 90 %, captions 10 %" in lines
    assert "small: encoder.width: 32, training.steps: 60" in lines
    assert "chat: sft.mixture: easy_vqa_chat 100 %" in lines
    assert "chat: sft: {…}" in lines


def test_programs_are_told_the_same(plan):
    base, small, fewer, _ = plan_text.summary(plan(), 1, set())["arms"]
    assert base["mixtures"] == {"data.mixture": {"easy_vqa": 0.5, "captions": 0.5}}
    assert small["sets"] == {"encoder.width": 32, "training.steps": 60}
    assert fewer["mixtures"]["data.mixture"]["captions"] == 0.1


@pytest.mark.parametrize("study", sorted(Path("ablations/studies").glob("*.yaml")), ids=str)
def test_a_resolved_recipe_is_read_as_the_arms_own(study, tmp_path):
    made = make_plan(load_study(study))
    for arm in made.arms:
        (tmp_path / "arm.yaml").write_text(plan_text.resolved(made, arm.name), encoding="utf-8")
        assert load_recipe(tmp_path / "arm.yaml").model_dump(mode="json") == arm.config


def test_text_that_looks_like_a_number_stays_text(plan, tmp_path):
    recipe = "data: {sources: {a: {folder: '1e3', kind: text}, b: {folder: 'null', kind: text}}}"
    made = plan(f"{recipe}\n")
    (tmp_path / "arm.yaml").write_text(plan_text.resolved(made, "base"), encoding="utf-8")
    sources = load_recipe(tmp_path / "arm.yaml").data.sources
    assert (sources["a"].folder, sources["b"].folder) == ("1e3", "null")


def test_an_arm_that_is_not_there_names_the_nearest(plan):
    with pytest.raises(UserError, match="no arm 'smal'; did you mean 'small'"):
        plan_text.resolved(plan(), "smal")


def test_the_estimate_has_the_start_compilation_and_evaluation_in_it_and_says_its_source(
    plan, capsys
):
    made = plan()
    work = sum(stage.seconds for stage in made.stages.values())
    compiling = {stage.compile_class: stage.compile_seconds for stage in made.stages.values()}
    assert all(compiling.values())
    figures = plan_text.summary(made, 1, set())
    assert figures["core_seconds"] == work
    assert figures["seconds"] == pytest.approx(START_SECONDS + work + sum(compiling.values()))
    assert plan_text.summary(made, 1, set(made.stages))["seconds"] == 0.0
    plan_text.show(made, 1, set())
    assert "from formulas for an otherwise idle machine" in capsys.readouterr().out
    first = next(iter(made.stages))
    measured = {first: 10 * made.stages[first].seconds}  # ten times as slow as planned
    plan_text.show(made, 1, {first}, measured)
    assert "from finished stages on this machine" in capsys.readouterr().out
    slower = plan_text.summary(made, 1, {first}, measured)["seconds"]
    assert slower > 5 * figures["seconds"]


def test_what_is_new_is_shown_with_its_reason(plan, capsys):
    because = Difference(code={"changed": ["a.b"], "added": [], "removed": []}, config=("x.y",))
    new = [New("language_model", 2, because)]
    plan_text.show(plan(), workers=1, finished=set(), new=new)
    assert (
        "  new: 2 language model stages: code: changed a.b; config: x.y\n"
        in capsys.readouterr().out
    )
    (told,) = plan_text.summary(plan(), 1, set(), new=new)["new"]
    assert told["reason"] == "code: changed a.b; config: x.y"
    assert (told["kind"], told["stages"], told["because"]["config"]) == (
        "language_model",
        2,
        ("x.y",),
    )


def test_of_a_training_of_the_users_own_nothing_is_told_that_nobody_knows(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("lr: 0.1\n", encoding="utf-8")
    (tmp_path / "train.py").touch()
    (tmp_path / "study.yaml").write_text(
        """\
study: own
question: Is half of it better?
workload:
  command: python3 train.py {config} {seed} {output}
  metrics: {loss: {goal: minimize}}
  code: [train.py]
base: base.yaml
design: {one_at_a_time: {lr: [0.1, 0.2]}}
seeds: 2
primary_metric: loss
""",
        encoding="utf-8",
    )
    made = make_plan(load_study(tmp_path / "study.yaml"))
    plan_text.show(made, workers=1, finished=set())
    told = capsys.readouterr().out
    assert "what the arms set" not in told  # their names say it
    figures = plan_text.summary(made, 1, set())
    assert figures["flops"] is None
    assert [arm["flops_per_trial"] for arm in figures["arms"]] == [None, None]  # ty: ignore
