"""MMBench (Liu et al., 2024): twenty abilities, each question asked with its options rotated."""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.multiple_choice import letters, mmbench_reading
from mm1_jax.evaluation.official.lettered_options import LETTER, right_letter, with_options
from mm1_jax.evaluation.official.published_files import embedded, find_one, read_answers, rows_with
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["index", "question", "A", "B", "answer", "category"]
_ROTATED = 1_000_000  # rotations of question i are i + 1,000,000, i + 2,000,000 …


def read(path: Path) -> list[Question]:
    """`mmbench_dev_en_20231003.tsv` or another file of its form, or a folder with one."""
    file = find_one(path, "mmbench", "*mmbench*dev*en*.tsv", "*.tsv", "*.parquet")
    rows = rows_with(file, _FIELDS, "mmbench", "index")
    columns = _columns(rows[0])
    places = {row.whole("index"): number for number, row in enumerate(rows)}
    questions = []
    for number, row in enumerate(rows):
        # A rotated question has the first one's image, often by its index only.
        index = row.whole("index")
        shown = places.get(index % _ROTATED, number)
        options = tuple(_cell(row, name) for name in columns)
        question, hint = row.text("question"), _cell(row, "hint")
        questions.append(
            Question(
                item_id=str(index),
                images=(embedded(path, file, shown, "image"),),
                prompt=(hint and hint + "\n") + with_options(question, options) + LETTER,
                references=(right_letter(row, "answer", options),),
                choices=options,
                facts={
                    "question": question,
                    "category": row.label("category"),
                    "l2_category": row.label("l2-category") or row.label("L2-category"),
                },
            )
        )
    return questions


def _columns(row: Row) -> list[str]:
    """Those of the options: A, B and so on."""
    there = [name for name in string.ascii_uppercase if name in row]
    skipped = sorted(set(string.ascii_uppercase[: len(there)]) - set(there))
    if skipped:
        raise row.error(f"columns {', '.join(there)}, but none called {skipped[0]}")
    return there


def _cell(row: Row, name: str) -> str:
    """A text, "" for an empty cell, which the edition in Parquet of the hub has as the text nan."""
    text = row.optional(name)
    return "" if text == "nan" and row.path.suffix.lower() == ".parquet" else text


def predictions(path: Path) -> dict[str, str]:
    """A table (TSV, CSV) of `index` and `prediction`, or rows of `question_id` and `text`."""
    return read_answers(
        path, ("index", "question_id"), ("prediction", "answer", "text"), {"answer": "A"}
    )


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Circular accuracy without an LLM: an answer that names no option, or several, is wrong.

    All rotations of a question that the file has must be right. `accuracy_single` is over all rows
    as they are, and so are the items.
    """
    read = [
        mmbench_reading(text, letters(q.choices)) for q, text in zip(questions, given, strict=True)
    ]
    items = [100.0 * (a == q.references[0]) for q, a in zip(questions, read, strict=True)]
    rotations: dict[int, list[float]] = defaultdict(list)
    first: dict[int, Question] = {}
    for question, value in zip(questions, items, strict=True):
        index = int(question.item_id) % _ROTATED
        rotations[index].append(value)
        first.setdefault(index, question)
    groups = {
        name: [question.facts[name] for question in first.values()]
        for name in ("category", "l2_category")
    }
    metrics = group_means("accuracy", [min(values) for values in rotations.values()], groups)
    metrics |= group_means("accuracy_single", items, {})
    metrics["unparsed"] = 100 * read.count(None) / len(read)
    return Score(items, metrics, {"accuracy_single": items})


TASK = OfficialTask("mmbench", read, predictions, str.strip, score)
