"""GQA (Hudson and Manning, 2019): compositional questions about photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.errors import UserError
from mm1_jax.metrics.exact_match import exact_match_without_punctuation
from mm1_jax.metrics.groups import group_means
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import check_fields, find_one, read_answers, read_json
from mm1_jax.tasks.vqav2 import SHORT_ANSWER, first_line

_TYPES = ("structural", "semantic")


def read(path: Path) -> list[Question]:
    """`testdev_balanced_questions.json` (12,578 questions), or a folder with it."""
    file = find_one(path, "gqa", "testdev_balanced_questions.json", "*_questions.json")
    content = read_json(file)
    if not isinstance(content, dict) or not content:
        raise UserError("not gqa: expected an object question id → question", file=str(file))
    questions = []
    for item_id, row in content.items():
        check_fields(row, ["question", "imageId", "answer"], file, "gqa")
        types = row.get("types", {})
        questions.append(
            Question(
                item_id=item_id,
                images=(f"{row['imageId']}.jpg",),
                prompt=row["question"] + SHORT_ANSWER,
                references=(row["answer"],),
                facts={"question": row["question"]}
                | {name: types.get(name) or "" for name in _TYPES},
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
