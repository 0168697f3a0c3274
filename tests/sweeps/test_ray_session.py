"""The embedded Ray: who can reach it, where its files are, what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from noop_stage import HERE, a_plan

from ablations.errors import UserError
from sweeps import ray_session as module
from sweeps.ray_session import private_folder
from sweeps.store import Store


def test_it_listens_on_loopback_alone_and_offers_no_metrics(ray_session):
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert found == {"127.0.0.1"}
    (metrics,) = ray_session.folder.glob("r/session_2*/metrics_export_port_*")
    assert int(metrics.read_text(encoding="utf-8")) <= 0


def test_its_folder_is_private_and_short(ray_session):
    assert ray_session.folder.stat().st_mode & 0o777 == 0o700
    sockets = ray_session.folder.glob("r/session_2*/sockets/*")
    assert max(len(str(path)) for path in sockets) <= 103


def test_a_folder_is_gone_afterwards(monkeypatch):
    _only_here(monkeypatch)
    with private_folder() as folder:
        (folder / "r").mkdir(mode=0o777)
    assert not folder.exists()


def test_what_a_killed_run_left_is_removed_by_the_next_one(monkeypatch):
    base = _only_here(monkeypatch)
    code = (
        "import os, time; from sweeps.ray_session import private_folder\n"
        "with private_folder() as folder: print(folder, flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "TMPDIR": str(base)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        folder = Path(process.stdout.readline().strip())
        assert folder.parent == base
        with private_folder():
            assert folder.is_dir()  # it lives
        process.send_signal(signal.SIGKILL)
    with private_folder():
        assert not folder.exists()
    base.rmdir()


def test_a_long_tmpdir_is_no_obstacle(monkeypatch, tmp_path):
    long = tmp_path / "a-folder-of-a-batch-system" / "of.many.characters"
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with private_folder() as folder:
        assert len(str(folder)) < 40
        assert not folder.is_relative_to(long)


def test_no_place_at_all_is_one_line_that_names_tmpdir(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_bases", lambda: iter([str(tmp_path / "nowhere"), "/proc"]))
    with pytest.raises(UserError, match="set TMPDIR"), private_folder():
        pass


def test_an_output_of_libraries_goes_to_a_file(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from sweeps.ray_session import ray_writes_to\n"
        "with ray_writes_to(Path(sys.argv[1])):\n"
        "    os.write(2, b'C++'); print('Python', file=sys.stderr)\n"
        "os.write(2, b'after')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, check=True
    )
    assert done.stderr == b"Python\nafter"
    assert (tmp_path / "log").read_bytes() == b"C++"


RUN = f"""
import sys
sys.path.insert(0, {HERE!r})
from noop_stage import a_plan
from ablations.errors import UserError
from sweeps.run import run_plan
plan = a_plan("hit", {{"base": {{"steps": 30, "seconds": 0.2}}}}, seeds=(1,))
sys.exit(run_plan(plan, sys.argv[1], data="data", workers=1, mlflow_uri="off"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_killed_ray_is_started_anew_and_the_run_goes_on(tmp_path, name):
    plan = a_plan("hit", {"base": {"steps": 30, "seconds": 0.2}}, seeds=(1,))
    store = Store(tmp_path / "store")
    with subprocess.Popen(
        [sys.executable, "-c", RUN, store.root],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as driver:
        deadline = time.monotonic() + 300
        while len(store.progress(plan.trials[0].stages["multimodal"])) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (victim,) = [
            process
            for process in psutil.Process(driver.pid).children(recursive=True)
            if Path(process.cmdline()[0]).name == name
        ]
        killed_at = time.time()
        victim.kill()
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0
    assert f"Ray's process {name} ended (killed by SIGKILL)" in output
    assert "Ray is started anew" in output
    assert "Check failed" not in output
    assert "raylet)" not in output
    # Its worker may live on for long enough to finish; else it goes on where it was.
    stage = plan.trials[0].stages["multimodal"]
    first = int((store.stage_folder(stage) / "first_step").read_text(encoding="utf-8"))
    assert first >= 4 or store.execution(stage)["started_at"] < killed_at


def _only_here(monkeypatch) -> Path:
    """A short folder of this test's own for temporary files."""
    base = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    return base
