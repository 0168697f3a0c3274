"""GQA (Hudson and Manning, 2019): compositional questions about photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import SHORT_ANSWER, first_line
from mm1_jax.evaluation.metrics.exact_match import exact_match_without_punctuation
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.official.published_files import (
    find_one,
    read_answers,
    read_json,
    rows_by_id,
)
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_TYPES = ("structural", "semantic")


def read(path: Path) -> list[Question]:
    """`testdev_balanced_questions.json` (12,578 questions), or a folder with it."""
    file = find_one(path, "gqa", "testdev_balanced_questions.json", "*_questions.json")
    rows = rows_by_id(read_json(file), ["question", "imageId", "answer"], file, "gqa")
    questions = []
    for item_id, row in rows.items():
        question = row.text("question")
        types = row.part("types") if row.fields.get("types") is not None else None
        questions.append(
            Question(
                item_id=item_id,
                images=(row.image("imageId") + ".jpg",),
                prompt=question + SHORT_ANSWER,
                references=(row.answer("answer"),),
                facts={"question": question}
                | {name: types.label(name) if types else "" for name in _TYPES},
            )
        )
    return questions


def predictions(path: Path) -> dict[str, str]:
    """The official list of `questionId` and `prediction`."""
    ids, texts = ("questionId", "question_id"), ("prediction", "answer", "text")
    return read_answers(path, ids, texts)


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy of the short answer, case and punctuation ignored (lmms-eval), by question type.

    Consistency, validity and plausibility need files of the official script and are not computed.
    """
    items = [
        100.0 * exact_match_without_punctuation(text.strip(), question.references[0])
        for question, text in zip(questions, given, strict=True)
    ]
    groups = {name: [question.facts[name] for question in questions] for name in _TYPES}
    return Score(items, group_means("accuracy", items, groups))


TASK = OfficialTask("gqa", read, predictions, first_line, score)
