"""TriviaQA (Joshi et al., 2017) without context: a generated answer is any alias."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.metrics.exact_match import exact_match_without_punctuation
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.official.published_files import (
    find,
    one_each,
    read_answers,
    read_rows,
    rows_with,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

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
            question = row.text("question")
            aliases = row.part("answer", "aliases").texts("aliases")
            if not any(aliases):
                raise row.error("no aliases; a split without answers?")
            questions.append(
                Question(
                    item_id=str(len(questions)),
                    images=(),
                    prompt=f"Question: {question}?\nAnswer:",
                    references=aliases,
                    facts={"question": question},
                )
            )
    return questions


def predictions(path: Path) -> dict[str, str]:
    """A `samples_….jsonl` of the harness, or JSON of `question_id` (the row) and `answer`."""
    if path.suffix.lower() == ".jsonl":
        contents = read_rows(path)
        if contents and all("filtered_resps" in row and "doc_id" in row for row in contents):
            rows = [
                Row(row, [], path, "triviaqa", number, "doc_id")
                for number, row in enumerate(contents, start=1)
            ]
            return one_each((row, row.id("doc_id"), _first(row)) for row in rows)
    return read_answers(path)


def _first(row: Row) -> str:
    said = row.texts("filtered_resps")
    if not said:
        raise row.error("filtered_resps is empty")
    return said[0]


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
