"""`mm1 run --smoke`: every program once, and nothing that a study could take for a result."""

from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1 import api
from mm1.smoke import short_plan, smoke
from sweeps.store import Store

OWN = """
study: own
question: Why?
base: base.yaml
seeds: 1
primary_metric: run.x
workload:
  command: sh run.sh {config:rate}
  metrics: {x: {goal: maximize}}
  code: [run.sh]
design: {one_at_a_time: {rate: [1, 2]}}
"""


def test_each_compile_class_is_tried_once_and_shorter(study):
    plan = api.plan(study)
    short, stages = short_plan(plan)
    classes = {stage.compile_class for stage in plan.stages.values()}
    tried = [short.stages[one] for trial in short.trials for one in trial.stages.values()]
    assert sorted(stage.compile_class for stage in tried) == sorted(classes)
    assert {stage.seed for stage in tried} == {plan.seeds[0]}
    steps = [stage.config["training"]["steps"] for stage in stages if not stage.inputs]
    assert steps == [2, 2]
    assert not {stage.id for stage in stages} & set(plan.stages)
    assert not short.claims


def test_what_came_of_each_is_told_and_its_store_is_gone(study, tmp_path):
    root = str(tmp_path / "store")
    Store(root).register(api.plan(study))

    def run(short, place):
        store = Store(place)
        store.register(short)
        failing, *_ = short.trials[0].stages.values()
        store.record_failure(failing, "first", {"error": "out of memory"})
        return 1

    found = smoke(api.plan(study), root, run)
    assert not any(one.ok for one in found)
    assert "out of memory" in [one.told for one in found]
    assert any(one.told.startswith("not tried: ") for one in found)
    assert Store(root).studies() == ["miniature"]
    assert not Store(root).objects.children("smoke")


def test_what_is_trained_by_a_command_is_tried_by_another_command(tmp_path):
    (tmp_path / "base.yaml").write_text("rate: 1\n", encoding="utf-8")
    (tmp_path / "run.sh").write_text("true\n", encoding="utf-8")
    study = tmp_path / "own.yaml"
    study.write_text(OWN, encoding="utf-8")
    with pytest.raises(UserError, match="mm1 try"):
        short_plan(api.plan(study))


@pytest.mark.slow
def test_the_programs_of_a_study_run_and_are_saved_and_restored(mm1, study):
    told = mm1("run", study, "--smoke", "--workers", 1)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "4 programs tried, 0 failed" in told.stdout
    assert told.stdout.count("saved and restored") == 2
    assert mm1("status").stdout.startswith("no study has run")
