"""ScienceQA (Lu et al., 2022), the questions with an image: school science, two to five choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.multiple_choice import scienceqa_reading
from mm1_jax.evaluation.official.lettered_options import (
    LETTER,
    letter_at,
    letter_score,
    with_options,
)
from mm1_jax.evaluation.official.published_files import (
    embedded,
    find,
    find_one,
    one_object,
    read_answers,
    read_json,
    rows_by_id,
    rows_with,
    splits_beside,
    texts_by_id,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["question", "choices", "answer", "hint", "image"]


def read(path: Path, split: str = "test") -> list[Question]:
    """`problems.json` and `pid_splits.json`, or Parquet with the same columns; one split of it.

    Images are `SPLIT/<id>/<name>` as published, or in the Parquet file.
    """
    if _is_table(path):
        return _read_parquet(path, split)
    return [
        _question(pid, f"{split}/{pid}/{row.image('image')}", row)
        for pid, row in _problems(path, split).items()
        if row.optional("image")
    ]


def read_training(path: Path) -> list[Question]:
    """The training split."""
    return read(path, "train")


def left_out(path: Path) -> set[str]:
    """The test questions without an image."""
    if _is_table(path):
        return set()
    return {pid for pid, row in _problems(path, "test").items() if not row.optional("image")}


def _is_table(path: Path) -> bool:
    return path.suffix == ".parquet" or (path.is_dir() and not (path / "problems.json").is_file())


def _problems(path: Path, split: str) -> dict[str, Row]:
    file = find_one(path, "scienceqa", "problems.json")
    problems = rows_by_id(read_json(file), _FIELDS, file, "scienceqa")
    splits_file = splits_beside(file)
    if splits_file.is_file():
        chosen = Row(read_json(splits_file), [split], splits_file, "scienceqa").texts(split)
        unknown = [pid for pid in chosen if pid not in problems]
        if unknown:
            message = f"{split}: problem {unknown[0]} is not in {file.name}"
            raise UserError(message, file=str(splits_file))
        if len(set(chosen)) < len(chosen):
            raise UserError(f"{split} names a problem twice", file=str(splits_file))
    else:
        chosen = [pid for pid, row in problems.items() if row.optional("split") == split]
    return {pid: problems[pid] for pid in chosen}


def _read_parquet(path: Path, split: str) -> list[Question]:
    names = (f"**/ScienceQA-IMG/{split}-*.parquet", f"**/{split}-*.parquet")
    questions = []
    for file in find(path, "scienceqa", "problems.json", *names):
        for number, row in enumerate(rows_with(file, _FIELDS, "scienceqa")):
            if row.fields["image"] is not None:
                image = embedded(path, file, number, "image")
                questions.append(_question(str(len(questions)), image, row))
    return questions


def _question(item_id: str, image: str, row: Row) -> Question:
    hint, question, choices = row.optional("hint"), row.text("question"), row.options("choices")
    context = f"Context: {hint}\n" if hint else ""
    return Question(
        item_id=item_id,
        images=(image,),
        prompt=context + with_options(question, choices) + LETTER,
        references=(letter_at(row, "answer", choices),),
        choices=choices,
        facts={"question": question, "reasoning": row.optional("solution")}
        | {name: row.label(name) for name in ("subject", "grade")},
    )


def predictions(path: Path) -> dict[str, str]:
    """JSON with `outputs` (id → text), as LLaVA writes, or rows of `question_id` and `text`."""
    content = one_object(path)
    if "outputs" in content:
        return texts_by_id(content["outputs"], path)
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
