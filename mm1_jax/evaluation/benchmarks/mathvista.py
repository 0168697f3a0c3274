"""MathVista (Lu et al., 2024): mathematics in pictures; the answer is read without an LLM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.multiple_choice import letters, mathvista_option, mmmu_reading
from mm1_jax.evaluation.official.lettered_options import LETTER, with_options
from mm1_jax.evaluation.official.published_files import (
    embedded,
    find_one,
    one_object,
    read_answers,
    read_json,
    rows_by_id,
    rows_with,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["question", "image", "choices", "answer", "question_type", "answer_type", "precision"]
_QUESTION_TYPES = ("multi_choice", "free_form")
_ANSWER_TYPES = ("text", "integer", "float", "list")
_STATED = re.compile(r'The answer is "(.*)"\.')
_NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")
_LIST = re.compile(r"\[[^\[\]]*\]")
_MOST_DECIMALS = 15  # of a float
_DECIMALS = {1: "one decimal place", 2: "two decimal places"}


def read(path: Path) -> list[Question]:
    """`testmini.json` (an object pid → problem), or Parquet with the same columns."""
    file = find_one(path, "mathvista", "testmini.json", "**/testmini-*.parquet")
    if file.suffix == ".json":
        rows = rows_by_id(read_json(file), _FIELDS, file, "mathvista")
        return [_question(row, pid, row.image("image")) for pid, row in rows.items()]
    questions = []
    for number, row in enumerate(rows_with(file, ["pid", *_FIELDS], "mathvista", "pid")):
        # `image` is a path in an archive
        inside = "decoded_image" in row
        image = embedded(path, file, number, "decoded_image") if inside else row.image("image")
        questions.append(_question(row, row.id("pid"), image))
    return questions


def _question(row: Row, item_id: str, image: str) -> Question:
    if row.fields["answer"] in (None, ""):
        raise row.error(f"problem {item_id} has no answer; a split without answers?")
    choices = () if row.fields["choices"] is None else row.options("choices")
    question, answer = row.text("question"), row.answer("answer")
    question_type = row.one_of("question_type", _QUESTION_TYPES)
    answer_type = row.one_of("answer_type", _ANSWER_TYPES)
    if question_type == "multi_choice" and not letters(choices):
        raise row.error("choices: a multiple-choice question has none")
    unit = row.optional("unit")
    text = question + (f" (Unit: {unit})" if unit else "")
    precision = _precision(row)
    return Question(
        item_id=item_id,
        images=(image,),
        prompt=(with_options(text, choices) if choices else text)
        + _form(question_type, answer_type, precision),
        references=(answer,),
        choices=choices,
        facts={
            "question": question,
            "answer_type": answer_type,
            "question_type": question_type,
            "precision": precision,
            "task": row.part("metadata").label("task")
            if row.fields.get("metadata") is not None
            else "",
        },
    )


def _precision(row: Row) -> int:
    """Decimals of a number, which files have as 2 and as 2.0; null and "" are none."""
    stated = row.fields["precision"]
    if isinstance(stated, float) and stated.is_integer() and 0 <= stated <= _MOST_DECIMALS:
        return int(stated)
    decimals = 0 if stated in (None, "") else row.whole("precision")
    if decimals > _MOST_DECIMALS:
        raise row.error(f"precision is {decimals}, more than {_MOST_DECIMALS} decimals")
    return decimals


def _form(question_type: str, answer_type: str, precision: int) -> str:
    """What is said of the answer's form, as in lmms-eval."""
    if question_type == "multi_choice":
        return LETTER
    if answer_type == "integer":
        return "\nAnswer the question using a single integer number."
    if answer_type == "list":
        return "\nAnswer the question using a Python list."
    decimals = _DECIMALS.get(precision, f"{precision} decimal places")
    return f"\nAnswer the question using a single floating-point number with {decimals}."


def predictions(path: Path) -> dict[str, str]:
    """The official object pid → problem with `extraction` or `response`, or pid → text."""
    content = one_object(path)
    if content and all(isinstance(row, dict) for row in content.values()):
        rows = rows_by_id(content, [], path, "a MathVista result file")
        return {pid: _said(row) for pid, row in rows.items()}
    texts = ("extraction", "response", "answer", "text")
    return read_answers(path, ("pid", "question_id"), texts, {"answer": "choices"})


def _said(row: Row) -> str:
    if "extraction" in row:
        return row.text("extraction")
    return Row(row.fields, ["response"], row.path, row.task, row.number).text("response")


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
