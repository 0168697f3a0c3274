"""Submitting to a real local cluster whose processes have another working directory."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from noop_stage import a_plan

from ablations.errors import UserError
from sweeps import jobs, ray_jobs, reach
from sweeps.free_port import free_port
from sweeps.shipping import import_paths, shipment
from sweeps.store import Store
from sweeps.submit import submit

PLAN = a_plan("sent", {"base": {"steps": 2, "seconds": 0.1}}, seeds=(1,))
PORT = 8274


def test_shipment_holds_our_packages_and_the_runners():
    with shipment(PLAN) as folder:
        names = {path.name for path in folder.iterdir()}
        runner = {"noop_stage.py", "whole_files.py"}  # and what it imports
        assert names == {"ablations", "analysis", "mm1", "mm1_jax", "sweeps"} | runner
        assert not list(folder.rglob("__pycache__"))
        code = "import ablations.stage, noop_stage; print(ablations.stage.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        assert done.stdout.startswith(str(folder))


def test_shipment_holds_the_module_of_a_function_that_is_the_workload():
    """What calls it is ours; the code of its stages says where it is."""
    stages = {
        key: replace(
            one, work=one.work.model_copy(update={"run": "ablations.function_workload:run"})
        )
        for key, one in PLAN.stages.items()
    }
    assert {one.work.code.module for one in stages.values()} == {"noop_stage"}
    with shipment(PLAN.model_copy(update={"stages": stages})) as folder:
        assert (folder / "noop_stage.py").is_file()


def test_import_paths_are_absolute_so_that_workers_may_be_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    paths = import_paths(tmp_path / "own")
    assert str(tmp_path) in paths
    assert all(Path(path).is_absolute() for path in paths)


def test_marker_that_is_read_elsewhere_is_missed(tmp_path, monkeypatch):
    store, data = str(tmp_path / "store"), tmp_path / "data"
    with reach.markers(store, data) as token:
        assert reach.missing(store, str(data), token) == []
        assert reach.missing(str(tmp_path / "other"), "/nowhere", token) == [
            f"the store {tmp_path / 'other'}",
            "the data /nowhere",
        ]
        assert reach.missing(store, str(data), "another")
    assert not list(data.iterdir())
    with pytest.raises(UserError, match="cannot reach the store x"):
        reach.refuse(["the store x (from host)"])


def test_no_cluster_there_is_told_in_one_line(tmp_path):
    tried = (
        r"cannot reach a Ray cluster at http://127.0.0.1:9: tried 127.0.0.1 port 9 for up to 10 s"
    )
    with pytest.raises(UserError, match=tried):
        submit(PLAN, tmp_path, cluster="http://127.0.0.1:9", data=tmp_path, mlflow_uri="off")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:eighty is no address of a cluster"):
        submit(PLAN, tmp_path, cluster="http://127.0.0.1:eighty", data=tmp_path, mlflow_uri="off")


@pytest.mark.parametrize(
    ("store", "uri"),
    [
        ("store", "http://me:planted-secret@mlflow:5000"),
        ("store", "postgresql://me:planted-secret@host/mlflow"),
        ("memory://me:planted-secret@bucket/store", "http://mlflow:5000"),
    ],
)
def test_secrets_are_not_sent_in_a_job(tmp_path, monkeypatch, store, uri):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"me:\*\*\*@.* holds a secret.* set ") as told:
        submit(PLAN, store, cluster="http://127.0.0.1:9", data=tmp_path, mlflow_uri=uri)
    assert "planted" not in str(told.value)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, no_ray_variables):
    """`ray start --head` in another folder; ended by its process, not by `ray stop`."""
    yield from _started(tmp_path_factory.mktemp("elsewhere"), PORT, {"RAY_AUTH_MODE": "disabled"})


def _started(folder, port, variables):
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **variables}
    head = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port=0",
         "--num-cpus=2", "--object-store-memory=100000000", f"--dashboard-port={port}",
         f"--dashboard-agent-listen-port={free_port()}"],  # another Ray has the usual one
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(timeout=60)


def _client(cluster):
    from ray.job_submission import JobSubmissionClient

    for _ in range(120):
        try:
            return JobSubmissionClient(cluster)
        except (ConnectionError, RuntimeError):
            time.sleep(0.5)
    raise AssertionError("the cluster does not start")


@pytest.mark.slow
def test_job_runs_the_study_and_the_client_may_go(cluster, tmp_path, monkeypatch):
    client = _client(cluster)
    monkeypatch.chdir(tmp_path)
    job = submit(
        PLAN, "store", cluster=cluster, data=Path("store/data"), workers=1, mlflow_uri="off"
    )
    deadline = time.monotonic() + 900
    while not client.get_job_status(job).is_terminal():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    logs = client.get_job_logs(job)
    assert client.get_job_status(job) == "SUCCEEDED", logs
    assert "all 1 trials are there" in logs
    store = Store(tmp_path / "store")
    assert store.done(PLAN.stages) == set(PLAN.stages)
    revision = store.execution(PLAN.trials[0].stages["multimodal"])["git_revision"]
    assert len(revision) >= 40  # told by the client: the cluster has no repository
    found = jobs.job_of(Store(tmp_path / "store"), "sent")  # as from another laptop
    assert found.id == job
    assert "all 1 trials are there" in "".join(jobs.follow(found))
    assert jobs.succeeded(found)
    assert not jobs.stop(found)


@pytest.mark.slow
def test_job_that_does_not_end_in_time_is_stopped_and_says_how_far_it_is(cluster):
    client = _client(cluster)
    job = ray_jobs.submit(client, entrypoint="sleep 300")
    with pytest.raises(UserError, match=rf"within 5 s: its job {job} is (PENDING|RUNNING), \w+"):
        ray_jobs.outcome(client, job, 5.0)
    deadline = time.monotonic() + 60
    while not client.get_job_status(job).is_terminal():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_cluster_with_another_ray_is_refused(cluster, tmp_path, monkeypatch):
    _client(cluster)
    monkeypatch.setattr("ray.__version__", "2.0.0")
    with pytest.raises(UserError, match=r"it runs Ray \d+\.\d+\.\d+, and here is Ray 2\.0\.0"):
        submit(PLAN, tmp_path / "store", cluster=cluster, data=tmp_path, mlflow_uri="off")


TOKEN_SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from noop_stage import a_plan
from ablations.errors import UserError
from sweeps.submit import submit
plan = a_plan("sent", {{"base": {{"steps": 2}}}}, seeds=(1,))
try:
    submit(plan, {store!r}, cluster={cluster!r}, data=Path({store!r}), mlflow_uri="off")
except UserError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_cluster_that_wants_a_token_says_so(tmp_path):
    """Each in a process of its own: Ray reads the token once."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5e" * 32}
    started = _started(tmp_path, PORT + 1, token)
    address = next(started)
    try:
        deadline = time.monotonic() + 900
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", PORT + 1), timeout=1).close()
                break
            assert time.monotonic() < deadline
            time.sleep(0.5)
        store = str(tmp_path / "store")
        script = TOKEN_SCRIPT.format(here=str(Path(__file__).parent), store=store, cluster=address)
        for variables, told in (
            ({"RAY_AUTH_MODE": "token"}, "it wants a token, and none is set: set RAY_AUTH_TOKEN"),
            (
                {**token, "RAY_AUTH_TOKEN": "ab" * 32},
                "it wants a token, and the one here is not it",
            ),
        ):
            plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
            done = subprocess.run(
                [sys.executable, "-c", script],
                env={**plain, "HOME": str(tmp_path), **variables},
                capture_output=True,
                encoding="utf-8",
            )
            assert told in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
    finally:
        started.close()


@pytest.mark.slow
def test_place_that_the_cluster_does_not_reach_is_refused(cluster, tmp_path, monkeypatch):
    _client(cluster)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.submit.PROBE_SECONDS", 900.0)  # of a machine that is overloaded
    options = {"cluster": cluster, "mlflow_uri": "off"}
    with pytest.raises(UserError, match="cannot reach the store memory://"):
        submit(PLAN, "memory://here-only", data=tmp_path, **options)
    with pytest.raises(UserError, match="cannot reach the data /proc/self/cwd"):  # own for each
        submit(PLAN, tmp_path / "store", data="/proc/self/cwd/data", **options)
    assert Store(tmp_path / "store").studies() == []
