"""VQAv2 (Goyal et al., 2017): questions about COCO photographs, ten people's answers each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm1_jax.errors import UserError
from mm1_jax.metrics.groups import group_means
from mm1_jax.metrics.vqa import VqaAccuracy, vqa_accuracy
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import check_fields, find_one, part, read_answers, read_json

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
_FIELDS = ["question_id", "image_id", "question_type", "answer_type", "answers"]


def first_line(text: str) -> str:
    """The first line of what was generated, without spaces around it."""
    return text.strip().split("\n", 1)[0].strip()


def people_answers(row: dict[str, Any], path: Path, task: str) -> tuple[str, ...]:
    """The texts of a row's `answers`: a list of texts or of objects with `answer`."""
    if not row["answers"]:
        raise UserError(f"{task}: no answers; a split without them?", file=str(path))
    for answer in row["answers"]:
        if not isinstance(answer, str):
            check_fields(answer, ["answer"], path, task)
    return tuple(a if isinstance(a, str) else a["answer"] for a in row["answers"])


def read_vqa(path: Path, task: str) -> list[Question]:
    """An annotation file in VQA's form with the question file beside it, or a folder of both.

    In a folder the validation files are taken. A file without its question file can be scored: its
    prompts are empty.
    """
    file = find_one(path, task, "*val*annotations.json", "*annotations.json")
    content = read_json(file)
    rows = part(content, "annotations", file, task)
    asked = _questions(file, task, required=path.is_dir())
    subtype = content.get("data_subtype", "val2014")
    questions = []
    for row in rows:
        check_fields(row, _FIELDS, file, task)
        text = asked.get(row["question_id"], "")
        if asked and not text:
            raise UserError(f"question_id {row['question_id']} has no question", file=str(file))
        questions.append(
            Question(
                item_id=str(row["question_id"]),
                images=(f"COCO_{subtype}_{row['image_id']:012d}.jpg",),
                prompt=text and text + SHORT_ANSWER,
                references=people_answers(row, file, task),
                facts={
                    "question": text,
                    "answer": row.get("multiple_choice_answer"),
                    "answer_type": row["answer_type"],
                    "question_type": row["question_type"],
                },
            )
        )
    return questions


def _questions(annotations: Path, task: str, required: bool) -> dict[int, str]:
    name = annotations.name.replace("annotations", "questions")
    name = name.replace("mscoco", "OpenEnded_mscoco")
    file = annotations.with_name(name)
    if not file.is_file():
        if required:
            raise UserError(f"{task}: expected {name} beside {annotations.name}")
        return {}
    rows = part(read_json(file), "questions", file, task)
    for row in rows:
        check_fields(row, ["question_id", "question"], file, task)
    return {row["question_id"]: row["question"] for row in rows}


def people_score(
    questions: Sequence[Question],
    given: Sequence[str],
    accuracy: VqaAccuracy,
    groups: Sequence[str] = (),
) -> Score:
    """Accuracy against people's answers in per cent, overall and by the facts named in `groups`."""
    items = [
        100 * accuracy(text, question.references)
        for question, text in zip(questions, given, strict=True)
    ]
    values = {group: [str(question.facts[group]) for question in questions] for group in groups}
    return Score(items, group_means("accuracy", items, values))


def read(path: Path) -> list[Question]:
    """`v2_mscoco_val2014_annotations.json` with `v2_OpenEnded_mscoco_val2014_questions.json`."""
    return read_vqa(path, "vqav2")


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """VQA's own accuracy (raw texts compared where all agree), by answer and question type."""
    return people_score(questions, given, vqa_accuracy, ("answer_type", "question_type"))


TASK = OfficialTask("vqav2", read, read_answers, first_line, score)
