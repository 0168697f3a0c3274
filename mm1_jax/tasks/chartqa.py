"""ChartQA (Masry et al., 2022): questions about charts, by people and by a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mm1_jax.errors import UserError
from mm1_jax.metrics.groups import group_means
from mm1_jax.metrics.relaxed import relaxed_match
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import find, read_answers, read_rows, rows_with
from mm1_jax.tasks.vqav2 import first_line

_SINGLE_WORD = "\nAnswer the question with a single word."


def _numbered(names: Iterable[str]) -> list[str]:
    """Names, the second of equal ones with " (2)" and so on: charts have no ids of questions."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} ({seen[name]})" if seen[name] > 1 else name)
    return numbered


def read(path: Path) -> list[Question]:
    """`test_human.json` and `test_augmented.json`, one of them or a folder with both.

    An item's id is `<image>: <question>`.
    """
    files = find(path, "chartqa", "**/test_*.json", "**/train_*.json")
    rows = [
        (f, row) for f in files for row in rows_with(f, ["imgname", "query", "label"], "chartqa")
    ]
    ids = _numbered(f"{row['imgname']}: {row['query']}" for _, row in rows)
    return [
        Question(
            item_id=item_id,
            images=(row["imgname"],),
            prompt=row["query"] + _SINGLE_WORD,
            references=(row["label"],),
            facts={"question": row["query"], "split": file.stem.rsplit("_", 1)[-1]},
        )
        for item_id, (file, row) in zip(ids, rows, strict=True)
    ]


def predictions(path: Path) -> dict[str, str]:
    """Rows of `imgname`, `query` and `prediction`, or of `question_id` (the item's id)."""
    rows = read_rows(path)
    if not all("imgname" in row and "query" in row for row in rows):
        return read_answers(path, texts=("prediction", "answer", "text"))
    for number, row in enumerate(rows, start=1):
        if "prediction" not in row:
            raise UserError(f"row {number}: no prediction", file=str(path))
    ids = _numbered(f"{row['imgname']}: {row['query']}" for row in rows)
    return {item_id: str(row["prediction"]) for item_id, row in zip(ids, rows, strict=True)}


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Relaxed accuracy (numbers within 5 %), by split: human, augmented."""
    items = [
        100.0 * relaxed_match(text, question.references[0])
        for question, text in zip(questions, given, strict=True)
    ]
    groups = {"split": [question.facts["split"] for question in questions]}
    return Score(items, group_means("relaxed_accuracy", items, groups))


TASK = OfficialTask("chartqa", read, predictions, first_line, score)
