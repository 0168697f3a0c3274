"""TriviaQA (Joshi et al., 2017) without context: a generated answer is any alias."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mm1_jax.metrics.exact_match import exact_match_without_punctuation
from mm1_jax.metrics.groups import group_means
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import check_fields, find, read_answers, read_rows, rows_with

_STOPS = re.compile(r"[\n.,]")


def read(path: Path) -> list[Question]:
    """Parquet files of `rc.nocontext`, or the validation split (17,944) in a folder.

    The prompt adds a question mark to the question's own, as the harness's does.
    """
    splits = ("validation-*.parquet", "train-*.parquet")
    patterns = [name for split in splits for name in (f"**/rc.nocontext/{split}", split)]
    questions = []
    for file in find(path, "triviaqa", *patterns):
        for row in rows_with(file, ["question", "answer"], "triviaqa"):
            check_fields(row["answer"], ["aliases"], file, "triviaqa")
            questions.append(
                Question(
                    item_id=str(len(questions)),
                    images=(),
                    prompt=f"Question: {row['question']}?\nAnswer:",
                    references=tuple(row["answer"]["aliases"]),
                    facts={"question": row["question"]},
                )
            )
    return questions


def predictions(path: Path) -> dict[str, str]:
    """A `samples_….jsonl` of the harness, or JSON of `question_id` (the row) and `answer`."""
    if path.suffix == ".jsonl":
        rows = read_rows(path)
        if rows and all("filtered_resps" in row and "doc_id" in row for row in rows):
            return {str(row["doc_id"]): str(row["filtered_resps"][0]) for row in rows}
    return read_answers(path)


def answer(text: str) -> str:
    """Up to the first line end, period or comma, without spaces around it."""
    return _STOPS.split(text, maxsplit=1)[0].strip()


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """`exact_match` with any alias, case and punctuation ignored."""
    items = [
        100.0 * any(exact_match_without_punctuation(text, alias) for alias in question.references)
        for question, text in zip(questions, given, strict=True)
    ]
    return Score(items, group_means("exact_match", items, {}))


TASK = OfficialTask("triviaqa", read, predictions, answer, score)
