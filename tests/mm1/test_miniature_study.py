"""A whole study through Ray, MLflow, the store and the report, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def stages_done(folder: Path) -> set[str]:
    return {done.parent.name for done in (folder / ".mm1" / "stages").glob("*/*/done.json")}


@pytest.fixture(scope="module")
def ran(tmp_path_factory, data_root, write_study):
    """The study, killed once in the middle of its run and then run to its end."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    command = [sys.executable, "-m", "mm1", "run", "study.yaml", "--data", str(data_root)]
    first = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    waited = time.monotonic()
    while not stages_done(folder):
        assert first.poll() is None, "it ended before it was killed"
        assert time.monotonic() - waited < 900
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = stages_done(folder)
    stamps = {p: p.stat().st_mtime_ns for p in (folder / ".mm1/stages").glob("*/*/done.json")}
    second = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=900)
    return folder, command, before, stamps, second


def test_it_goes_on_after_a_kill_and_runs_nothing_again(ran):
    folder, _, before, stamps, second = ran
    assert second.returncode == 0, second.stdout + second.stderr
    assert before < stages_done(folder)
    assert len(stages_done(folder)) == 10
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_it_ends_with_effects_verdicts_and_the_reports_path(ran):
    folder, _, _, _, second = ran
    assert "All 4 planned trials (2 arms × 2 seeds) are there exactly once" in second.stdout
    assert "undecided" in second.stdout.lower()
    report = folder / second.stdout.strip().splitlines()[-1].removeprefix("report: ")
    assert "Does anything matter?" in report.read_text(encoding="utf-8")


def test_finished_it_answers_from_the_store(ran):
    folder, command, *_ = ran
    again = subprocess.run(
        [*command, "--json"], cwd=folder, capture_output=True, encoding="utf-8", timeout=600
    )
    assert again.returncode == 0, again.stderr
    assert "Ray" not in again.stderr
    claims = {claim["name"]: claim for claim in json.loads(again.stdout)["claims"]}
    assert set(claims) == {"sees", "tokens"}
    assert claims["sees"]["n"] == 2


def test_compilation_is_measured_apart_from_the_work(ran):
    folder, *_ = ran
    records = [
        json.loads(p.read_bytes()) for p in (folder / ".mm1" / "stages").rglob("execution.json")
    ]
    assert len(records) == 10
    assert all(r["compilation_seconds"] + r["import_seconds"] < r["seconds"] for r in records)
    assert any(r["compilation_seconds"] > 0 for r in records)


def test_the_timeline_tells_training_from_all_else(ran):
    folder, *_ = ran
    asked = [sys.executable, "-m", "mm1", "timeline", "study.yaml", "--format", "json"]
    told = subprocess.run(asked, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    found = json.loads(told.stdout)
    kinds = {"start", "data", "compile", "steps", "evaluation", "save", "run"}
    assert kinds <= set(found["core_seconds"])
    spans = [s for run in found["runs"] for lane in run["workers"] for s in lane["spans"]]
    assert {span["stage"] for span in spans if "stage" in span} == stages_done(folder)


def test_the_study_can_be_asked_for_by_name(ran):
    folder, *_ = ran

    def mm1(*words: str) -> str:
        command = [sys.executable, "-m", "mm1", *words]
        made = subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", timeout=600
        )
        assert made.returncode == 0, made.stderr
        return made.stdout

    (status,) = json.loads(mm1("status", "--json"))
    assert (status["study"], status["done"], status["trials"]) == ("miniature", 4, 4)
    assert json.loads(mm1("plan", "miniature", "--json"))["stages_finished"] == 10
    assert "\\toprule" in mm1("compare", "miniature", "--format", "latex")


def test_mlflow_has_a_parent_with_a_child_for_every_trial(ran):
    folder, *_, second = ran
    code = (
        "import json, mlflow; mlflow.set_tracking_uri('sqlite:///.mm1/mlflow.db'); "
        "runs = mlflow.search_runs(search_all_experiments=True, output_format='list'); "
        "print(json.dumps([[r.info.run_name, 'mlflow.parentRunId' in r.data.tags, "
        "r.data.metrics, r.data.tags.get('mm1.verdict.sees', '')] for r in runs]))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, encoding="utf-8", timeout=600
    )
    runs = json.loads(made.stdout.strip().splitlines()[-1])
    children = [run for run in runs if run[1]]
    assert len(children) == 4, second.stdout + second.stderr
    assert all(any("accuracy" in metric for metric in run[2]) for run in children)
    assert len(runs) == 1 + 4 + 10  # the study, its trials, the stages
    (told,) = [run[3] for run in runs if run[3]]
    assert "registered" in told
