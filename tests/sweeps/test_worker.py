"""Executing a stage, without Ray: results, failures, stops and full disks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import uuid

import pytest
from noop_stage import HERE, a_plan, a_stage, having

from ablations.errors import UserError
from ablations.resources import Shape
from mm1_jax.scale.execution import environment
from sweeps import leases, worker
from sweeps.isolation import isolated
from sweeps.store import Store
from sweeps.worker import execute, resolve


@pytest.fixture(params=["disk", "memory://"])
def store(request, tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Store(tmp_path / "store" if request.param == "disk" else f"memory://{uuid.uuid4().hex}")


def run(store, stage, stop=None):
    return execute(store, stage, store.local / "data", stop or threading.Event(), "revision")


def test_trial_runs_on_a_disk_and_on_a_url(store):
    plan = a_plan("tiny", {"base": {"steps": 2, "score": 60}}, seeds=(3,))
    (trial,) = plan.trials
    for stage_id in (trial.stages["multimodal"], trial.stages["easy_vqa"]):
        assert run(store, plan.stages[stage_id]).state == "done"
    rows = Store(store.root).rows(plan.stages)
    assert rows.loc[rows["task"] == "easy_vqa", "value"].tolist() == [63.0]
    execution = store.execution(trial.stages["multimodal"])
    assert execution["git_revision"] == "revision"
    assert execution["seconds"] >= 0
    assert not store.scratch(trial.stages["multimodal"]).exists()
    assert leases.holder(store.objects, store.lease_folder(trial.stages["multimodal"])) is None


def test_what_a_runner_records_stands_in_the_execution_record(store):
    stage = a_stage("train", {"steps": 1, "facts": {"mesh": {"fsdp": 2}}}, 1)
    assert run(store, stage).state == "done"
    execution = store.execution(stage.id)
    assert execution["mesh"] == {"fsdp": 2}
    assert {"threads", "machine", "python", "seconds"} <= set(execution)


def test_what_a_stage_records_stands_in_its_record(store):
    stage = a_stage("train", {"facts": {"images": "0123"}}, 1)
    assert run(store, stage).state == "done"
    assert store.execution(stage.id)["images"] == "0123"


def test_finished_stage_is_not_run_again(store):
    stage = a_stage("train", {}, 1)
    run(store, stage)
    attempt = store.execution(stage.id)["attempt"]
    again = run(store, stage)
    assert (again.state, again.seconds) == ("done", 0.0)
    assert store.execution(stage.id)["attempt"] == attempt


def test_stage_with_a_living_owner_is_left_alone(store):
    stage = a_stage("train", {}, 1)
    lease = leases.acquire(store.objects, store.lease_folder(stage.id))
    assert run(store, stage).state == "elsewhere"
    lease.release()
    assert run(store, stage).state == "done"


def test_stop_signal_saves_and_the_next_attempt_goes_on(store):
    stage = a_stage("train", {"steps": 5}, 1)
    stop = threading.Event()
    stop.set()
    for done in range(1, 3):
        assert run(store, stage, stop).state == "stopped"
        assert (store.scratch(stage.id) / "step").read_text(encoding="utf-8") == str(done)
        assert not store.is_done(stage.id)
    assert run(store, stage).state == "done"
    assert (store.stage_folder(stage.id) / "first_step").read_text(encoding="utf-8") == "2"


def test_exception_is_recorded_and_worth_another_try(store):
    stage = a_stage("train", {"fails": 1}, 1)
    outcome = run(store, stage)
    assert (outcome.state, outcome.again) == ("failed", True)
    assert outcome.error == "ValueError: told to fail (1)"
    assert "Traceback" in store.failures(stage.id)[0]["traceback"]
    assert run(store, stage).state == "done"


def test_full_disk_is_no_failure_of_the_stage(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stage = a_stage("train", {}, 1)
    monkeypatch.setattr(worker, "resolve", lambda path: full)
    assert run(store, stage).state == "disk full"
    assert store.failures(stage.id) == []


def test_other_code_than_planned_is_refused(store):
    stage = having(a_stage("train", {}, 1), code_fingerprint="another")
    outcome = run(store, stage)
    assert (outcome.state, outcome.again) == ("failed", False)
    assert "plan it anew" in outcome.error
    assert not store.is_done(stage.id)


def test_damaged_input_is_refused(tmp_path):
    plan = a_plan("tiny", {"base": {}}, seeds=(1,))
    (trial,) = plan.trials
    run(Store(tmp_path), plan.stages[trial.stages["multimodal"]])
    (path,) = tmp_path.glob("stages/*/*/*/output/config.json")
    path.write_text('{"score": 99}', encoding="utf-8")
    outcome = run(Store(tmp_path), plan.stages[trial.stages["easy_vqa"]])
    assert (outcome.state, outcome.again) == ("failed", False)
    assert "damaged" in outcome.error


def test_reports_are_seen_while_the_stage_runs(tmp_path):
    store, stage = Store(tmp_path), a_stage("train", {"steps": 3}, 1)
    stop = threading.Event()
    stop.set()
    run(store, stage, stop)
    (report,) = store.progress(stage.id)
    assert (report["step"], report["loss"]) == (1, 1.0)


def test_import_paths_name_functions():
    assert resolve("noop_stage:train").__name__ == "train"
    with pytest.raises(UserError, match="did you mean 'train'"):
        resolve("noop_stage:trian")
    with pytest.raises(UserError, match="cannot import"):
        resolve("nosuchmodule:train")


def test_environment_asks_for_a_thread_a_core_and_keeps_the_users_flags(tmp_path):
    variables = environment(Shape(), tmp_path, "--mine")
    assert isolated(Shape())["OMP_NUM_THREADS"] == "1"
    assert isolated(Shape(cpu=3.5))["OPENBLAS_NUM_THREADS"] == "3"
    assert variables["XLA_FLAGS"].startswith("--mine ")
    assert "intra_op_parallelism_threads=1" in variables["XLA_FLAGS"]
    assert "threads=4" in environment(Shape(cpu=4), tmp_path)["XLA_FLAGS"]
    assert variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)


def test_a_process_sees_its_devices_alone(tmp_path):
    """Which GPUs are its own is Ray's to say."""
    assert isolated(Shape())["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(Shape(), tmp_path)["JAX_PLATFORMS"] == "cpu"
    assert "CUDA_VISIBLE_DEVICES" not in isolated(Shape(gpu=1))
    assert "JAX_PLATFORMS" not in environment(Shape(gpu=1), tmp_path)
    assert isolated(Shape(gpu=0.25))["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.225"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in isolated(Shape(gpu=1))
    flags = environment(Shape(simulated_devices=8), tmp_path)["XLA_FLAGS"]
    assert "--xla_force_host_platform_device_count=8" in flags


def test_what_a_stage_prints_and_where_it_is_silent_is_kept_and_the_streams_come_back(tmp_path):
    """In a process of its own, because file descriptors are the process's."""
    code = f"""
import os, sys, time
sys.path.insert(0, {HERE!r})
from pathlib import Path
from sweeps import worker_output
worker_output.QUIET_SECONDS = 0.3
output = worker_output.WorkerOutput(Path("scratch"))
with output.taken():
    print("from python")
    os.system("echo from a child; echo and its errors >&2")
    output.heard()
    deadline = time.monotonic() + 60
    while not worker_output.stack(Path("scratch")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "in <module>" in worker_output.stack(Path("scratch"))
    output.heard()
    assert worker_output.stack(Path("scratch")) == ""
print("back again")
Path("kept").mkdir()
output.keep(Path("kept"))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "back again\n", "")
    kept = (tmp_path / "kept" / "printed.txt").read_text(encoding="utf-8")
    assert kept == "from python\nfrom a child\nand its errors\n"
