"""A folder with a script in it, and a context that a step may run in."""

from __future__ import annotations

import json
import sys
import textwrap
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ablations.command import files, runner
from ablations.stage import Gang


@dataclass
class StepContext:
    """What a worker offers to a stage, on a folder of the test."""

    root: Path
    reports: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    attempt: int = 0
    gang: Gang | None = None

    def __post_init__(self):
        self.scratch, self.data = self.root / "scratch", self.root / "data"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.again()

    def again(self):
        """Another attempt: a new output folder, the same scratch."""
        self.attempt += 1
        self.output = self.root / f"output-{self.attempt}"
        self.output.mkdir()

    def report(self, step, metrics):
        self.reports.append((step, dict(metrics)))

    def record(self, facts):
        self.facts |= facts

    def stop_requested(self):
        return self.stop.is_set()


class Step:
    """A Python script as the step of a command workload."""

    def __init__(self, home: Path, root: Path):
        self.home, self.context = home, StepContext(root)

    def script(self, text: str) -> None:
        (self.home / "train.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")

    def run(self, text: str = "", *, seed=0, inputs=None, metrics=("val.accuracy",), **changed):
        """Run the script; `metrics` are declared ones, by name or name → what is said of them."""
        if text:
            self.script(text)
        said = {key: {} for key in metrics} if not isinstance(metrics, dict) else metrics
        config = {
            "step": "train",
            "command": [
                *(sys.executable, "train.py", "{config}", "{seed}", "{output}", "{scratch}")
            ],
            "config": {"lr": 0.1, "model": {"width": 8}},
            "folder": str(self.home),
            "home": str(self.home),
            "code": ["*.py"],
            "metrics": {name: {"key": name, **more} for name, more in said.items()},
            "grace": 5.0,
            **changed,
        }
        if "data" in changed and "data_fingerprint" not in changed:
            config["data_fingerprint"] = files.data_fingerprint(self.home, changed["data"])
        return runner.run(config, seed, inputs or {}, self.context)


HEAD = """
import json, os, sys, time
from pathlib import Path
config = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
seed, output, scratch = int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
def log(**row):
    with open(output / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\\n")
"""


@pytest.fixture
def step(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return Step(home, tmp_path / "run")


def values(rows, *, task="val", metric="accuracy"):
    """The score rows of a metric."""
    return [row.value for row in rows if (row.task, row.metric) == (task, metric)]


def lines(rows) -> str:
    """Rows of results as a file of JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
