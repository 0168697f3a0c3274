"""SEED-Bench (Li et al., 2023), its image part: nine abilities, four choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.official.lettered_options import (
    LETTER,
    letter_score,
    right_letter,
    with_options,
)
from mm1_jax.evaluation.official.published_files import find_one, read_answers, read_json, rows_of
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

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


def _rows(path: Path) -> tuple[list[Row], dict[int, str]]:
    file = find_one(path, "seed_bench", "SEED-Bench.json")
    content = read_json(file)
    whole = Row(content, ["question_type", "questions"], file, "seed_bench")
    names = _type_names(whole.part("question_type"))
    rows = rows_of(content, "questions", _FIELDS, file, "seed_bench", "question_id")
    for row in rows:
        row.one_of("data_type", ("image", "video"))
    return rows, names


def _type_names(types: Row) -> dict[int, str]:
    names: dict[int, str] = {}
    for name in types.fields:
        number = types.whole(name)
        if number in names:
            raise types.error(f"question_type: {names[number]} and {name} are both {number}")
        names[number] = name
    return names


def read(path: Path) -> list[Question]:
    """`SEED-Bench.json`, or a folder with it; questions about videos are left out."""
    rows, names = _rows(path)
    questions = []
    for row in rows:
        if row.text("data_type") != "image":
            continue
        question, kind = row.text("question"), row.whole("question_type_id")
        if kind not in names:
            raise row.error(f"question_type_id is {kind}, which question_type does not name")
        choices = tuple(row.optional(name) for name in _CHOICES)
        questions.append(
            Question(
                item_id=row.id("question_id"),
                images=(row.image("data_id"),),
                prompt=with_options(question, choices) + LETTER,
                references=(right_letter(row, "answer", choices),),
                choices=choices,
                facts={
                    "question": question,
                    "question_type": names[kind],
                },
            )
        )
    return questions


def left_out(path: Path) -> set[str]:
    """The questions about videos."""
    return {row.id("question_id") for row in _rows(path)[0] if row.text("data_type") != "image"}


def predictions(path: Path) -> dict[str, str]:
    """The leaderboard's JSON lines of `question_id` and `prediction`."""
    return read_answers(path, texts=("prediction", "answer", "text"), stated={"answer": "choice_a"})


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy of the answer's first character (lmms-eval), by question type."""
    read = [text.strip()[:1].upper() or None for text in given]
    return letter_score(questions, read, ("question_type",))


TASK = OfficialTask("seed_bench", read, predictions, str.strip, score, left_out=left_out)
