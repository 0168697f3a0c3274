"""What a task in its official file format consists of: a reader, an answer, a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.errors import UserError
from mm1_jax.evaluation.metrics.standard_error import standard_error
from mm1_jax.evaluation.official.published_rows import short
from mm1_jax.evaluation.tasks.generation_task import Score


@dataclass(frozen=True)
class Question:
    """One item as its official files state it.

    images      files below the folder of the task's images, in the order of the prompt
    prompt      what the model is asked, after the images; the answer follows it
    references  the answers that count, as the files have them
    choices     the candidate answers of a likelihood or multiple-choice task
    facts       what the metric needs or groups by: answer type, question type, split …
    """

    item_id: str
    images: tuple[str, ...]
    prompt: str
    references: tuple[str, ...]
    choices: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OfficialTask:
    """A task's functions; one module a task.

    read           annotations, as published (a file, or a folder of them) → items
    predictions    a result file in the task's official form → item_id → text
    answer         generated text → the answer that is scored (stop strings, first word, letter …)
    score          of (items, their answers in the same order); metrics in per cent where the field
                   quotes per cent; the first metric is the task's own
    by_likelihood  nothing is generated: answers are log-likelihoods, see `likelihood_tasks.answers`
    read_training  as `read`, of files that hold the training split beside the one that is asked
    left_out       annotations → ids that they hold but the task does not, such as questions about
                   videos: a result file may answer them
    official_unit  what the official script prints, of what `score` gives: 0.01 where it prints
                   fractions, which papers quote × 100
    """

    name: str
    read: Callable[[Path], list[Question]]
    predictions: Callable[[Path], dict[str, str]]
    answer: Callable[[str], str]
    score: Callable[[Sequence[Question], Sequence[str]], Score]
    by_likelihood: bool = False
    read_training: Callable[[Path], list[Question]] | None = None
    left_out: Callable[[Path], set[str]] = lambda path: set()
    official_unit: float = 1.0


def questions_in(task: OfficialTask, path: Path, *, training: bool = False) -> list[Question]:
    """The items of a file or folder, each with an id of its own; UserError otherwise.

    `training`: those of the training split, where the task tells it from the others.
    """
    read = task.read_training if training and task.read_training else task.read
    questions = read(path)
    first: dict[str, int] = {}
    for number, question in enumerate(questions, start=1):
        before = first.setdefault(question.item_id, number)
        if before != number:
            places = f"as questions {before} and {number}"
            message = f"{task.name}: {short(question.item_id)} is there twice, {places}"
            raise UserError(message, file=str(path))
    return questions


def standard_errors(questions: Sequence[Question], score: Score) -> dict[str, float]:
    """Of the metrics that are means over items, the images being what might have been others.

    A metric of the whole corpus is no such mean and has none, nor has a mean over one image.
    """
    first, value = next(iter(score.metrics.items()))
    mean = math.fsum(score.items) / len(questions)
    own = math.isclose(value, mean, rel_tol=1e-9, abs_tol=1e-9)
    clusters = [question.images or question.item_id for question in questions]
    errors = {
        name: standard_error(column, clusters)
        for name, column in (({first: score.items} if own else {}) | score.also).items()
    }
    return {name: error for name, error in errors.items() if error is not None}
