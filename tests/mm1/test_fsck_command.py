"""mm1 fsck, and what the other commands say of a store: where it is, that it cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ablations.plan import make_plan
from ablations.stage import ResultRow
from mm1 import api
from mm1.studies import load_study
from sweeps.store import Store


@pytest.fixture
def store(tmp_path: Path, study: Path) -> Store:
    """A store with the small study registered and its first training done."""
    plan = make_plan(load_study(study))
    opened = Store(tmp_path / ".mm1")
    opened.register(plan)
    first = plan.trials[0]
    for stage in first.stages.values():
        attempt = opened.begin(plan.stages[stage])
        kind = plan.stages[stage].kind
        rows = [
            ResultRow("easy_vqa", "accuracy", 50.0, split="test")
            if kind == "evaluation"
            else ResultRow("training", "loss", 1.0, step=1)
        ]
        opened.finish(attempt, rows, {"seconds": 1.0})
    return opened


def test_exit_code_and_lines_say_what_is_damaged_and_what_repair_did(mm1, store):
    sound = mm1("fsck")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout == f"store {store.root}: nothing is damaged\n"

    path = sorted(Path(store.root).glob("stages/*/*/*/results.parquet"))[0]
    path.write_bytes(b"rubbish")
    told = mm1("fsck", "--json")
    assert told.returncode == 1
    (finding,) = json.loads(told.stdout)["findings"]
    assert finding["kind"] == "damage"
    assert f"{store.root}/{finding['place']}" == str(path)
    assert "--repair" in finding["remedy"]

    status = mm1("status")
    assert status.returncode == 0
    assert "does not match its checksum" in status.stderr
    assert "miniature" in status.stdout

    mended = mm1("fsck", "--repair")
    assert mended.returncode == 0
    assert "moved to damaged/" in mended.stdout
    assert not path.exists()


def test_a_folder_that_is_no_store_is_one_line(mm1):
    told = mm1("fsck", "--store", "nowhere")
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "no store at" in told.stderr


def test_a_plan_names_the_store_that_it_looked_at(mm1, store, study, tmp_path):
    assert f"3 already finished in the store {store.root})" in mm1("plan", study).stdout
    told = mm1("plan", study, "--store", "other [x]").stdout
    assert f"0 already finished in the store {tmp_path}/other [x], not there yet)" in told
    assert json.loads(mm1("plan", study, "--json").stdout)["store"] == store.root


def test_names_and_paths_that_are_too_long_are_refused_by_the_plan(mm1, study):
    name = "n" * 250
    for words in (("plan", study), ("run", study)):
        study.write_text(
            study.read_text(encoding="utf-8").replace("study: miniature", f"study: {name}"),
            encoding="utf-8",
        )
        told = mm1(*words)
        assert told.returncode == 2
        assert told.stderr.count("\n") == 1
        assert "128" in told.stderr
    study.write_text(study.read_text(encoding="utf-8").replace(name, "n" * 128), encoding="utf-8")
    assert mm1("plan", study).returncode == 0
    for long in ("/".join(["x" * 200] * 20), "y" * 300):
        told = mm1("plan", study, "--store", long)
        assert told.returncode == 2
        assert told.stderr.count("\n") == 1


AS_NOBODY = """
import contextlib, io, os, sys
from mm1.cli import cli, main

words = sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    cli.main(words, standalone_mode=False)  # imports what it needs, which nobody may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="becomes somebody else, which only root can")
def test_a_store_of_somebody_else_is_one_line(store):
    """Who may not read or write it is told so, without a traceback."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        root = Path(folder) / "store"
        shutil.copytree(store.root, root)

        def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", AS_NOBODY, *words, "--store", str(root)]
            return subprocess.run(command, capture_output=True, encoding="utf-8")

        told = as_nobody("status")
        assert told.returncode == 2, told.stderr
        assert told.stderr.count("\n") == 1
        assert "Permission denied" in told.stderr

        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        sorted(root.glob("stages/*/*/done.json"))[0].chmod(0o600)
        told = as_nobody("status")
        assert told.returncode == 0, told.stderr
        assert "cannot be read: Permission denied" in told.stderr
        told = as_nobody("report", "miniature")
        assert told.returncode == 2
        assert told.stderr.count("\n") == 1
        assert "Permission denied" in told.stderr


def test_a_report_of_a_store_in_a_bucket_is_in_its_cache(tmp_path, study, monkeypatch):
    import object_store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with object_store.bucket_server() as bucket:
        plan = make_plan(load_study(study))
        opened = Store(f"{bucket}/store")
        opened.register(plan)
        path = api.report("miniature", store=opened.root)
    assert path.is_relative_to(tmp_path / "cache")
    assert not (tmp_path / "s3:").exists()
