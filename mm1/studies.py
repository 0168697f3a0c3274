"""Reading study files: what is trained is a recipe of ours where a file says nothing else."""

from __future__ import annotations

from pathlib import Path

from ablations import study
from ablations.study import Study


def load_study(path: str | Path) -> Study:
    """Read a study and its base. Raises `UserError` for whatever is wrong with either file."""
    from mm1_jax.workload import RECIPE  # 0.1 s, which reading what has run does not need

    return study.load_study(path, RECIPE)
