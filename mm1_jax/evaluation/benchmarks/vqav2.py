"""VQAv2 (Goyal et al., 2017): questions about COCO photographs, ten people's answers each."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.vqa import VqaAccuracy, vqa_accuracy
from mm1_jax.evaluation.official.published_files import (
    find,
    find_one,
    questions_beside,
    read_answers,
    read_json,
    rows_of,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_logger = logging.getLogger(__name__)
_ENOUGH = 4  # answers, with which three others can agree with each
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
_FIELDS = ["question_id", "image_id", "question_type", "answer_type", "answers"]


def first_line(text: str) -> str:
    """The first line of what was generated, without spaces around it."""
    return text.strip().split("\n", 1)[0].strip()


def people_answers(row: Row) -> tuple[str, ...]:
    """The texts of a row's `answers`: a list of texts or of objects with `answer`."""
    texts = row.texts("answers", key="answer")
    if not any(texts):
        raise row.error("no answers; a split without them?")
    return texts


def read_vqa(path: Path, task: str) -> list[Question]:
    """An annotation file in VQA's form with the question file beside it, or a folder of both.

    In a folder the validation files are taken, whatever their names are if none has the usual one.
    A file without its question file can be scored: its prompts are empty.
    """
    file = _annotations(path, task)
    content = read_json(file)
    rows = rows_of(content, "annotations", _FIELDS, file, task, "question_id")
    asked = _questions(file, task, required=path.is_dir())
    subtype = Row({"data_subtype": "val2014", **content}, [], file, task).text("data_subtype")
    questions = []
    for row in rows:
        item_id = row.id("question_id")
        text = asked.get(item_id, "") if asked is not None else ""
        if asked is not None and not text:
            raise row.error(f"question_id {item_id} has no question")
        questions.append(
            Question(
                item_id=item_id,
                images=(f"COCO_{subtype}_{row.whole('image_id'):012d}.jpg",),
                prompt=text and text + SHORT_ANSWER,
                references=people_answers(row),
                facts={
                    "question": text,
                    "answer": row.optional("multiple_choice_answer"),
                    "answer_type": row.label("answer_type"),
                    "question_type": row.label("question_type"),
                },
            )
        )
    return questions


def _annotations(path: Path, task: str) -> Path:
    patterns = ("*val*annotations.json", "*annotations.json")
    if path.is_dir() and not any(any(path.glob(pattern)) for pattern in patterns):
        named = sorted(path.glob("*.json"))
        holding = [file for file in named if file.name[:2] != "._" and _holds(file, "annotations")]
        if len(holding) == 1:
            return holding[0]
    return find_one(path, task, *patterns)


def _holds(file: Path, name: str) -> bool:
    """Whether a JSON file is an object with the list `name`."""
    content = read_json(file)
    return isinstance(content, dict) and isinstance(content.get(name), list)


def _questions(annotations: Path, task: str, required: bool) -> dict[str, str] | None:
    """question_id → question of the file beside the annotations; None if there is none."""
    file = questions_beside(annotations)
    if file == annotations or not file.is_file():
        if not required:
            return None
        usual = "questions.json" if file == annotations else file.name
        others = [other for other in find(annotations.parent, task, "*.json") if other != file]
        holding = [other for other in others if _holds(other, "questions")]
        if len(holding) != 1:
            raise UserError(f"{task}: expected {usual} beside {annotations.name}")
        (file,) = holding
    questions: dict[str, str] = {}
    for row in rows_of(read_json(file), "questions", ["question_id", "question"], file, task):
        item_id = row.id("question_id")
        if item_id in questions:
            raise row.error(f"question_id {item_id} is there twice")
        questions[item_id] = row.text("question")
    return questions


def people_score(
    questions: Sequence[Question],
    given: Sequence[str],
    accuracy: VqaAccuracy,
    groups: Sequence[str] = (),
) -> Score:
    """Accuracy against people's answers in per cent, overall and by the facts named in `groups`."""
    few = sum(len(question.references) < _ENOUGH for question in questions)
    if few:
        _tell_few(few, len(questions))
    items = [
        100 * accuracy(text, question.references)
        for question, text in zip(questions, given, strict=True)
    ]
    values = {group: [str(question.facts[group]) for question in questions] for group in groups}
    return Score(items, group_means("accuracy", items, values))


@functools.cache
def _tell_few(few: int, questions: int) -> None:
    """Once in a process: a task may score the same answers in several ways."""
    _logger.warning(
        "%s of %s questions have fewer than %s answers: VQA's rule compares with those of other "
        "people, so even the right one does not score 100, and where it is alone it scores 0",
        *(few, questions, _ENOUGH),
    )


def read(path: Path) -> list[Question]:
    """`v2_mscoco_val2014_annotations.json` with `v2_OpenEnded_mscoco_val2014_questions.json`."""
    return read_vqa(path, "vqav2")


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """VQA's own accuracy (raw texts compared where all agree), by answer and question type."""
    return people_score(questions, given, vqa_accuracy, ("answer_type", "question_type"))


TASK = OfficialTask("vqav2", read, read_answers, first_line, score)
