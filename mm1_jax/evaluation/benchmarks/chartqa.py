"""ChartQA (Masry et al., 2022): questions about charts, by people and by a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mm1_jax.evaluation.benchmarks.vqav2 import first_line
from mm1_jax.evaluation.metrics.groups import group_means
from mm1_jax.evaluation.metrics.relaxed import relaxed_match
from mm1_jax.evaluation.official.published_files import (
    find,
    one_object,
    read_answers,
    read_rows,
    rows_with,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_SINGLE_WORD = "\nAnswer the question with a single word."


def _numbered(names: Iterable[str]) -> list[str]:
    """Names, the second of equal ones with " (2)" and so on: charts have no ids of questions."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return numbered


def _name(row: Row) -> str:
    return f"{row.text('imgname')}: {row.text('query')}"


def read(path: Path) -> list[Question]:
    """`test_human.json` and `test_augmented.json`, one of them or a folder with both.

    An item's id is `<image>: <question>`.
    """
    files = find(path, "chartqa", "**/test_*.json", "**/train_*.json")
    rows = [
        row for file in files for row in rows_with(file, ["imgname", "query", "label"], "chartqa")
    ]
    ids = _numbered(map(_name, rows))
    return [
        Question(
            item_id=item_id,
            images=(row.image("imgname"),),
            prompt=row.text("query") + _SINGLE_WORD,
            references=(row.answer("label"),),
            facts={"question": row.text("query"), "split": row.path.stem.rsplit("_", 1)[-1]},
        )
        for item_id, row in zip(ids, rows, strict=True)
    ]


def predictions(path: Path) -> dict[str, str]:
    """Rows of `imgname`, `query` and `prediction`, or of `question_id` (the item's id)."""
    if not one_object(path):
        contents = read_rows(path)
        if contents and all("imgname" in row and "query" in row for row in contents):
            rows = [Row(row, [], path, "chartqa", n) for n, row in enumerate(contents, start=1)]
            for row in rows:
                if "prediction" not in row:
                    raise row.error("no prediction")
            ids = _numbered(map(_name, rows))
            return {item_id: row.text("prediction") for item_id, row in zip(ids, rows, strict=True)}
    return read_answers(path, texts=("prediction", "answer", "text"))


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Relaxed accuracy (numbers within 5 %), by split: human, augmented."""
    items = [
        100.0 * relaxed_match(text, question.references[0])
        for question, text in zip(questions, given, strict=True)
    ]
    groups = {"split": [question.facts["split"] for question in questions]}
    return Score(items, group_means("relaxed_accuracy", items, groups))


TASK = OfficialTask("chartqa", read, predictions, first_line, score)
