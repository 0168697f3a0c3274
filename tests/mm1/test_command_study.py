"""A study of a shell script as a user runs it: Ray, a kill, the store, verdicts, the report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples"
SLOW = """
sleep 0.7  # so that a kill comes in the middle
"""


def stages(folder: Path) -> dict[str, int]:
    """Stages that are done → when, in nanoseconds."""
    found = (folder / ".mm1/stages").glob("*/*/done.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def processes(marker: Path) -> list[str]:
    told = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, encoding="utf-8")
    return [line for line in told.stdout.splitlines() if str(marker) in line and "awk" in line]


def mm1(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mm1", *words],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The example with one factor, killed in the middle of its run and then run to its end."""
    folder = tmp_path_factory.mktemp("shell")
    shutil.copytree(EXAMPLE / "data", folder / "data")
    shutil.copytree(EXAMPLE / "shell", folder / "shell")
    study, script = folder / "shell/study.yaml", folder / "shell/train.sh"
    text = study.read_text(encoding="utf-8")
    for old, new in (
        ("  factorial:", "  one_at_a_time:"),
        ("seeds: 6", "seeds: 4"),
        ("  seconds: 1\n", "  seconds: 1\n  environment: {MARKED: '{output}'}\n"),
    ):
        assert old in text
        text = text.replace(old, new)
    study.write_text(text, encoding="utf-8")
    slow = script.read_text(encoding="utf-8").replace("set -eu\n", f"set -eu\n{SLOW}")
    script.write_text(slow, encoding="utf-8")
    command = [sys.executable, "-m", "mm1", "run", "shell/study.yaml", "--workers", "2"]
    first = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    waited = time.monotonic()
    while not stages(folder):
        assert first.poll() is None, "it ended before it was killed"
        assert time.monotonic() - waited < 300
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(5)  # Ray's processes see that their driver is gone
    left = processes(folder)
    before = stages(folder)
    second = mm1(folder, *command[3:])
    return folder, before, left, second


def test_it_goes_on_after_a_kill_and_runs_nothing_again(ran):
    folder, before, left, second = ran
    assert second.returncode == 0, second.stdout + second.stderr
    assert left == []
    after = stages(folder)
    assert len(before) < len(after) == 12
    assert {one: after[one] for one in before} == before
    assert "All 12 planned trials (3 arms × 4 seeds) are there exactly once" in second.stdout


def test_verdicts(ran):
    folder, *_ = ran
    told = mm1(folder, "compare", "irises-in-shell", "--json")
    assert told.returncode == 0, told.stderr
    claims = {claim["name"]: claim for claim in json.loads(told.stdout)["claims"]}
    assert claims["standardised-is-faster"]["verdict"] == "supported"
    assert claims["higher-rate-is-faster"]["verdict"] == "supported"
    assert claims["higher-rate-is-faster"]["effect"] < -0.05
    assert {claim["n"] for claim in claims.values()} == {4}


def test_the_timeline_is_of_both_runs_and_all_their_stages(ran):
    folder, *_ = ran
    told = mm1(folder, "timeline", "irises-in-shell", "--format", "json")
    assert told.returncode == 0, told.stderr
    runs = json.loads(told.stdout)["runs"]
    assert [run["ended"] for run in runs] == [False, True]
    spans = [span for run in runs for lane in run["workers"] for span in lane["spans"]]
    assert {span["stage"] for span in spans if span["kind"] == "run"} == set(stages(folder))
    assert {"start", "run", "save"} <= {span["kind"] for span in spans if "stage" in span}
    core_seconds = runs[-1]["core_seconds"]
    assert sum(core_seconds.values()) == pytest.approx(2 * runs[-1]["seconds"])
    assert "unknown" not in core_seconds


def test_an_edited_comment_runs_nothing(ran):
    folder, *_ = ran
    study = folder / "shell/study.yaml"
    before = stages(folder)
    text = study.read_text(encoding="utf-8")
    study.write_text(text.replace("# A training", "# Still a training"), encoding="utf-8")
    told = mm1(folder, "run", "shell/study.yaml")
    assert told.returncode == 0, told.stderr
    assert "Ray" not in told.stderr
    assert stages(folder) == before


def test_status_logs_plan_and_report(ran):
    folder, *_ = ran
    status = mm1(folder, "status")
    assert "irises-in-shell" in status.stdout
    logs = mm1(folder, "logs", "base", "seed", "1")
    assert "done in" in logs.stdout
    plan = mm1(folder, "plan", "shell/study.yaml")
    assert "12 stages (12 already finished" in plan.stdout
    report = mm1(folder, "report", "irises-in-shell")
    assert report.returncode == 0, report.stderr
    page = Path(folder / report.stdout.strip().splitlines()[-1]).read_text(encoding="utf-8")
    assert "Does a linear classifier of irises learn faster" in page
    assert "train.loss" in page
    assert "versicolor" in page  # of the examples
    assert "FLOP" not in page  # nobody counts those of a script


def test_a_failure_is_told_with_the_end_of_stderr(ran):
    folder, *_ = ran
    study = folder / "shell/broken.yaml"
    text = (folder / "shell/study.yaml").read_text(encoding="utf-8")
    text = text.replace("irises-in-shell", "broken").replace("seeds: 4", "seeds: 1")
    study.write_text(text.replace("sh train.sh", "sh train.sh ./no"), encoding="utf-8")
    told = mm1(folder, "run", "shell/broken.yaml")
    assert told.returncode == 1
    assert "run failed (run (sh) ended with exit code 2: awk: " in " ".join(told.stdout.split())
    logs = mm1(folder, "logs", "base", "seed", "0", "--study", "broken")
    assert "the end of what it printed to stderr:" in logs.stdout
    assert "attempt failed" in logs.stdout


def test_fsck_knows_every_file_that_was_written(ran):
    folder, *_ = ran
    mm1(folder, "report", "irises-in-shell")
    told = mm1(folder, "fsck", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)["findings"]
    assert [one for one in found if one["kind"] != "leftover"] == []  # of the killed run
