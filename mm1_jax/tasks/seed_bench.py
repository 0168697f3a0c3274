"""SEED-Bench (Li et al., 2023), its image part: nine abilities, four choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.lettered import LETTER, letter_score, with_options
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import (
    check_fields,
    find_one,
    index_of,
    part,
    read_answers,
    read_json,
)

_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_FIELDS = [
    "question_id",
    "data_id",
    "question",
    *_CHOICES,
    "answer",
    "question_type_id",
    "data_type",
]


def _rows(path: Path) -> tuple[Path, list[dict[str, Any]], dict[int, str]]:
    file = find_one(path, "seed_bench", "SEED-Bench.json")
    content = read_json(file)
    types = part(content, "question_type", file, "seed_bench")
    rows = part(content, "questions", file, "seed_bench")
    for row in rows:
        check_fields(row, _FIELDS, file, "seed_bench")
    return file, rows, {number: name for name, number in types.items()}


def read(path: Path) -> list[Question]:
    """`SEED-Bench.json`, or a folder with it; questions about videos are left out."""
    file, rows, names = _rows(path)
    questions = []
    for number, row in enumerate(rows):
        if row["data_type"] != "image":
            continue
        index_of(row["answer"], ("A", "B", "C", "D"), "answer", file, number)
        choices = tuple(row[name] for name in _CHOICES)
        questions.append(
            Question(
                item_id=str(row["question_id"]),
                images=(row["data_id"],),
                prompt=with_options(row["question"], choices) + LETTER,
                references=(row["answer"],),
                choices=choices,
                facts={
                    "question": row["question"],
                    "question_type": names.get(row["question_type_id"], ""),
                },
            )
        )
    return questions


def left_out(path: Path) -> set[str]:
    """The questions about videos."""
    return {str(row["question_id"]) for row in _rows(path)[1] if row["data_type"] != "image"}


def predictions(path: Path) -> dict[str, str]:
    """The leaderboard's JSON lines of `question_id` and `prediction`."""
    return read_answers(path, texts=("prediction", "answer", "text"))


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy of the answer's first character (lmms-eval), by question type."""
    read = [text.strip()[:1].upper() or None for text in given]
    return letter_score(questions, read, ("question_type",))


TASK = OfficialTask("seed_bench", read, predictions, str.strip, score, left_out=left_out)
