"""HellaSwag (Zellers et al., 2019): which of four endings continues a description?"""

from __future__ import annotations

import re
from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import likelihood_task, multiple_choice
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.task import Question

_FIELDS = ["activity_label", "ctx_a", "ctx_b", "endings", "label"]
_BRACKETS = re.compile(r"\[.*?\]")


def without_markup(text: str) -> str:
    """Without WikiHow's brackets: a title ends a sentence, others vanish. As in the harness."""
    text = text.strip().replace(" [title]", ". ")
    return _BRACKETS.sub("", text).replace("  ", " ")


def read(path: Path) -> list[Question]:
    """A file with the published columns, or the validation split (10,042) in a folder."""
    patterns = ("**/validation-*.parquet", "hellaswag_val.jsonl", "**/train-*.parquet")
    file = find_one(path, "hellaswag", *patterns)
    questions = []
    for row in rows_with(file, _FIELDS, "hellaswag"):
        endings = [without_markup(ending) for ending in row.options("endings")]
        right = row.among("label", [str(place) for place in range(len(endings))])
        rest = row.optional("ctx_b").capitalize()
        text = f"{row.text('activity_label')}: {row.text('ctx_a')} {rest}"
        questions.append(multiple_choice(row, without_markup(text), endings, right))
    return questions


TASK = likelihood_task("hellaswag", read)
