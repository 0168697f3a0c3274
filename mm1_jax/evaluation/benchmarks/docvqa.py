"""DocVQA (Mathew et al., 2021): questions about scanned documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import SHORT_ANSWER, first_line, people_answers
from mm1_jax.evaluation.metrics.anls import anls
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.official.published_files import find_one, read_answers, read_json, rows_of
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["questionId", "question", "image", "answers"]


def read(path: Path) -> list[Question]:
    """`val_v1.0.json` or `val_v1.0_withQT.json`, or a folder with one of them."""
    file = find_one(path, "docvqa", "val_v1.0*.json", "train_v1.0*.json")
    questions = []
    for row in rows_of(read_json(file), "data", _FIELDS, file, "docvqa", "questionId"):
        question = row.text("question")
        questions.append(
            Question(
                item_id=row.id("questionId"),
                images=(row.image("image"),),
                prompt=question + SHORT_ANSWER,
                references=people_answers(row),
                facts={"question": question},
            )
        )
    return questions


def predictions(path: Path) -> dict[str, str]:
    """The challenge's list of `questionId` and `answer`."""
    return read_answers(path, ("questionId", "question_id"))


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Average normalised Levenshtein similarity, 0 below a half (lmms-eval), in per cent."""
    items = [
        100.0 * anls(text, question.references)
        for question, text in zip(questions, given, strict=True)
    ]
    return Score(items, group_means("anls", items, {}))


TASK = OfficialTask("docvqa", read, predictions, first_line, score)
