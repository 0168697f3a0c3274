"""What hangs is ended, what ran out of memory gets room, what is taken away goes on elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from killing import until, worker_pids
from noop_stage import a_plan, having

from ablations.identity import code_fingerprint
from ablations.workload import Answer, Code
from sweeps import watchdog
from sweeps.run import run_plan
from sweeps.store import Store


def faulty_plan(study, arms):
    """One training of `faulty_stage` for each arm, which answers too."""
    plan = a_plan(study, arms, seeds=(1,))
    stages, trials = {}, []
    for trial in plan.trials:
        stage = having(
            plan.stages[trial.stages["multimodal"]],
            run="faulty_stage:train",
            code=Code(module="faulty_stage", function="train"),
            code_fingerprint=code_fingerprint("faulty_stage", "train"),
        )
        stages[stage.id] = stage
        trials.append(type(trial)(trial.arm, trial.seed, {"multimodal": stage.id}))
    answers = (Answer(role="multimodal", task="easy_vqa"),)
    arms = tuple(
        arm.model_copy(update={"roles": ("multimodal",), "answers": answers}) for arm in plan.arms
    )
    changes = {"stages": stages, "trials": tuple(trials), "arms": arms}
    return plan.model_copy(update=changes)


@pytest.fixture
def run(ray_session, tmp_path):
    def run(plan, **options):
        options = {"workers": 1, "mlflow_uri": "off", "quiet": True, **options}
        return run_plan(plan, tmp_path / "store", data=tmp_path / "data", **options)

    return run


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_stage_that_hangs_is_ended_where_it_was_and_tried_again(run, store, monkeypatch, capsys):
    plan = faulty_plan("hanging", {"base": {"hangs": 1}})
    (stage,) = plan.stages
    hung = store.scratch(stage) / "hung"  # how often it came to where it may hang

    def most_seconds(*_):
        hangs = hung.exists() and hung.read_text(encoding="utf-8") == "1"
        return 1.0 if hangs and not store.failures(stage) else float("inf")

    monkeypatch.setattr(watchdog.Watchdog, "most_seconds", most_seconds)
    assert run(plan) == 0
    (failure,) = store.failures(stage)
    assert failure["cause"] == "hang"
    assert "it hung: no report, print or saved file for 0:0" in failure["error"]
    assert "faulty_stage.py:" in failure["error"]
    assert "sleep_for_ever" in failure["error"]
    assert "in sleep_for_ever" in failure["traceback"]
    assert "attempt 1 of 3, is tried again" in capsys.readouterr().err


@pytest.mark.slow
def test_what_ran_out_of_memory_is_tried_once_more_with_nothing_beside_it(run, store, capsys):
    arms = {"hungry": {"hungry": 1}, "starving": {"hungry": 9}, "beside": {"steps": 60}}
    plan = faulty_plan("hungry", arms)
    stages = {trial.arm: trial.stages["multimodal"] for trial in plan.trials}
    assert run(plan, workers=2) == 1
    ran = {arm: store.execution(stages[arm]) for arm in ("hungry", "beside")}
    ended_first, began_second = sorted(ran.values(), key=lambda one: one["ended"])
    assert ended_first["ended"] <= began_second["began"]
    failures = {arm: store.failures(stage) for arm, stage in stages.items()}
    assert [one["cause"] for one in failures["hungry"]] == ["memory"]
    assert failures["hungry"][0]["peak_memory_bytes"] > 2**20
    assert [one["cause"] for one in failures["starving"]] == ["memory"] * 2  # not three times
    told = capsys.readouterr().err
    assert "is tried once more, with nothing beside it on its machine" in told
    assert "given up, also with nothing beside it on its machine" in told


@pytest.mark.parametrize("deaf", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_worker_that_is_taken_away_costs_no_attempt(run, store, capsys, deaf):
    """SIGTERM: it saves itself, and another one goes on; or it is killed before it could."""
    plan = faulty_plan("taken", {"base": {"steps": 60, "deaf": deaf}})
    (stage,) = plan.stages
    taken = []

    def take_away():
        until(lambda: len(store.progress(stage)) >= 5)
        taken.extend(worker_pids(store))
        os.kill(taken[0], signal.SIGTERM)
        if deaf:
            until(lambda: (store.scratch(stage) / "taken-away.txt").exists())
            os.kill(taken[0], signal.SIGKILL)

    cloud = threading.Thread(target=take_away)
    cloud.start()
    assert run(plan) == 0
    cloud.join()
    assert store.failures(stage) == []
    assert store.execution(stage)["pid"] not in taken
    assert "failed_before" not in store.execution(stage)
    first = int((store.stage_folder(stage) / "first_step").read_text(encoding="utf-8"))
    assert first >= 4
    assert ("lost: " if deaf else "yielded: ") in capsys.readouterr().err


@pytest.mark.slow
def test_only_what_failed_is_run_again(run, store, tmp_path):
    plan = faulty_plan("partly", {"bad": {"hungry": 2}, "new": {}})
    stages = {trial.arm: trial.stages["multimodal"] for trial in plan.trials}
    store.record_failure(stages["bad"], "by-hand", {"error": "told to"})
    assert run(plan, failed_only=True) == 1
    assert not store.done(plan.stages)
    assert run(plan, failed_only=True) == 0
    assert store.done(plan.stages) == {stages["bad"]}


def test_patience_grows_with_what_is_known():
    dog = watchdog.Watchdog(1800.0)
    assert dog.most_seconds(longest=10.0, measured=None, planned=50.0) == 1800.0
    assert dog.most_seconds(longest=600.0, measured=None, planned=50.0) == 12_000.0
    assert dog.most_seconds(longest=None, measured=7200.0, planned=50.0) == 144_000.0
    assert dog.most_seconds(longest=None, measured=None, planned=60.0) == 86_400.0


def test_prints_and_saved_files_are_signs_of_life(tmp_path):
    assert watchdog.silent_seconds(tmp_path / "not there") == float("inf")
    (tmp_path / "stack.txt").write_text("written because it is silent", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "sub", tmp_path):
        os.utime(path, (1.0, 1.0))
    assert watchdog.silent_seconds(tmp_path) > 1e6
    (tmp_path / "sub" / "checkpoint").write_text("saved", encoding="utf-8")
    for path in (tmp_path / "sub", tmp_path):
        os.utime(path, (1.0, 1.0))
    assert watchdog.silent_seconds(tmp_path) < time.time() - 1.0
    assert watchdog.silent_seconds(tmp_path) < 600


@pytest.mark.slow
def test_nodes_come_are_drained_and_are_lost_and_no_attempt_fails(tmp_path):
    program = Path(__file__).with_name("coming_and_going.py")
    ran = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
        timeout=1800,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["trouble"] == []
    assert found["code"] == 0
    assert found["joined"]
    assert found["failures"] == 0
    assert any("yielded: " in line for line in found["said"])
    assert any("lost: " in line for line in found["said"])
    assert len(found["resumed"]) == 4
    assert sum(first > 0 for first in found["resumed"]) >= 2
