"""A study as a RayJob: what is refused before, and one that runs on a Ray that is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from noop_stage import a_plan

from ablations.errors import UserError
from sweeps import jobs, kuberay
from sweeps.free_port import free_port
from sweeps.store import Store
from sweeps.submit import submit

PLAN = a_plan("sent", {"base": {"steps": 2, "seconds": 0.1}}, seeds=(1,))
LONG = a_plan("long", {"base": {"steps": 600, "seconds": 0.5}}, seeds=(1,))
POD = {
    "spec": {
        "containers": [
            {
                "name": "ray",
                "image": "registry.example.org/mm1:1.0",
                "resources": {"limits": {"cpu": "1500m", "memory": "16Gi"}},
                "volumeMounts": [{"name": "shared", "mountPath": "/"}],
            }
        ]
    }
}
CLUSTER = {
    "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": POD},
    "workerGroupSpecs": [
        {"groupName": "cores", "replicas": 2, "rayStartParams": {}, "template": POD}
    ],
}


def written(folder: Path, spec: dict, kind: str = "RayCluster", **rest: object) -> str:
    document = {
        "apiVersion": "ray.io/v1",
        "kind": kind,
        "metadata": {"name": "lab", "namespace": "research", "labels": {"queue": "ablations"}},
        "spec": spec,
        **rest,
    }
    place = folder / "cluster.yaml"
    place.write_text(yaml.dump(document, Dumper=_Plain), encoding="utf-8")
    return f"kuberay:{place}"


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


def changed(tree, *path, to):
    """A copy of a tree with another value at a path."""
    key, *rest = path
    copy = list(tree) if isinstance(tree, list) else dict(tree)
    copy[key] = changed(copy[key], *rest, to=to) if rest else to
    return copy


WORKERS = ("workerGroupSpecs", 0)
CONTAINER = (*WORKERS, "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("spec", "rest", "told"),
    [
        (CLUSTER, {"kind": "Rayjob"}, r"cluster.yaml:\d+: expected ray.io/v1 RayJob or RayCluster, "
         r"got 'ray.io/v1 Rayjob'; did you mean 'RayJob'"),
        (CLUSTER, {"apiVersion": "v1"}, "got 'v1 RayCluster'"),
        ({}, {}, r"spec.headGroupSpec is missing, or no mapping"),
        ({**CLUSTER, "rayVersion": "2.9.0"}, {}, r"the cluster's is Ray 2.9.0, and here is Ray "),
        (changed(CLUSTER, *CONTAINER, "volumeMounts", to=[{"mountPath": "/other"}]), {},
         r"the pods of group cores cannot reach the store .*: they mount /other"),
        (changed(CLUSTER, *CONTAINER, "resources", "limits", "memory", to="16 gigs"), {},
         r"resources: memory: '16 gigs' is no amount such as 4, 500m or 16Gi"),
        (changed(CLUSTER, *CONTAINER, "resources", "limits", "cpu", to=0), {},
         r"needs 1 core; the cluster has 3 nodes with 0 cores"),
        (changed(CLUSTER, *WORKERS, "template", "spec", "containers", to=[]), {},
         r"template.spec.containers: there is none"),
        ({"submissionMode": "HTTPMode", "rayClusterSpec": CLUSTER}, {"kind": "RayJob"},
         r"submissionMode 'HTTPMode'"),
        ({"clusterSelector": {"ray.io/cluster": "x"}}, {"kind": "RayJob"},
         r"spec.rayClusterSpec is missing"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_told_before(tmp_path, monkeypatch, spec, rest, told):
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing is asked of a cluster
    place = written(tmp_path, spec, **rest)
    with pytest.raises(UserError, match=told):
        submit(PLAN, tmp_path / "store", cluster=place, data=tmp_path, mlflow_uri="off")
    assert Store(tmp_path / "store").studies() == []


def test_name_that_a_command_cannot_have_is_refused(tmp_path):
    template = kuberay.Template(written(tmp_path, CLUSTER))
    with pytest.raises(UserError, match=r"takes no blanks, quotes or signs: 'my study'"):
        kuberay.manifest(template, "my study", ["run", "my study"], "file:///x.zip", {})


@pytest.mark.parametrize(
    ("kubectl", "told"),
    [
        ("", "there is no kubectl here, by which kuberay:… reaches its cluster"),
        ("echo 'E1203 log' >&2; echo 'no connection' >&2; exit 1", "kubectl get: no connection"),
    ],
)
def test_no_cluster_is_told_before_anything_is_registered(tmp_path, monkeypatch, kubectl, told):
    if kubectl:
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{kubectl}\n", encoding="utf-8")
        (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    place = written(tmp_path, CLUSTER)
    with pytest.raises(UserError, match=told):
        submit(PLAN, tmp_path / "store", cluster=place, data=tmp_path, mlflow_uri="off")
    assert Store(tmp_path / "store").studies() == []


def test_job_is_the_labs_own_with_what_is_run(tmp_path):
    job = {
        "backoffLimit": 2,
        "entrypoint": "python theirs.py",
        "shutdownAfterJobFinishes": False,
        "runtimeEnvYAML": "env_vars: {HF_HOME: /shared/hf}\npip: [smart_open]",
        "rayClusterSpec": {**CLUSTER, "rayVersion": version("ray")},
    }
    template = kuberay.Template(written(tmp_path, job, kind="RayJob"))
    words = ["run", "sent", "--store", "s3://bucket/mm1"]
    made = kuberay.manifest(template, "Sent_" * 20, words, "s3://bucket/x.zip", {"A": "1"})
    name = made["metadata"].pop("name")
    assert len(name) <= 47
    assert name.startswith("mm1-sent-sent-")
    assert made["metadata"] == {
        "namespace": "research",
        "labels": {"queue": "ablations"},
        "annotations": {"mm1/study": "Sent_" * 20},
    }
    spec = made["spec"]
    assert spec["entrypoint"] == "python -m mm1 run sent --store s3://bucket/mm1 --cluster auto"
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {
        "env_vars": {"HF_HOME": "/shared/hf", "A": "1"},
        "pip": ["smart_open"],
        "working_dir": "s3://bucket/x.zip",
    }
    assert (spec["backoffLimit"], spec["shutdownAfterJobFinishes"]) == (2, False)
    assert spec["rayClusterSpec"] == job["rayClusterSpec"]


def test_pods_are_nodes(tmp_path):
    spec = changed(CLUSTER, *CONTAINER, "resources", "limits", to={"nvidia.com/gpu": 8})
    head, *workers = kuberay.Template(written(tmp_path, spec)).nodes()
    assert head.has == {"CPU": 0.0, "GPU": 0.0, "memory": pytest.approx(0.7 * 16 * 2**30)}
    assert [one.has for one in workers] == [{"CPU": 0.0, "GPU": 8.0, "memory": float("inf")}] * 2
    spec = changed(spec, *CONTAINER, "resources", "limits", to={"google.com/tpu": 4})
    assert kuberay.Template(written(tmp_path, spec)).nodes() == []


@pytest.mark.parametrize(
    ("phase", "said", "state"),
    [
        (None, None, "PENDING"),
        ("Initializing", None, "INITIALIZING"),
        ("Running", "PENDING", "PENDING"),
        ("Running", "FAILED", "RUNNING"),  # it may be tried again
        ("Retrying", "FAILED", "RETRYING"),
        ("Complete", "SUCCEEDED", "SUCCEEDED"),
        ("Complete", "FAILED", "FAILED"),
        ("Failed", None, "FAILED"),
        ("ValidationFailed", None, "FAILED"),
        ("Suspended", None, "SUSPENDED"),
    ],
)
def test_states(monkeypatch, phase, said, state):
    status = {"jobDeploymentStatus": phase, "jobStatus": said}
    monkeypatch.setattr(kuberay, "_status", lambda job: status)
    assert kuberay.state("research/x") == state


@pytest.fixture
def kubernetes(tmp_path, monkeypatch, no_ray_variables):
    """A Ray in another folder, and a kubectl that gives it what KubeRay would."""
    port = free_port()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bin_of = Path(sys.executable).parent
    # What an image has: our requirements by the name `python`.
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "PATH": f"{bin_of}:{os.environ['PATH']}",
    }
    head = subprocess.Popen(
        [bin_of / "ray", "start", "--head", "--block", "--port=0", "--num-cpus=2",
         "--object-store-memory=100000000", f"--dashboard-port={port}",
         f"--dashboard-agent-listen-port={free_port()}"],
        cwd=elsewhere,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    script = Path(__file__).with_name("kubectl_stand_in.py")
    kubectl.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n', encoding="utf-8")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_FOLDER", str(tmp_path))
    monkeypatch.setenv("STAND_IN_RAY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    try:
        deadline = time.monotonic() + 120
        while not _listens(port):
            assert time.monotonic() < deadline, "the cluster does not start"
            time.sleep(0.5)
        yield written(tmp_path, CLUSTER)
    finally:
        head.terminate()
        head.wait(timeout=60)


def _listens(port: int) -> bool:
    import urllib.request

    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_study_runs_as_a_rayjob_and_is_found_again(kubernetes, tmp_path):
    store = Store(tmp_path / "store")
    options = {"cluster": kubernetes, "data": tmp_path / "data", "mlflow_uri": "off"}
    submit(PLAN, store.root, workers=1, **options)
    found = jobs.job_of(Store(tmp_path / "store"), "sent")  # as from another laptop
    assert found.id.startswith("research/mm1-sent-")
    assert "all 1 trials are there" in "".join(jobs.follow(found))
    assert jobs.state(found) == "SUCCEEDED"
    assert jobs.succeeded(found)
    assert not jobs.stop(found)
    assert store.done(PLAN.stages) == set(PLAN.stages)
    execution = store.execution(PLAN.trials[0].stages["multimodal"])
    assert len(execution["git_revision"]) >= 40  # told by the client: the pods have no repository

    submit(LONG, store.root, workers=1, **options)
    found = jobs.job_of(store, "long")
    deadline = time.monotonic() + 120
    stage = LONG.trials[0].stages["multimodal"]
    while not store.progress(stage):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    with pytest.raises(UserError, match="study 'long' is already being run"):
        submit(LONG, store.root, workers=1, **options)
    assert jobs.stop(found)
    while jobs.state(found) == "RUNNING":
        assert time.monotonic() < deadline + 60
        time.sleep(0.5)
    assert jobs.state(found) == "STOPPED"
