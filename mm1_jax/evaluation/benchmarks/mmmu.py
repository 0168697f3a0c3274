"""MMMU (Yue et al., 2024): college-level questions with figures, in thirty subjects."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import SHORT_ANSWER
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.multiple_choice import letters, mmmu_reading
from mm1_jax.evaluation.metrics.open_answer import open_match
from mm1_jax.evaluation.official.lettered_options import LETTER, right_letter, with_options
from mm1_jax.evaluation.official.published_files import embedded, find, read_answers, rows_with
from mm1_jax.evaluation.official.published_rows import Row, short
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["id", "question", "options", "answer", "question_type"]
_MULTIPLE = "multiple-choice"
_TYPES = (_MULTIPLE, "open")
_IMAGE = re.compile(r"<image (\d)>")


def _options(row: Row) -> tuple[str, ...]:
    """The options: a Python list as text, as published, or a list."""
    stated = row.fields["options"]
    if not isinstance(stated, str):
        return row.options("options")
    listed = _python_list(stated)
    if listed is None:
        raise row.error(f"options: expected a Python list as text, found {short(stated)!r}")
    return Row({"options": listed}, [], row.path, row.task, row.number).options("options")


def _answers(row: Row) -> tuple[str, ...]:
    """An open question's answer may be a Python list, as text or as it is."""
    stated = row.fields["answer"]
    listed = _python_list(stated) if isinstance(stated, str) else stated
    if not isinstance(listed, list):
        return (row.answer("answer"),)
    if not listed:
        raise row.error("answer is an empty list; a split without answers?")
    return Row({"answer": listed}, [], row.path, row.task, row.number).texts("answer")


def _python_list(text: str) -> list[object] | None:
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return listed if isinstance(listed, list) else None


def read(path: Path) -> list[Question]:
    """Parquet files of subjects, or a folder of them: `validation-*.parquet`, one folder a subject.

    Images are those that the question and the options name, in the order of their numbers, as in
    lmms-eval; the names stay in the text.
    """
    files = find(path, "mmmu", "**/validation-*.parquet", "**/dev-*.parquet", "*.jsonl")
    return [
        _question(path, file, number, row)
        for file in files
        for number, row in enumerate(rows_with(file, _FIELDS, "mmmu", "id"))
    ]


def _question(path: Path, file: Path, number: int, row: Row) -> Question:
    options, item_id = _options(row), row.id("id")
    question, question_type = row.text("question"), row.one_of("question_type", _TYPES)
    multiple = question_type == _MULTIPLE
    text = with_options(question, options) if multiple else question
    shown = sorted(set(_IMAGE.findall(text)))
    return Question(
        item_id=item_id,
        images=tuple(embedded(path, file, number, f"image_{n}") for n in shown),
        prompt=text + "\n" + (LETTER if multiple else SHORT_ANSWER),
        references=(right_letter(row, "answer", options),) if multiple else _answers(row),
        choices=options if multiple else (),
        facts={
            "question": question,
            "reasoning": row.optional("explanation"),
            "subject": re.sub(r"^[^_]*_|_\d+$", "", item_id),
            "question_type": question_type,
        },
    )


def predictions(path: Path) -> dict[str, str]:
    """The official JSON object id → answer, or rows of `id` and `response`."""
    texts = ("response", "answer", "text")
    return read_answers(path, ("id", "question_id"), texts, {"answer": "options"})


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
