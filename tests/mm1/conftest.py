"""The command line as a user calls it, and a study so small that it runs in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

RECIPE = """
encoder: {image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2}
connector: {kind: average_pooling, tokens: 1}
language_model: {width: 16, layers: 1, heads: 2, kv_heads: 1, mlp_width: 32}
data: {mixture: {easy_vqa: 0.5, emoji_captions: 0.5}, text_tokens: 32, images: 2}
training: {steps: 6, batch_size: 2, log_every: 2, checkpoint_every: 2}
optimizer: {warmup_steps: 2, peak_lr: 0.01}
evaluation: {easy_vqa: {items: 40}}
"""

STUDY = """
study: miniature
question: Does anything matter?
base: recipe.yaml
design:
  one_at_a_time:
    connector.tokens: [1, 4]
seeds: 2
primary_metric: easy_vqa.accuracy
claims:
  sees: score(base) > score(base, condition=shuffled)
  tokens: effect(connector.tokens, 1 -> 4) > 0
"""


@pytest.fixture(scope="session")
def write_study():
    """Write the small study and its recipe into a folder: the path of the study."""

    def write(folder: Path) -> Path:
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
        return folder / "study.yaml"

    return write


@pytest.fixture
def study(tmp_path: Path, write_study) -> Path:
    return write_study(tmp_path)


@pytest.fixture
def mm1(tmp_path: Path):
    """Run `mm1 WORDS…` in an empty folder: its exit code, stdout and stderr."""

    def call(*words: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mm1", *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=timeout
        )

    return call


def filled_study(root, file, value=None):
    """A study that has run, by numbers that a test drew; `value(arm, task, shots)` is its mean."""
    import numpy as np

    from ablations.plan import make_plan
    from mm1.studies import load_study
    from sweeps.store import Store

    plan = make_plan(load_study(file))
    store = Store(root)
    store.register(plan)
    number = {arm.name: n for n, arm in enumerate(plan.arms)}
    for trial in plan.trials:
        arm = plan.arm(trial.arm)
        draw = np.random.default_rng([number[arm.name], trial.seed])
        for stage in plan.trainings(trial).values():
            _finish(
                store, plan.stages[stage], [("training", "loss", 2 - s / 100, s) for s in (10, 20)]
            )
        for one, stage in plan.answers(trial).items():
            mean = (
                value(arm, one.task, one.shots) if value else 70 + 2 * number[arm.name] + one.shots
            )
            level = mean + draw.normal(0, 0.5)
            rows = [(one.task, metric.name, level, 0) for metric in plan.tasks[one.task].metrics]
            _finish(store, plan.stages[stage], rows, one, draw)
    return plan


def _finish(store, stage, rows, asked=None, draw=None):
    import pandas

    from ablations.stage import ResultRow

    if store.is_done(stage.id):
        return
    attempt = store.begin(stage)
    form = () if asked is None else ("test", asked.shots, asked.condition)
    found = [
        ResultRow(task, metric, value, step=step)
        if asked is None
        else ResultRow(task, metric, value, *form, 20, 40)
        for task, metric, value, step in rows
    ]
    if draw is not None:
        pandas.DataFrame(
            {
                "item_id": [f"i{n}" for n in range(40)],
                "image_id": [n // 2 for n in range(40)],
                "prompt": "what?",
                "prediction": "that",
                "references": [["that"]] * 40,
                "score": 100.0 * draw.integers(0, 2, 40),
            }
        ).to_parquet(attempt.output / "examples.parquet")
    ran = {"seconds": 2.0 + len(found), "device_kind": "cpu", "started_at": 1.7e9}
    store.finish(attempt, found, {**ran, "git_revision": "abc"})


@pytest.fixture(scope="session")
def fill_study():
    return filled_study


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory) -> str:
    """A store in which the demonstration has run. Only for reading."""
    root = tmp_path_factory.mktemp("demonstration")
    filled_study(root, Path("ablations/studies/demo.yaml"))
    return str(root)
