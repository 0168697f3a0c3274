"""What the tasks measure, and what a diverged trial scores.

A model whose loss is no longer a number answers nothing: where a metric has a worst value, the
trial has it and stays in the comparison. Where none exists, claims on the metric are undecided.
"""

from __future__ import annotations

import re

from mm1_jax.errors import UserError, nearest
from mm1_jax.stage import MOST_SHOTS
from mm1_jax.tasks.official_names import OFFICIAL

# task → metric → value of a diverged trial; None where the metric has no worst value.
WORST: dict[str, dict[str, float | None]] = {
    "easy_vqa": {"accuracy": 0.0, "blind_accuracy": None, "oracle_accuracy": None},
    "emoji_caption": {"cider": 0.0, "blind_cider": None},
    "emoji_questions": {"accuracy": 0.0, "blind_accuracy": None},
    "emoji_languages": {"accuracy": 0.0, "kind_accuracy": 0.0, "blind_accuracy": None},
    "emoji_attributes": {"accuracy": 0.0, "kind_accuracy": 0.0, "blind_accuracy": None},
    "fast_binding": {"accuracy": 0.0, "kind_accuracy": 0.0, "chance_accuracy": None},
    "emoji_glossary": {"accuracy": 0.0, "colour_accuracy": 0.0, "chance_accuracy": None},
    "held_out_text": {"perplexity": None, "bits_per_byte": None},
    "pretrained_text": {
        "perplexity": None,
        "bits_per_byte": None,
        "ngram_perplexity": None,
        "ngram_bits_per_byte": None,
    },
    "emoji_retrieval": {
        "recall_at_1": 0.0,
        "recall_at_5": 0.0,
        "chance_at_1": None,
        "chance_at_5": None,
    },
    "emoji_probe": {"accuracy": 0.0, "untrained_accuracy": None, "majority_accuracy": None},
} | {
    name: task.metrics | ({} if task.text else {f"blind_{m}": None for m in task.metrics})
    for name, task in OFFICIAL.items()
}
# Tasks whose evaluation also scores the best answerer that never sees the image.
BLIND = "blind_"  # before the name of the task's first metric
# Tasks without questions: they take no demonstrations, and shuffling images means nothing.
ONE_FORM = ("held_out_text", "pretrained_text", "emoji_retrieval", "emoji_probe")
# Tasks whose demonstrations can show something else than what is asked.
MISLEADING = ("emoji_languages", "emoji_attributes", "fast_binding", "emoji_glossary")


# The mean of several tasks' first metrics (MM1 §5.1), a metric for each number of demonstrations:
# `average.8_shot`. Its tasks are the recipe's `evaluation.average`.
AVERAGE = "average"


def average_metric(shots: int) -> str:
    """`8_shot`."""
    return f"{shots}_shot"


def average_shots(metric: str) -> int:
    """How many demonstrations a metric of `average` means. `UserError` if it is none."""
    found = re.fullmatch(r"([0-9]{1,4})_shot", metric)
    if found is None:
        raise UserError(f"{AVERAGE} has no metric {metric!r}; it is called 0_shot, 4_shot, 8_shot")
    return int(found[1])


def first_metric(task: str) -> str:
    """What a task is known by."""
    return next(iter(WORST[task]))


def worst_value(task: str, metric: str) -> float | None:
    """Value of a diverged trial; None if the metric has no worst value or is not ours."""
    return WORST.get(task, {}).get(metric)


def check_metric(task: str, metric: str) -> None:
    """Raise `UserError` if there is no such task or metric."""
    if task == AVERAGE:
        average_shots(metric)
        return
    if task not in WORST:
        raise UserError(f"no task {task!r}{nearest(task, WORST)}")
    if metric not in WORST[task]:
        raise UserError(f"task {task} has no metric {metric!r}{nearest(metric, WORST[task])}")


def check_form(task: str, shots: int, condition: str) -> None:
    """Raise `UserError` for a form of a task that the task cannot have."""
    if shots > MOST_SHOTS:
        raise UserError(f"{shots:,} shots of {task}: at most {MOST_SHOTS:,}")
    if task in ONE_FORM and (shots or condition != "intact"):
        raise UserError(f"{task} asks no questions: no images to shuffle, no demonstrations")
    if condition == "wrong_demonstrations" and task in WORST and task not in MISLEADING:
        raise UserError(
            f"{task} has one kind of answer, so no demonstrations are wrong; condition "
            f"{condition} is for {', '.join(MISLEADING)}"
        )
    if task in OFFICIAL and OFFICIAL[task].text and condition != "intact":
        raise UserError(f"{task} asks about no images: condition {condition}")
