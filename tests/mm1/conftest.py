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
