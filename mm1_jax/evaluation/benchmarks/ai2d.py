"""AI2D (Kembhavi et al., 2016): diagrams of school science, four choices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.exact_match import exact_match_without_punctuation
from mm1_jax.evaluation.metrics.multiple_choice import letters
from mm1_jax.evaluation.official.lettered_options import (
    LETTER,
    letter_at,
    letter_score,
    with_options,
)
from mm1_jax.evaluation.official.published_files import (
    embedded,
    find,
    read_answers,
    read_json,
    read_text,
    rows_by_id,
    rows_with,
)
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_LETTER = re.compile(r"\s*([A-Z])\.")
_FIELDS = ["questionId", "answerTexts", "correctAnswer"]
_TEST_IDS = "ai2d_test_ids.csv"


def read(path: Path) -> list[Question]:
    """The published folder (`questions/<image>.json`, `images`), or Parquet as of lmms-eval.

    With `ai2d_test_ids.csv` in the folder only the images that it lists. Parquet has `question`,
    `options`, `answer` (an index) and `image`.
    """
    return _read(path, training=False)


def read_training(path: Path) -> list[Question]:
    """The images that `ai2d_test_ids.csv` does not list; of Parquet the training split."""
    return _read(path, training=True)


def _read(path: Path, training: bool) -> list[Question]:
    table = "**/train-*.parquet" if training else "**/test-*.parquet"
    files = find(path, "ai2d", "questions/*.json", table)
    if files[0].parent.name == "questions":
        return _read_published(path, files, training)
    questions: list[Question] = []
    for file in files:
        for number, row in enumerate(rows_with(file, ["question", "options", "answer"], "ai2d")):
            name = embedded(path, file, number, "image")
            item_id, text = str(len(questions)), row.text("question")
            questions.append(_question(item_id, name, text, row, "options", "answer"))
    return questions


def _read_published(path: Path, files: Sequence[Path], training: bool) -> list[Question]:
    listed = path / _TEST_IDS
    if training and not listed.is_file():
        raise UserError(f"ai2d: expected {_TEST_IDS} in {path}: what it does not list is training")
    test = set(read_text(listed).split()) if listed.is_file() else None
    questions = []
    for file in files:
        image = file.stem  # 0.png.json
        if test is not None and (image.split(".")[0] in test) == training:
            continue
        whole = Row(read_json(file), ["questions"], file, "ai2d").part("questions")
        for text, row in rows_by_id(whole.fields, _FIELDS, file, "ai2d").items():
            item_id, name = row.id("questionId"), f"images/{image}"
            questions.append(_question(item_id, name, text, row, "answerTexts", "correctAnswer"))
    if not questions:
        raise UserError(f"ai2d: {_TEST_IDS} of {path} lists {'all' if training else 'no'} images")
    return questions


def _question(item_id: str, image: str, text: str, row: Row, choices: str, right: str) -> Question:
    options = row.options(choices)
    return Question(
        item_id=item_id,
        images=(image,),
        prompt=with_options(text, options) + LETTER,
        references=(letter_at(row, right, options),),
        choices=options,
        facts={"question": text},
    )


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """Accuracy: the letter before a period at the start, else all of the answer (lmms-eval)."""
    read = []
    for question, text in zip(questions, given, strict=True):
        letter = _LETTER.match(text)
        said = letter.group(1) if letter else text.strip()
        known = letters(question.choices)
        read.append(next((x for x in known if exact_match_without_punctuation(said, x)), None))
    return letter_score(questions, read)


TASK = OfficialTask("ai2d", read, read_answers, str.strip, score, read_training=read_training)
