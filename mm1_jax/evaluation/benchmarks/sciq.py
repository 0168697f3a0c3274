"""SciQ (Welbl et al., 2017): science questions with a passage and four choices."""

from __future__ import annotations

from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import likelihood_task, multiple_choice
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.task import Question

_CHOICES = ("distractor1", "distractor2", "distractor3", "correct_answer")


def read(path: Path) -> list[Question]:
    """A file with the published columns, or the test split (1,000) in a folder.

    The right choice is always the last, as in the harness; ties go to the first, so who cannot tell
    the choices apart scores 0.
    """
    file = find_one(path, "sciq", "**/test-*.parquet", "test.json", "**/train-*.parquet")
    return [
        multiple_choice(
            row,
            f"{row.text('support').lstrip()}\nQuestion: {row.text('question')}\nAnswer:",
            [row.text(name) for name in _CHOICES],
            right=3,
            question=row.text("question"),
        )
        for row in rows_with(file, ["support", "question", *_CHOICES], "sciq")
    ]


TASK = likelihood_task("sciq", read)
