"""The folder of `mm1 train`: what is one, and the links in it."""

from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1 import api
from mm1.run_folder import link, open_run, plan_of, stage_at
from mm1_jax.config.recipe import Recipe
from sweeps.store import Store


def test_a_folder_with_nothing_in_it_is_a_run_to_be(tmp_path):
    assert open_run(tmp_path / "not" / "there") is None
    (tmp_path / ".hidden").touch()
    assert open_run(tmp_path) is None
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        open_run(tmp_path)


def test_a_run_is_known_again_and_a_store_of_studies_is_none(tmp_path, write_study):
    recipe = Recipe.model_validate({"training": {"steps": 100}, "evaluation": {"easy_vqa": {}}})
    plan = plan_of(recipe, "one", 3, "")
    assert plan.arms[0].answers == ()  # it asks nothing
    Store(tmp_path / "run").register(plan)
    _, known = open_run(tmp_path / "run") or pytest.fail("no run")
    assert known.stages.keys() == plan.stages.keys()
    made = api.plan(write_study(tmp_path), store=str(tmp_path / "store"))
    Store(tmp_path / "store").register(made)
    with pytest.raises(UserError, match="is the store of miniature, not a folder of `mm1 train`"):
        open_run(tmp_path / "store")


def test_a_link_leads_inside_its_store_and_is_set_anew(tmp_path):
    run = tmp_path / "run"
    for name in "ab":
        output = run / "stages" / "ab" / (name * 32) / "attempt" / "output"
        output.mkdir(parents=True)
        link(run / "evaluations" / "task", output)
        assert (run / "evaluations" / "task").resolve() == output
    assert stage_at(run / "evaluations" / "task") is None  # no store
    (run / "format.json").touch()
    run.rename(tmp_path / "moved")
    assert stage_at(tmp_path / "moved/evaluations/task") == (tmp_path / "moved", "b" * 32)
    assert sorted(path.name for path in (tmp_path / "moved/evaluations").iterdir()) == ["task"]
