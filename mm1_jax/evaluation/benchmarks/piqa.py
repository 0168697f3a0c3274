"""PIQA (Bisk et al., 2020): which of two ways reaches a physical goal?"""

from __future__ import annotations

from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import likelihood_task, multiple_choice
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.task import Question


def read(path: Path) -> list[Question]:
    """A file with `goal`, `sol1`, `sol2`, `label`, or the validation split in a folder."""
    file = find_one(path, "piqa", "**/validation-*.parquet", "**/train-*.parquet")
    return [
        multiple_choice(
            row,
            f"Question: {row.text('goal')}\nAnswer:",
            (row.text("sol1"), row.text("sol2")),
            row.among("label", ("0", "1")),
            question=row.text("goal"),
        )
        for row in rows_with(file, ["goal", "sol1", "sol2", "label"], "piqa")
    ]


TASK = likelihood_task("piqa", read)
