"""What a cluster offers, and a study whose stages hold several devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ablations.errors import UserError
from ablations.machine import load_machine
from mm1 import api
from mm1.placing import placed


def test_a_machine_that_simulates_devices_cuts_trainings_along_their_batch(study):
    made = api.plan(study)
    told: list[str] = []
    on = placed(made, load_machine("simulated-8"), told.append)
    assert on.stages.keys() == made.stages.keys()  # nothing runs anew for it
    for trial in on.trials:
        stage = on.stages[on.main(trial)]
        assert stage.config["training"]["mesh"]["data"] == 2  # of a batch of two
        assert stage.work.resources.devices == 2
    assert told == [
        "simulated-8: trainings without a mesh are cut along their batch, as with training.mesh "
        "{data: 2}"
    ]


def test_a_mesh_that_is_stated_stays_and_accelerators_change_no_recipe(study):
    path = study.parent / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["training"]["mesh"] = {"fsdp": 2}
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    made = api.plan(study)
    for name in ("simulated-8", "a100-8"):
        on = placed(made, load_machine(name), print)
        assert [one.config for one in on.stages.values()] == [
            one.config for one in made.stages.values()
        ]


def test_trials_that_share_a_gpu_are_refused_where_they_do_not_fit(study, tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("like: a100-1\nper_gpu: 4\naccelerator: {memory: 4 MB}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"of 4 that share a GPU of small each has 1 MB: ") as told:
        placed(api.plan(study), load_machine(str(path)), print)
    assert "\n" not in str(told.value)
    roomy = load_machine("a100-1").model_copy(update={"per_gpu": 4})
    placed(api.plan(study), roomy, print)


@pytest.mark.slow
def test_a_cluster_says_what_it_has_and_what_fits(mm1, study: Path):
    done = mm1("cluster", study, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    (node,) = figures["nodes"]
    assert node["cores"] >= 1
    assert all(one["holds"] == "1 core" and one["workers"] for one in figures["stages"])


@pytest.mark.slow
def test_a_mesh_of_simulated_devices_is_tried_on_a_laptop(mm1, study: Path, data_root):
    done = mm1("run", study, "--on", "simulated-8", "--data", data_root, "--workers", 1)
    assert done.returncode == 0, done.stderr + done.stdout
    records = [
        json.loads(p.read_bytes())
        for p in (study.parent / ".mm1" / "stages").rglob("execution.json")
    ]
    trained = [one for one in records if "form" in one]  # as trainings have it alone
    assert [one["mesh"]["data"] for one in trained] == [2] * 4
    assert {one["device_count"] for one in records} == {2}
