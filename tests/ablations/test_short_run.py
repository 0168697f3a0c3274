"""A stage that is tried is stopped after its first step and goes on with what it saved."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "sweeps"))
from noop_stage import a_plan  # ty: ignore[unresolved-import]

from ablations.short_run import RESTORED, tried
from ablations.stage import ResultRow, StageStopped
from sweeps.store import Store
from sweeps.worker import execute


def forgetful(config, seed, inputs, context):
    """Saves nothing when it is asked to stop."""
    context.report(1, {"loss": 1.0})
    if context.stop_requested():
        raise StageStopped
    return [ResultRow("training", "loss", 1.0)]


def short(config):
    plan = a_plan("short", {"base": config}, seeds=(1,))
    stage = plan.stages[plan.trials[0].stages["multimodal"]]
    changes = tried(stage)
    object.__setattr__(stage, "work", stage.work.model_copy(update=changes))
    return stage


def test_it_is_saved_and_restored(tmp_path):
    store, stage = Store(tmp_path), short({"steps": 2})
    outcome = execute(store, stage, tmp_path, threading.Event(), "revision")
    assert outcome.state == "done", outcome.error
    assert store.execution(stage.id)[RESTORED] is True
    first = (store.stage_folder(stage.id) / "first_step").read_text(encoding="utf-8")
    assert first == "1"


def test_what_begins_anew_has_failed(tmp_path, monkeypatch):
    store, stage = Store(tmp_path), short({"steps": 2})
    monkeypatch.setattr("noop_stage.train", forgetful)
    outcome = execute(store, stage, tmp_path, threading.Event(), "revision")
    assert outcome.state == "failed"
    assert "began anew with step 1: nothing was restored" in outcome.error


def test_what_asks_for_no_stop_is_run_through(tmp_path):
    store, stage = Store(tmp_path), short({"steps": 0})
    assert execute(store, stage, tmp_path, threading.Event(), "revision").state == "done"
    assert RESTORED not in store.execution(stage.id)


def test_a_stop_that_is_asked_for_is_one(tmp_path):
    store, stage, stop = Store(tmp_path), short({"steps": 2}), threading.Event()
    stop.set()
    assert execute(store, stage, tmp_path, stop, "revision").state == "stopped"
