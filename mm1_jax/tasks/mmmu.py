"""MMMU (Yue et al., 2024): college-level questions with figures, in thirty subjects."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm1_jax.errors import UserError
from mm1_jax.metrics.groups import group_means
from mm1_jax.metrics.multiple_choice import letters, mmmu_reading
from mm1_jax.metrics.open_answer import open_match
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.lettered import LETTER, with_options
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import embedded, find, index_of, read_answers, rows_with
from mm1_jax.tasks.vqav2 import SHORT_ANSWER

_FIELDS = ["id", "question", "options", "answer", "question_type"]
_IMAGE = re.compile(r"<image (\d)>")


def _options(text: str, file: Path) -> list[str]:
    try:
        return [str(option) for option in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        message = f"options: expected a Python list as text, found {text!r}"
        raise UserError(message, file=str(file)) from None


def _answers(text: str) -> tuple[str, ...]:
    """An open question's answer may be a Python list as text."""
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return (text,)
    return tuple(map(str, listed)) if isinstance(listed, list) else (text,)


def read(path: Path) -> list[Question]:
    """Parquet files of subjects, or a folder of them: `validation-*.parquet`, one folder a subject.

    Images are those that the question and the options name, in the order of their numbers, as in
    lmms-eval; the names stay in the text.
    """
    files = find(path, "mmmu", "**/validation-*.parquet", "**/dev-*.parquet", "*.jsonl")
    return [
        _question(path, file, number, row)
        for file in files
        for number, row in enumerate(rows_with(file, _FIELDS, "mmmu"))
    ]


def _question(path: Path, file: Path, number: int, row: dict[str, Any]) -> Question:
    options = _options(row["options"], file)
    multiple = row["question_type"] == "multiple-choice"
    if multiple:
        index_of(row["answer"], tuple(letters(options)), "answer", file, number)
    text = with_options(row["question"], options) if multiple else row["question"]
    shown = sorted(set(_IMAGE.findall(text)))
    return Question(
        item_id=row["id"],
        images=tuple(embedded(path, file, number, f"image_{n}") for n in shown),
        prompt=text + "\n" + (LETTER if multiple else SHORT_ANSWER),
        references=(row["answer"],) if multiple else _answers(row["answer"]),
        choices=tuple(options) if multiple else (),
        facts={
            "question": row["question"],
            "reasoning": row.get("explanation") or "",
            "subject": re.sub(r"^[^_]*_|_\d+$", "", row["id"]),
            "question_type": row["question_type"],
        },
    )


def predictions(path: Path) -> dict[str, str]:
    """The official JSON object id → answer, or rows of `id` and `response`."""
    return read_answers(path, ("id", "question_id"), ("response", "answer", "text"))


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy by MMMU's own reading, but an answer that names no option is wrong, not drawn.

    `unparsed` is the share of such answers to multiple-choice questions among all.
    """
    items, unparsed = [], 0
    for question, text in zip(questions, given, strict=True):
        if question.choices:
            letter = mmmu_reading(text, letters(question.choices))
            unparsed += letter is None
            items.append(100.0 * (letter == question.references[0]))
        else:
            items.append(100.0 * open_match(text, question.references))
    groups = {
        name: [question.facts[name] for question in questions]
        for name in ("subject", "question_type")
    }
    metrics = group_means("accuracy", items, groups)
    return Score(items, metrics | {"unparsed": 100 * unparsed / len(questions)})


TASK = OfficialTask("mmmu", read, predictions, str.strip, score)
