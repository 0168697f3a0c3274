"""TextVQA (Singh et al., 2019): questions that need the text in the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import (
    SHORT_ANSWER,
    first_line,
    people_answers,
    people_score,
)
from mm1_jax.evaluation.metrics.vqa import textvqa_accuracy
from mm1_jax.evaluation.official.published_files import find_one, read_answers, read_json, rows_of
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["question_id", "question", "image_id", "answers"]


def read(path: Path) -> list[Question]:
    """`TextVQA_0.5.1_val.json`, or a folder with it."""
    file = find_one(path, "textvqa", "TextVQA_*_val.json", "TextVQA_*_train.json")
    questions = []
    for row in rows_of(read_json(file), "data", _FIELDS, file, "textvqa", "question_id"):
        question = row.text("question")
        questions.append(
            Question(
                item_id=row.id("question_id"),
                images=(row.image("image_id") + ".jpg",),
                prompt=question.capitalize() + SHORT_ANSWER,
                references=people_answers(row),
                facts={"question": question},
            )
        )
    return questions


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy by the rule of LLaVA and lmms-eval: always normalised."""
    return people_score(questions, given, textvqa_accuracy)


TASK = OfficialTask("textvqa", read, read_answers, first_line, score)
