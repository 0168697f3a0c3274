"""What the tasks measure, which way it is better, and what a diverged trial scores.

A model whose loss is no longer a number answers nothing: where a metric has a worst value, the
trial has it and stays in the comparison. Where none exists, claims on the metric are undecided.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ablations.averages import AVERAGE, average_shots
from ablations.errors import UserError, nearest
from ablations.workload import Metric as Record
from ablations.workload import Task, Tasks
from mm1_jax.config.questions import MOST_SHOTS
from mm1_jax.evaluation.official.catalogue import OFFICIAL

Goal = Literal["maximise", "minimise"]


@dataclass(frozen=True)
class Metric:
    """What a number of this name is, in whatever task.

    goal   which way is better; None where neither is
    unit   of the value, "" where it has none
    worst  value of a diverged trial; None where there is no worst value
    """

    goal: Goal | None
    unit: str = ""
    worst: float | None = None


_SHARE = Metric("maximise", "%", worst=0.0)
_POINTS = Metric("maximise", worst=0.0)
_NEITHER = Metric(None, "%")
METRICS: dict[str, Metric] = {
    "accuracy": _SHARE,
    "accuracy_bytes": _SHARE,
    "accuracy_norm": _SHARE,
    "accuracy_of_unanswerable": _SHARE,
    "accuracy_single": _SHARE,
    "accuracy_vqa_rule": _SHARE,
    "anls": _SHARE,
    "bits_per_byte": Metric("minimise", "bits"),
    "bleu_4": _SHARE,
    "cider": _POINTS,
    "cognition": _POINTS,
    "colour_accuracy": _SHARE,
    "exact_match": _SHARE,
    "f1": _SHARE,
    "kind_accuracy": _SHARE,
    "loss": Metric("minimise", "nats"),
    "perception": _POINTS,
    "perplexity": Metric("minimise"),
    "precision": _SHARE,
    "recall": _SHARE,
    "recall_at_1": _SHARE,
    "recall_at_5": _SHARE,
    "relaxed_accuracy": _SHARE,
    "rouge_l": _SHARE,
    "score": _POINTS,
    "unanswerable": _NEITHER,
    "unparsed": Metric("minimise", "%"),
    "yes_ratio": _NEITHER,
}
# Before the name of a metric: the same of an answerer without the model, or by another reading.
ANSWERERS = ("blind_", "chance_", "majority_", "ngram_", "oracle_")
_OTHERS = ("untrained_", "strict_")

# task → its metrics, the one it is known by first.
TASKS: dict[str, tuple[str, ...]] = {
    "easy_vqa": ("accuracy", "blind_accuracy", "oracle_accuracy"),
    "emoji_caption": ("cider", "blind_cider"),
    "emoji_questions": ("accuracy", "blind_accuracy"),
    "emoji_languages": ("accuracy", "kind_accuracy", "blind_accuracy"),
    "emoji_attributes": ("accuracy", "kind_accuracy", "blind_accuracy"),
    "fast_binding": ("accuracy", "kind_accuracy", "chance_accuracy"),
    "emoji_glossary": ("accuracy", "colour_accuracy", "chance_accuracy"),
    "held_out_text": ("perplexity", "bits_per_byte"),
    "pretrained_text": (
        "perplexity",
        "bits_per_byte",
        "ngram_perplexity",
        "ngram_bits_per_byte",
    ),
    "emoji_retrieval": ("recall_at_1", "recall_at_5", "chance_at_1", "chance_at_5"),
    "emoji_probe": ("accuracy", "untrained_accuracy", "majority_accuracy"),
} | {
    name: task.metrics + (() if task.text else tuple(f"blind_{m}" for m in task.metrics))
    for name, task in OFFICIAL.items()
}
# Tasks whose evaluation also scores the best answerer that never sees the image.
BLIND = "blind_"  # before the name of the task's first metric
# Tasks without questions: they take no demonstrations, and shuffling images means nothing.
ONE_FORM = ("held_out_text", "pretrained_text", "emoji_retrieval", "emoji_probe")
# Tasks whose demonstrations can show something else than what is asked.
MISLEADING = ("emoji_languages", "emoji_attributes", "fast_binding", "emoji_glossary")


def first_metric(task: str) -> str:
    """What a task is known by."""
    return TASKS[task][0]


def worst_value(task: str, metric: str) -> float | None:
    """Value of a diverged trial; None if the metric has no worst value or is not ours."""
    known = metric_called(metric) if metric in TASKS.get(task, ()) else None
    return known.worst if known else None


def metric_called(name: str) -> Metric | None:
    """What is known of a metric by its name; None where nothing is.

    Of a part (`accuracy/category:colour`, `loss.captions`) it is what is known of the whole. What
    an answerer without the model scores has no worst value.
    """
    whole = name if name in METRICS else re.split(r"[/.]", name)[0]
    if whole in METRICS:
        return METRICS[whole]
    for prefix in (*ANSWERERS, *_OTHERS):
        rest = whole.removeprefix(prefix)
        if rest == whole:
            continue
        known = METRICS.get(rest) or METRICS.get(f"recall_{rest}")  # `chance_at_5`
        return known and dataclasses.replace(known, worst=None)
    # The mean over tasks: those whose first metric is better low are not averaged with others.
    return Metric("maximise") if re.fullmatch(r"\d+_shot", whole) else None


def goal_of(metric: str) -> Goal | None:
    """Which way a metric is better; None where nobody has said."""
    known = metric_called(metric)
    return known.goal if known else None


def chance_of(metric: str) -> str:
    """The metric of who guesses: `chance_accuracy`; of `recall_at_5` it is `chance_at_5`."""
    return f"chance_{metric.removeprefix('recall_')}"


LOWER = "lower is better"


def with_goal(name: str, metric: str) -> str:
    """`held_out_text.perplexity (lower is better)`: how `metric`, called `name`, is shown."""
    return f"{name} ({LOWER})" if goal_of(metric) == "minimise" else name


def check_metric(task: str, metric: str) -> None:
    """Raise `UserError` if there is no such task or metric."""
    if task == AVERAGE:
        average_shots(metric)
        return
    if task not in TASKS:
        raise UserError(f"no task {task!r}{nearest(task, TASKS)}")
    if metric not in TASKS[task]:
        raise UserError(f"task {task} has no metric {metric!r}{nearest(metric, TASKS[task])}")


def check_form(task: str, shots: int, condition: str) -> None:
    """Raise `UserError` for a form of a task that the task cannot have."""
    if shots > MOST_SHOTS:
        raise UserError(f"{shots:,} shots of {task}: at most {MOST_SHOTS:,}")
    if task in ONE_FORM and (shots or condition != "intact"):
        raise UserError(f"{task} asks no questions: no images to shuffle, no demonstrations")
    if condition == "wrong_demonstrations" and task in TASKS and task not in MISLEADING:
        raise UserError(
            f"{task} has one kind of answer, so no demonstrations are wrong; condition "
            f"{condition} is for {', '.join(MISLEADING)}"
        )
    if task in OFFICIAL and OFFICIAL[task].text and condition != "intact":
        raise UserError(f"{task} asks about no images: condition {condition}")


def records(measured: Iterable[tuple[str, str]]) -> Tasks:
    """Records of tasks: of what each measures, and of all (task, metric) that were measured."""
    found = {task: dict.fromkeys(TASKS.get(task, ())) for task, _ in measured if task != AVERAGE}
    for task, metric in measured:
        if task in found and metric and "/" not in metric:
            found[task][metric] = None
    return {
        task: Task(metrics=tuple(_record(task, metric) for metric in metrics))
        for task, metrics in found.items()
    }


def _record(task: str, metric: str) -> Record:
    known = metric_called(metric) or Metric(None)
    by = next((one for one in (*ANSWERERS, "untrained_") if metric.startswith(one)), "")
    of = metric.removeprefix(by)
    if by and f"recall_{of}" in METRICS:
        of = f"recall_{of}"  # `chance_at_5`
    return Record(
        name=metric,
        goal=known.goal,
        unit=known.unit,
        worst=worst_value(task, metric),
        role="score" if not by else "control" if by == "untrained_" else "baseline",
        of=of if by else "",
        by=by.removesuffix("_"),
        beaten=by != "oracle_",
    )
