"""Reading study files: what is trained is a recipe of ours where a file says nothing else."""

from __future__ import annotations

from pathlib import Path

from ablations import study
from ablations.study import Study
from mm1_jax.workload import RECIPE


def load_study(path: str | Path) -> Study:
    """Read a study and its base. Raises `UserError` for whatever is wrong with either file."""
    return study.load_study(path, RECIPE)
