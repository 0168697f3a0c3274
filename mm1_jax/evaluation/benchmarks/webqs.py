"""WebQuestions (Berant et al., 2013): is any accepted answer what greedy decoding gives?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.official.likelihood_tasks import greedy_score, likelihood_task
from mm1_jax.evaluation.official.published_files import find_one, rows_with
from mm1_jax.evaluation.official.task import Question


def shortest_answers(answers: Sequence[str]) -> list[str]:
    """In alphabetic order, without those that begin with another one: that one suffices."""
    kept: list[str] = []
    for answer in sorted(answers):
        if not kept or not answer.startswith(kept[-1]):
            kept.append(answer)
    return kept


def read(path: Path) -> list[Question]:
    """A file with `question` and `answers`, or the test split (2,032) in a folder."""
    file = find_one(path, "webqs", "**/test-*.parquet", "**/train-*.parquet")
    questions = []
    for number, row in enumerate(rows_with(file, ["question", "answers"], "webqs")):
        question, answers = row.text("question"), row.texts("answers")
        if not answers or not all(text.strip() for text in answers):
            raise row.error("answers has none or an empty one; a split without answers?")
        questions.append(
            Question(
                item_id=str(number),
                images=(),
                prompt=f"Question: {question}\nAnswer:",
                references=answers,
                choices=tuple(shortest_answers(answers)),
                facts={"question": question},
            )
        )
    return questions


TASK = likelihood_task("webqs", read, greedy_score)
