"""ARC, the challenge questions (Clark et al., 2018): those that retrieval answers wrongly."""

from __future__ import annotations

from pathlib import Path

from mm1_jax.evaluation.benchmarks.arc_easy import read_arc
from mm1_jax.evaluation.official.likelihood_tasks import likelihood_task
from mm1_jax.evaluation.official.task import Question


def read(path: Path) -> list[Question]:
    """ARC-Challenge; its test split has 1,172 questions."""
    return read_arc(path, "arc_challenge", "ARC-Challenge")


TASK = likelihood_task("arc_challenge", read)
