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


def read(path: Path, split: str = "test") -> list[Question]:
    """`problems.json` and `pid_splits.json`, or Parquet with the same columns; one split of it.

    Images are `SPLIT/<id>/<name>` as published, or in the Parquet file.
    """
    if _is_table(path):
        return _read_parquet(path, split)
    return [
        _question(pid, f"{split}/{pid}/{row['image']}", row)
        for pid, row in _problems(path, split).items()
        if row["image"]
    ]


def read_training(path: Path) -> list[Question]:
    """The training split."""
    return read(path, "train")


def left_out(path: Path) -> set[str]:
    """The test questions without an image."""
    if _is_table(path):
        return set()
    return {pid for pid, row in _problems(path, "test").items() if not row["image"]}


def _is_table(path: Path) -> bool:
    return path.suffix == ".parquet" or (path.is_dir() and not (path / "problems.json").is_file())


def _problems(path: Path, split: str) -> dict[str, Any]:
    file = find_one(path, "scienceqa", "problems.json")
    problems = read_json(file)
    check_fields(problems, [], file, "scienceqa")
    for row in problems.values():
        check_fields(row, _FIELDS, file, "scienceqa")
    splits_file = file.with_name("pid_splits.json")
    if splits_file.is_file():
        chosen = part(read_json(splits_file), split, splits_file, "scienceqa")
        check_fields(problems, chosen, file, "scienceqa")
    else:
        chosen = [pid for pid, row in problems.items() if row.get("split") == split]
    return {pid: problems[pid] for pid in chosen}


def _read_parquet(path: Path, split: str) -> list[Question]:
    names = (f"**/ScienceQA-IMG/{split}-*.parquet", f"**/{split}-*.parquet")
    questions = []
    for file in find(path, "scienceqa", "problems.json", *names):
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
        facts={"question": row["question"], "reasoning": row.get("solution") or ""}
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


TASK = OfficialTask(
    name="scienceqa",
    read=read,
    predictions=predictions,
    answer=str.strip,
    score=score,
    read_training=read_training,
    left_out=left_out,
)
