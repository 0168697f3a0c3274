"""Stages that do nothing: what is left is the platform's own time. A user's trainer looks so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.stage import Context, ResultRow


def train(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Train nothing."""
    return [ResultRow("training", "loss", 0.0, step=1)]


def evaluate(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Score nothing."""
    return [ResultRow(config["task"], "accuracy", 50.0, split="test", n_items=1)]
