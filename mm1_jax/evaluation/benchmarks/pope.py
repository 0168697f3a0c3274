"""POPE (Li et al., 2023): is there such an object in the image? Hallucination as yes or no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.benchmarks.vqav2 import SHORT_ANSWER
from mm1_jax.evaluation.metrics.yes_no import pope_reading, strict_reading, yes_no_metrics
from mm1_jax.evaluation.official.published_files import find, read_answers, rows_with
from mm1_jax.evaluation.official.task import OfficialTask, Question
from mm1_jax.evaluation.tasks.generation_task import Score

_FIELDS = ["question_id", "image", "text", "label"]
_SPLITS = ("adversarial", "popular", "random")


def _split(file: Path) -> str:
    return next((name for name in _SPLITS if name in file.name), file.stem)


def read(path: Path) -> list[Question]:
    """`coco_pope_{random,popular,adversarial}.json`, one of them or a folder with some.

    Of several files the ids are `random/1`: each file counts its questions from 1.
    """
    files = find(path, "pope", "coco_pope_*.json", "*pope*.json", "*pope*.jsonl")
    questions = []
    for file in files:
        before = f"{_split(file)}/" if len(files) > 1 else ""
        for row in rows_with(file, _FIELDS, "pope", "question_id"):
            row.among("label", ("yes", "no"))
            text = row.text("text")
            questions.append(
                Question(
                    item_id=before + row.id("question_id"),
                    images=(row.image("image"),),
                    prompt=text.strip() + SHORT_ANSWER,
                    references=(row.text("label"),),
                    facts={"question": text, "split": _split(file)},
                )
            )
    return questions


def predictions(path: Path) -> dict[str, str]:
    """JSON lines of `question_id` and `answer` or `text`; of a folder, one file a split."""
    if path.is_file():
        return _answers(path)
    files = find(path, "pope", "*.json*")
    splits = Counter(map(_split, files))
    twice = [split for split, count in splits.items() if count > 1]
    if twice:
        raise UserError(f"two files of the split {twice[0]}", file=str(path))
    return {
        f"{_split(file)}/{item_id}": text
        for file in files
        for item_id, text in _answers(file).items()
    }


def _answers(file: Path) -> dict[str, str]:
    return read_answers(file, stated={"text": "label"})


def answer(text: str) -> str:
    """All of it: what counts is decided by the reading."""
    return text


def score(questions: Sequence[Question], given: Sequence[str]) -> Score:
    """POPE's own reading takes all but a no for yes; `strict_…` by lmms-eval's; by split.

    f1, precision and recall are of "yes". `unparsed` is the share of answers that are not just yes
    or no; for `strict_…` they are wrong, and neither.
    """
    labels = [question.references[0] for question in questions]
    official = [pope_reading(text) for text in given]
    strict = [strict_reading(text) for text in given]
    items = [100.0 * (a == b) for a, b in zip(official, labels, strict=True)]
    metrics = yes_no_metrics(official, labels)
    splits = [question.facts["split"] for question in questions]
    for split in sorted(set(splits)) if len(set(splits)) > 1 else []:
        own = [index for index, name in enumerate(splits) if name == split]
        found = yes_no_metrics([official[i] for i in own], [labels[i] for i in own])
        metrics |= {f"{name}/split:{split}": value for name, value in found.items()}
    metrics["unparsed"] = 100 * strict.count(None) / len(strict)
    return Score(items, metrics | yes_no_metrics(strict, labels, "strict_"))


TASK = OfficialTask("pope", read, predictions, answer, score)
