"""A store on a disk that is full, or that may only be read: real ones, of a megabyte."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from noop_stage import HERE, a_plan

from sweeps import fsck
from sweeps.store import Store
from sweeps.worker import execute

PLAN = a_plan("small", {"base": {}}, seeds=(1, 2))
RUN = f"""
import sys
sys.path.insert(0, {HERE!r})
import mm1.api, mm1.cli
from noop_stage import a_plan
from sweeps.run import run_plan
plan = a_plan("small", {{"base": {{}}}}, seeds=(1, 2))
store = sys.argv[1]
options = {{"data": "data", "workers": 1, "mlflow_uri": "off", "quiet": True}}
mm1.api.run = lambda study, **_: run_plan(plan, store, **options)
sys.argv = ["mm1", "run", "small", "--store", store]
mm1.cli.main()
"""


@pytest.fixture
def disk(tmp_path):
    """A disk of one megabyte; skips where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """A file that leaves no byte."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return ballast


def run_all(store: Store) -> list[str]:
    return [
        execute(store, stage, Path("data"), threading.Event(), "revision").state
        for stage in PLAN.stages.values()
    ]


def mm1(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mm1", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_a_full_disk_is_one_line_and_what_was_finished_is_kept(disk):
    store = Store(disk / "store")
    store.register(PLAN)
    first, *_ = PLAN.stages.values()
    assert execute(store, first, Path("data"), threading.Event(), "revision").state == "done"
    ballast = fill(disk)
    assert "disk full" in run_all(store)[1:]
    command = [sys.executable, "-c", RUN, store.root]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "the disk is full" in line
    assert "Traceback" not in ran.stderr
    ballast.unlink()
    assert store.is_done(first.id)
    assert set(run_all(store)) == {"done"}
    assert [one for one in fsck.examine(Store(disk / "store")) if one.kind == "damage"] == []
    assert not [stage for stage in PLAN.stages if store.failures(stage)]


def test_a_store_that_may_only_be_read_is_shown_and_refuses_a_run_in_one_line(disk):
    store = Store(disk / "store")
    store.register(PLAN)
    assert set(run_all(store)) == {"done"}
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for words in (["status"], ["compare", "small"], ["fsck"], ["gc"]):
        shown = mm1(*words, "--store", store.root)
        assert shown.returncode == 0, shown.stderr
    command = [sys.executable, "-c", RUN, store.root]
    ran = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "ead-only file system" in line
