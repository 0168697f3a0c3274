"""docs/own-trainer.md names every key and placeholder, and its example does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablations.command import placeholders
from ablations.command.results import USUAL
from ablations.command.runner import TIMEOUT_GRACE_SECONDS
from ablations.command.spec import GRACE_SECONDS, CommandSpec
from ablations.function_workload import FunctionSpec
from ablations.own_workload import SECONDS, MetricSpec
from mm1.cli import cli

PAGE = Path("docs/own-trainer.md").read_text(encoding="utf-8")


def rows(title: str) -> set[str]:
    """Names in the first column of the table below a line."""
    below = PAGE.split(title, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None
    cells = [line.split("|")[1] for line in table[0].splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_key_has_its_row():
    assert rows("## Keys of `workload`") == set(CommandSpec.model_fields)
    assert rows("Of a metric:") == set(MetricSpec.model_fields)
    named = {re.sub(r"[{}]|:.*", "", name) for name in rows("## The command")}
    assert named == set(placeholders.NAMES)
    own = set(FunctionSpec.model_fields) - set(CommandSpec.model_fields)
    assert own == {"function", "config"}


def test_numbers_and_names_are_the_codes():
    assert f"default {SECONDS:g}" in PAGE
    assert f"default {GRACE_SECONDS:g}" in PAGE
    assert f"`grace` seconds ({TIMEOUT_GRACE_SECONDS:g} at a timeout)" in PAGE
    assert all(f"`{name}`" in PAGE for name in USUAL[:3])


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page's script, config and study in a folder."""
    for language, name in (("python", "train.py"), ("json", "base.json"), ("yaml", "study.yaml")):
        text = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0]
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_study_is_as_it_should_be(page):
    told = CliRunner().invoke(cli, ["try", "study.yaml"], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "gave different numbers, as they should" in told.output
    assert "base and model.degree=5 gave different numbers" in told.output
    planned = CliRunner().invoke(cli, ["plan", "study.yaml"], catch_exceptions=False)
    assert "3 arms × 5 seeds = 15 trials, 15 stages" in planned.output


def test_the_pages_study_of_steps_can_be_planned(page):
    steps = re.findall(r"```yaml\n(workload:\n  steps:.*?)```", PAGE, re.DOTALL)[0]
    study = (page / "study.yaml").read_text(encoding="utf-8")
    study = re.sub(r"workload:\n(?:  .*\n)+", steps.replace("python ", "python3 "), study)
    study = study.replace("  resources:", "  code: ['*.py']\n  resources:")
    study = study.replace("val.loss", "val.accuracy").replace("base.json", "base.yaml")
    (page / "study.yaml").write_text(study, encoding="utf-8")
    (page / "base.yaml").write_text(
        "model: {degree: 3}\nrate: 0.1\npretraining: {steps: 1}\n", encoding="utf-8"
    )
    for name in ("pretrain", "finetune"):
        (page / f"{name}.py").write_text("", encoding="utf-8")
    planned = CliRunner().invoke(cli, ["plan", "study.yaml"], catch_exceptions=False)
    assert planned.exit_code == 0, planned.output
    # Rate is no part of the pre-training: base and rate=0.2 share it.
    assert "3 arms × 5 seeds = 15 trials, 25 stages" in planned.output
