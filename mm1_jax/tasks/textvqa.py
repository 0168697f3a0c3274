"""TextVQA (Singh et al., 2019): questions that need the text in the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.metrics.vqa import textvqa_accuracy
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import check_fields, find_one, part, read_answers, read_json
from mm1_jax.tasks.vqav2 import SHORT_ANSWER, first_line, people_answers, people_score

_FIELDS = ["question_id", "question", "image_id", "answers"]


def read(path: Path) -> list[Question]:
    """`TextVQA_0.5.1_val.json`, or a folder with it."""
    file = find_one(path, "textvqa", "TextVQA_*_val.json", "TextVQA_*_train.json")
    rows = part(read_json(file), "data", file, "textvqa")
    questions = []
    for row in rows:
        check_fields(row, _FIELDS, file, "textvqa")
        questions.append(
            Question(
                item_id=str(row["question_id"]),
                images=(f"{row['image_id']}.jpg",),
                prompt=row["question"].capitalize() + SHORT_ANSWER,
                references=people_answers(row, file, "textvqa"),
                facts={"question": row["question"]},
            )
        )
    return questions


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy by the rule of LLaVA and lmms-eval: always normalised."""
    return people_score(questions, given, textvqa_accuracy)


TASK = OfficialTask("textvqa", read, read_answers, first_line, score)
