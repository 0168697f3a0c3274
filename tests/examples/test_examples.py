"""The example trainings do what their studies say: every step, seed and config is heard."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.command.trying import differences, findings, stage_of, try_step
from ablations.plan import make_plan
from mm1.studies import load_study

EXAMPLES = Path(__file__).parents[2] / "examples"


def check(name: str, folder: Path) -> None:
    """Run a study's command for two seeds and two arms; nothing may be wrong with it."""
    plan = make_plan(load_study(EXAMPLES / name / "study.yaml"))
    first, second = plan.seeds[:2]

    def tried(arm: str, seed: int, number: int):
        trial = next(t for t in plan.trials if (t.arm, t.seed) == (arm, seed))
        stage = plan.stages[trial.stages["run"]]
        return try_step(stage_of(stage.config), seed, {}, folder / str(number), seconds=300)

    other = plan.arms[1].name
    asked = [("base", first), ("base", second), (other, first), ("base", first)]
    runs = [tried(arm, seed, number) for number, (arm, seed) in enumerate(asked)]
    found = [one for run in runs for one in findings(run)]
    found += differences(*runs, arms=("base", other))
    assert all(run.ended for run in runs), found
    assert [one.text for one in found if one.wrong] == []
    assert any("twice gave the same numbers" in one.text for one in found)
    metrics = {f"{row.task}.{row.metric}" for row in runs[0].rows}
    assert {f"{task}.{m.name}" for task, of in plan.tasks.items() for m in of.metrics} <= (
        metrics | {f"training.{m.name}" for m in plan.tasks["training"].metrics}
    )


def test_shell(tmp_path):
    check("shell", tmp_path)


@pytest.mark.slow
def test_pytorch(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    check("pytorch", tmp_path)


@pytest.mark.slow
def test_hydra(tmp_path, monkeypatch):
    pytest.importorskip("hydra")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    check("hydra", tmp_path)


@pytest.mark.skipif(shutil.which("git") is None, reason="git")
def test_every_file_of_the_examples_is_tracked():
    told = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "examples"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert told.stdout == ""
