"""A study on SLURM: a real slurmctld and two slurmd on loopback, where they are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from noop_stage import a_plan

from ablations.errors import UserError
from sweeps import jobs, slurm
from sweeps.store import Store
from sweeps.submit import submit

HERE = Path(__file__).parent
PLAN = a_plan("batch", {"base": {"steps": 2, "seconds": 0.1}}, seeds=(1, 2))
LONG = a_plan("long", {"base": {"steps": 100_000, "seconds": 0.1}}, seeds=(1,))
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")


def test_a_partition_is_named_after_slurm():
    assert slurm.is_slurm("slurm:gpu")
    assert slurm.is_slurm("slurm:")
    assert not slurm.is_slurm("http://slurm:8265")
    assert not slurm.is_slurm(None)


def test_partition_and_log_that_no_script_could_hold_are_refused(tmp_path):
    with pytest.raises(UserError, match="'gpu;rm' is no name of a partition"):
        slurm.submit("slurm:gpu;rm", "s", ["run", "s"], tmp_path)
    with pytest.raises(UserError, match="takes no blanks or quotes in the path of a log"):
        slurm.submit("slurm:gpu", "s", ["run", "s"], tmp_path / "a b")


def test_words_of_the_study_reach_the_script_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="there is no sbatch here: slurm:… is for a machine of"):
        slurm.submit("slurm:", "s", ["run", "$(touch x)"], tmp_path, nodes=3)
    (script,) = tmp_path.glob("s-*.sh")
    text = script.read_text(encoding="utf-8")
    assert "'$(touch x)'" in text
    assert "#SBATCH --nodes=3" in text
    assert "--partition" not in text
    assert subprocess.run(["/bin/bash", "-n", str(script)]).returncode == 0


def test_store_at_a_url_is_refused(tmp_path):
    with pytest.raises(UserError, match="must be a folder that all nodes share, not a URL"):
        submit(PLAN, "memory://here", cluster="slurm:x", data=tmp_path, mlflow_uri="off")


def test_study_that_was_never_submitted_is_told(tmp_path):
    store = Store(tmp_path)
    store.register(PLAN)
    with pytest.raises(UserError, match="study 'batch' was never submitted"):
        jobs.job_of(store, "batch")


@pytest.fixture(scope="module")
def partition(tmp_path_factory, no_ray_variables):
    """SLURM of two nodes of two cores each, all on this machine."""
    lacking = [name for name in DAEMONS if shutil.which(name, path=_PATH) is None]
    if lacking or os.getuid() != 0:
        pytest.skip(f"needs root and Debian's slurmctld, slurmd and munge; no {lacking}")
    folder = Path("/tmp") / f"slurm-{os.getpid()}"  # its sockets need a short path
    (folder / "state").mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    ports = [_free_port() for _ in range(3)]
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    settings = {
        "ClusterName": "loop",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge.socket",
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": f"{folder}/spool.%n",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd.%n.pid",
        "ProctrackType": "proctrack/pgid",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "ReturnToService": 2,
        "MpiDefault": "none",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": f"{folder}/slurmd.%n.log",
    }
    nodes = [
        f"NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[n]} CPUs=2"
        for n in (1, 2)
    ]
    lines = [*(f"{k}={v}" for k, v in settings.items()), *nodes]
    lines.append("PartitionName=loop Nodes=n1,n2 Default=YES MaxTime=1:00:00 State=UP")
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
    files = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in
             ("socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    started = [
        subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for words in (
            ["munged", "--foreground", "--force", f"--key-file={key}", *files],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", "n1"],
            ["slurmd", "-D", "-N", "n2"],
        )
    ]
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
    patch.setenv("PATH", _PATH)
    patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    try:
        deadline = time.monotonic() + 120
        while "2 idle" not in _sinfo():
            assert time.monotonic() < deadline, _sinfo()
            time.sleep(0.5)
        yield "slurm:loop"
    finally:
        subprocess.run(["scancel", "--partition=loop", "--full"], capture_output=True)
        time.sleep(1)
        patch.undo()
        for process in reversed(started):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _sinfo() -> str:
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%D %t"], capture_output=True, encoding="utf-8"
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_study_runs_on_two_nodes_and_is_found_again(partition, tmp_path):
    store = tmp_path / "store"
    job = submit(PLAN, store, cluster=partition, data=store / "data", mlflow_uri="off", nodes=2)
    found = jobs.job_of(Store(store), "batch")  # as from another machine that has the store
    assert (found.id, found.cluster) == (job, partition)
    printed = "".join(jobs.follow(found))
    assert jobs.state(found) == "COMPLETED", printed
    assert jobs.succeeded(found)
    assert "Ray runs on 2 nodes" in printed
    assert "all 2 trials are there" in printed
    assert Store(store).done(PLAN.stages) == set(PLAN.stages)
    assert not jobs.stop(found)  # it has ended
    assert not list((store / "slurm").glob("job-*"))


@pytest.mark.slow
def test_job_that_is_stopped_saves_what_it_has_and_can_be_gone_on_with(partition, tmp_path):
    store = tmp_path / "store"
    submit(LONG, store, cluster=partition, data=store / "data", mlflow_uri="off")
    found = jobs.job_of(Store(store), "long")
    first = LONG.trials[0].stages["multimodal"]
    deadline = time.monotonic() + 300
    while not Store(store).progress(first):
        assert time.monotonic() < deadline
        assert jobs.state(found) in slurm.ALIVE
        time.sleep(0.5)
    assert jobs.stop(found)
    printed = "".join(jobs.follow(found))
    assert "stopping: workers save what they have" in printed
    assert jobs.state(found) not in slurm.ALIVE
    assert not jobs.succeeded(found)


@pytest.mark.slow
def test_what_slurm_refuses_is_told_in_its_words(partition, tmp_path):
    with pytest.raises(UserError, match=r"sbatch: .*[Ii]nvalid partition"):
        submit(PLAN, tmp_path, cluster="slurm:none", data=tmp_path, mlflow_uri="off")
    options = {"data": tmp_path, "mlflow_uri": "off", "sbatch": ["--time=nonsense"]}
    with pytest.raises(UserError, match=r"sbatch: .*time"):
        submit(PLAN, tmp_path, cluster=partition, **options)


def test_the_node_program_imports_nothing_heavy_before_it_must():
    code = (
        "import sys, sweeps.slurm_node; sys.exit(bool({'ray', 'jax', 'pandas'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE).returncode == 0
