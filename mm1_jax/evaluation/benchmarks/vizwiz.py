"""VizWiz-VQA (Gurari et al., 2018): photographs and questions by blind people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import (
    SHORT_ANSWER,
    first_line,
    people_answers,
    people_score,
)
from mm1_jax.evaluation.metrics.vqa import normalised_as_textvqa, textvqa_accuracy
from mm1_jax.evaluation.official.published_files import find_one, read_answers, rows_with
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["image", "question", "answers", "answer_type", "answerable"]
_UNANSWERABLE = (
    "\nWhen the provided information is insufficient, respond with 'Unanswerable'." + SHORT_ANSWER
)


def read(path: Path) -> list[Question]:
    """`val.json`, or a folder with it. There is one question an image: its name is the id."""
    file = find_one(path, "vizwiz", "val.json", "train.json")
    return [
        Question(
            item_id=row.id("image"),
            images=(row.image("image"),),
            prompt=row.text("question").capitalize() + _UNANSWERABLE,
            references=people_answers(row),
            facts={"question": row.text("question"), "answer_type": row.label("answer_type")},
        )
        for row in rows_with(file, _FIELDS, "vizwiz", "image")
    ]


def predictions(path: Path) -> dict[str, str]:
    """The challenge's list of `image` and `answer`."""
    return read_answers(path, ids=("image", "question_id"))


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy by lmms-eval's rule (always normalised); share of answers "unanswerable".

    Who always says "unanswerable" scores high: `accuracy_of_unanswerable`.
    """
    found = people_score(questions, given, textvqa_accuracy, ("answer_type",))
    constant = people_score(questions, ["unanswerable"] * len(questions), textvqa_accuracy)
    refused = sum(normalised_as_textvqa(text) == "unanswerable" for text in given)
    return Score(
        found.items,
        found.metrics
        | {
            "unanswerable": 100 * refused / len(questions),
            "accuracy_of_unanswerable": constant.metrics["accuracy"],
        },
    )


TASK = OfficialTask("vizwiz", read, predictions, first_line, score)
