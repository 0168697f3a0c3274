"""MathVista (Lu et al., 2024): mathematics in pictures; the answer is read without an LLM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm1_jax.errors import UserError
from mm1_jax.metrics.groups import group_means
from mm1_jax.metrics.multiple_choice import letters, mathvista_option, mmmu_reading
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.lettered import LETTER, with_options
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import (
    check_fields,
    embedded,
    find_one,
    read_answers,
    read_json,
    rows_with,
)

_FIELDS = ["question", "image", "choices", "answer", "question_type", "answer_type", "precision"]
_STATED = re.compile(r'The answer is "(.*)"\.')
_NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")
_LIST = re.compile(r"\[[^\[\]]*\]")
_DECIMALS = {1: "one decimal place", 2: "two decimal places"}


def read(path: Path) -> list[Question]:
    """`testmini.json` (an object pid → problem), or Parquet with the same columns."""
    file = find_one(path, "mathvista", "testmini.json", "**/testmini-*.parquet")
    if file.suffix == ".json":
        content = read_json(file)
        check_fields(content, [], file, "mathvista")
        for row in content.values():
            check_fields(row, _FIELDS, file, "mathvista")
        rows = [{"pid": pid, **row} for pid, row in content.items()]
    else:
        rows = rows_with(file, ["pid"], "mathvista")
        for number, row in enumerate(rows):
            if "decoded_image" in row:  # `image` is a path in an archive
                row["image"] = embedded(path, file, number, "decoded_image")
    return [_question(row, file) for row in rows]


def _question(row: dict[str, Any], file: Path) -> Question:
    check_fields(row, _FIELDS, file, "mathvista")
    if row["answer"] in (None, ""):
        message = f"problem {row['pid']} has no answer; a split without answers?"
        raise UserError(message, file=str(file))
    choices = tuple(row["choices"] or ())
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""
    text = row["question"] + unit
    return Question(
        item_id=str(row["pid"]),
        images=(row["image"],),
        prompt=(with_options(text, choices) if choices else text) + _form(row),
        references=(str(row["answer"]),),
        choices=choices,
        facts={
            "question": row["question"],
            "answer_type": row["answer_type"],
            "question_type": row["question_type"],
            "precision": int(row["precision"] or 0),
            "task": (row.get("metadata") or {}).get("task") or "",
        },
    )


def _form(row: dict[str, Any]) -> str:
    """What is said of the answer's form, as in lmms-eval."""
    if row["question_type"] == "multi_choice":
        return LETTER
    if row["answer_type"] == "integer":
        return "\nAnswer the question using a single integer number."
    if row["answer_type"] == "list":
        return "\nAnswer the question using a Python list."
    precision = int(row["precision"] or 0)
    decimals = _DECIMALS.get(precision, f"{precision} decimal places")
    return f"\nAnswer the question using a single floating-point number with {decimals}."


def predictions(path: Path) -> dict[str, str]:
    """The official object pid → problem with `extraction` or `response`, or pid → text."""
    if path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, dict) and all(isinstance(row, dict) for row in content.values()):
            found = {}
            for pid, row in content.items():
                if "extraction" not in row:
                    check_fields(row, ["response"], path, "a MathVista result file")
                found[pid] = str(row.get("extraction", row.get("response")))
            return found
    return read_answers(path, ("pid", "question_id"), ("extraction", "response", "answer", "text"))


def extracted(text: str, question: Question) -> str:
    """The part of an answer that states it, where the official evaluation asks an LLM.

    What follows `The answer is`; of a multiple-choice question the letter as MMMU reads it, if one
    is named; the last number; the last list. If there is none of these: all of it.
    """
    text = text.strip()
    stated = _STATED.search(text)
    if stated:
        return stated.group(1)
    if question.choices:
        letter = None if text in question.choices else mmmu_reading(text, letters(question.choices))
        return f"({letter})" if letter else text
    form = _LIST if question.facts["answer_type"] == "list" else _NUMBER
    found = form.findall(text)
    return found[-1].replace(",", "") if found and form is _NUMBER else found[-1] if found else text


def in_form(text: str, question: Question) -> str | None:
    """An extracted answer in the form of the right one, None if it cannot be.

    The option that is named or nearest by edit distance; an integer, cut; a number rounded to the
    question's precision. Source: MathVista's `calculate_score.py` (lmms-eval `mathvista_evals.py`).
    """
    if question.facts["question_type"] == "multi_choice":
        return mathvista_option(text, question.choices)
    try:
        if question.facts["answer_type"] == "integer":
            return str(int(float(text)))
        if question.facts["answer_type"] == "float":
            return str(round(float(text), question.facts["precision"]))
    except (ValueError, OverflowError):
        return None
    return text


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy with answers read by rules, where the official evaluation asks an LLM.

    So its numbers are the official ones only if the file holds `extraction`s. `unparsed`: a number
    was asked for and none was there.
    """
    read = [in_form(extracted(text, q), q) for q, text in zip(questions, given, strict=True)]
    items = [
        100.0 * (found is not None and found.strip() == question.references[0].strip())
        for question, found in zip(questions, read, strict=True)
    ]
    groups = {
        name: [question.facts[name] for question in questions]
        for name in ("question_type", "answer_type", "task")
    }
    metrics = group_means("accuracy", items, groups)
    return Score(items, metrics | {"unparsed": 100 * read.count(None) / len(read)})


TASK = OfficialTask("mathvista", read, predictions, str.strip, score)
