"""LAMBADA (Paperno et al., 2016): the last word of a passage."""

from __future__ import annotations

from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import (
    last_word_score,
    likelihood_task,
    multiple_choice,
)
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.task import Question


def read(path: Path) -> list[Question]:
    """A file with `text`, or the test split (5,153) in a folder.

    OpenAI's version keeps case and punctuation, the original (`lambada_standard`) does not: which
    one it is depends on the file.
    """
    patterns = ("**/test-*.parquet", "*test*.jsonl", "**/validation-*.parquet")
    file = find_one(path, "lambada", *patterns)
    questions = []
    for row in rows_with(file, ["text"], "lambada"):
        context, _, word = row.text("text").rpartition(" ")
        questions.append(multiple_choice(row, context, [word], right=0))
    return questions


TASK = likelihood_task("lambada", read, last_word_score)
