"""ScienceQA (Lu et al., 2022), the questions with an image: school science, two to five choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm1_jax.metrics.multiple_choice import scienceqa_reading
from mm1_jax.tasks.generation_task import Score
from mm1_jax.tasks.lettered import LETTER, letter_score, right_letter, with_options
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import (
    check_fields,
    embedded,
    find,
    find_one,
    part,
    read_answers,
    read_json,
    rows_with,
)

_FIELDS = ["question", "choices", "answer", "hint", "image"]
_SPLIT = "test"


def read(path: Path) -> list[Question]:
    """`problems.json` and `pid_splits.json`, or Parquet with the same columns; split test.

    Images are `test/<id>/<name>` as published, or in the Parquet file.
    """
    if _is_table(path):
        return _read_parquet(path)
    return [
        _question(pid, f"{_SPLIT}/{pid}/{row['image']}", row)
        for pid, row in _test_problems(path).items()
        if row["image"]
    ]


def left_out(path: Path) -> set[str]:
    """The test questions without an image."""
    if _is_table(path):
        return set()
    return {pid for pid, row in _test_problems(path).items() if not row["image"]}


def _is_table(path: Path) -> bool:
    return path.suffix == ".parquet" or (path.is_dir() and not (path / "problems.json").is_file())


def _test_problems(path: Path) -> dict[str, Any]:
    file = find_one(path, "scienceqa", "problems.json")
    problems = read_json(file)
    check_fields(problems, [], file, "scienceqa")
    for row in problems.values():
        check_fields(row, _FIELDS, file, "scienceqa")
    splits_file = file.with_name("pid_splits.json")
    if splits_file.is_file():
        chosen = part(read_json(splits_file), _SPLIT, splits_file, "scienceqa")
        check_fields(problems, chosen, file, "scienceqa")
    else:
        chosen = [pid for pid, row in problems.items() if row.get("split") == _SPLIT]
    return {pid: problems[pid] for pid in chosen}


def _read_parquet(path: Path) -> list[Question]:
    patterns = ("problems.json", "test-*.parquet", "ScienceQA-IMG/test-*.parquet")
    questions = []
    for file in find(path, "scienceqa", *patterns):
        for number, row in enumerate(rows_with(file, _FIELDS, "scienceqa")):
            if row["image"] is not None:
                image = embedded(path, file, number, "image")
                questions.append(_question(str(len(questions)), image, row))
    return questions


def _question(item_id: str, image: str, row: dict[str, Any]) -> Question:
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    return Question(
        item_id=item_id,
        images=(image,),
        prompt=context + with_options(row["question"], row["choices"]) + LETTER,
        references=(right_letter(row["answer"]),),
        choices=tuple(row["choices"]),
        facts={"question": row["question"]}
        | {name: row.get(name) or "" for name in ("subject", "grade")},
    )


def predictions(path: Path) -> dict[str, str]:
    """JSON with `outputs` (id → text), as LLaVA writes, or rows of `question_id` and `text`."""
    if path.suffix == ".json":
        content = read_json(path)
        if isinstance(content, dict) and "outputs" in content:
            return {str(item_id): str(text) for item_id, text in content["outputs"].items()}
    return read_answers(path)


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy: the answer is the letter, or begins with it and a period (LLaVA, lmms-eval)."""
    read = [scienceqa_reading(text) for text in given]
    return letter_score(questions, read, ("subject", "grade"))


TASK = OfficialTask("scienceqa", read, predictions, str.strip, score, left_out=left_out)
