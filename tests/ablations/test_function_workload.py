"""A Python function as the workload of a study."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations import function_workload
from ablations.errors import UserError
from ablations.plan import make_plan
from ablations.stage import ResultRow
from ablations.study import load_study
from mm1_jax.workload import RECIPE

MODULE = """
from ablations.schema import NOT_IDENTITY, Config
from ablations.stage import ResultRow
from pydantic import BaseModel, Field

class Inner(BaseModel):
    width: int = 8

class Config(Config):
    lr: float = Field(0.1, gt=0)
    log_every: int = Field(10, json_schema_extra=NOT_IDENTITY)

def run(config, seed, inputs, context):
    return {"val.accuracy": 100 * config["lr"] + seed, "loss": 1.0}

def rows(config, seed, inputs, context):
    curve = [ResultRow("training", "loss", 3.0 - i, step=i) for i in range(3)]
    return [*curve, ResultRow("val", "accuracy", config["lr"], split="test", step=2)]

NOT_A_MODEL = 3

class Lax(BaseModel):
    lr: float = 0.1
    inner: Inner = Inner()

class Aliased(BaseModel):
    lr: float = Field(0.1, alias="learning_rate")
"""
STUDY = """
study: mine
question: Does it?
workload:
  function: MODULE:run
  config: MODULE:Config
  metrics: {val.accuracy: {goal: maximize, worst: 0}}
base: base.yaml
design: {one_at_a_time: {lr: [0.1, 0.2]}}
seeds: 2
primary_metric: val.accuracy
claims: {higher: "effect(lr, 0.1 -> 0.2) > 0"}
"""


@pytest.fixture
def made(tmp_path, monkeypatch, request):
    """Plan a study of a module of its own name, some words of it replaced."""
    name = f"my_training_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "base.yaml").write_text("lr: 0.1\n", encoding="utf-8")

    def make(old="", new=""):
        assert old in STUDY
        text = STUDY.replace(old, new).replace("MODULE", name).lstrip()
        (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
        return make_plan(load_study(tmp_path / "study.yaml", RECIPE))

    yield make
    sys.modules.pop(name, None)


def execute(stage, tmp_path):
    context = SimpleNamespace(scratch=tmp_path, output=tmp_path)
    return function_workload.run(stage.config, stage.seed, {}, context)


def test_a_plan_and_its_stages(made, tmp_path):
    plan = made()
    assert len(plan.stages) == 4
    stage = plan.stages[next(t for t in plan.trials if t.seed == 1).stages["run"]]
    rows = execute(stage, tmp_path)
    assert [(row.task, row.metric, row.value) for row in rows] == [
        ("val", "accuracy", 11.0),
        ("run", "loss", 1.0),
    ]


def test_rows_pass_as_they_are(made, tmp_path):
    plan = made(":run", ":rows")
    rows = execute(next(iter(plan.stages.values())), tmp_path)
    assert len(rows) == 4
    assert rows[-1].value == pytest.approx(0.1)


def test_fields_that_decide_nothing_and_code_that_does(made, tmp_path):
    before = set(made().stages)
    (tmp_path / "base.yaml").write_text("lr: 0.1\nlog_every: 5\n", encoding="utf-8")
    assert set(made().stages) == before
    assert not set(made(":run", ":rows").stages) & before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (":run", ":ran", r"study\.yaml:4: workload\.function: .*has no 'ran'; did you mean 'run'"),
        (":Config", ":NOT_A_MODEL", r"study\.yaml:5: workload\.config: .* is 3, not a pydantic"),
        (":Config", ":Confg", r"study\.yaml:5: workload\.config: .*did you mean 'Config'"),
        ("lr: [0.1", "rl: [0.1", r"study\.yaml:8: .*unknown path 'rl'"),
        ("lr: [0.1, 0.2]", "lr: [0.1, -1]", r"study\.yaml:8: .*lr: -1 is out of range"),
        ("{goal: maximize", "{value: best, goal: maximize", "key and value are for commands"),
        ("function:", "funktion: x\n  function:", r"study\.yaml:4: unknown key 'funktion'"),
    ],
)
def test_mistakes(made, old, new, said):
    with pytest.raises(UserError, match=said):
        made(old, new)


@pytest.mark.parametrize(
    ("model", "base", "said"),
    [
        (":Lax", "lr: 0.1\nsteps: 3\n", r"base\.yaml:2: unknown key 'steps'; valid: inner, lr"),
        (":Lax", "inner: {widht: 9}\n", "unknown key 'inner.widht'; did you mean 'width'"),
        (":Aliased", "learning_rate: 0.5\n", r"base\.yaml:1: Aliased, written down .* an alias"),
    ],
)
def test_a_model_that_would_lose_a_value_in_silence(made, tmp_path, model, base, said):
    (tmp_path / "base.yaml").write_text(base, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        made(":Config", model)


def test_a_model_that_was_not_written_for_studies(made, tmp_path):
    (tmp_path / "base.yaml").write_text("lr: 0.1\ninner: {width: 9}\n", encoding="utf-8")
    config = made(":Config", ":Lax").arms[1].config
    assert config == {"lr": 0.2, "inner": {"width": 9}}


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ({"val.acc": 1.0}, "returned no row of the metric val.accuracy; did you mean 'val.acc'"),
        ({"val.accuracy": "high"}, "returned 'val.accuracy': could not convert"),
        ([1], "returned 1, not rows"),
        (None, "returned None, not rows"),
    ],
)
def test_what_is_returned_is_checked(made, tmp_path, monkeypatch, returned, said):
    stage = next(iter(made().stages.values()))
    module = sys.modules[stage.config["function"].partition(":")[0]]
    monkeypatch.setattr(module, "run", lambda *_: returned)
    with pytest.raises(UserError, match=said):
        execute(stage, tmp_path)


def test_a_number_that_is_none_is_divergence(made, tmp_path, monkeypatch):
    stage = next(iter(made().stages.values()))
    module = sys.modules[stage.config["function"].partition(":")[0]]
    monkeypatch.setattr(module, "run", lambda *_: {"val.accuracy": math.nan})
    rows = execute(stage, Path(tmp_path))
    assert [row.value for row in rows if row.metric == "diverged"] == [1.0]


def test_divergence_does_not_depend_on_what_the_study_declares(made, tmp_path, monkeypatch):
    stage = next(iter(made().stages.values()))
    module = sys.modules[stage.config["function"].partition(":")[0]]

    def diverged(*losses, **others):
        def function(*_):
            yield ResultRow("val", "accuracy", 0.5, split="test")
            yield from (ResultRow("training", "loss", one, step=i) for i, one in enumerate(losses))
            yield from (ResultRow("val", name, one, split="test") for name, one in others.items())

        monkeypatch.setattr(module, "run", function)
        return any(row.metric == "diverged" for row in execute(stage, tmp_path))

    assert diverged(1.0, math.nan)
    assert diverged(1.0, other=math.inf)
    assert not diverged(math.nan, 1.0)  # it came back
