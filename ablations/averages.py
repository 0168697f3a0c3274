"""The mean of several tasks' first metrics (MM1 §5.1), a metric for each number of demonstrations.

`average.8_shot` is the mean of what its tasks are known by, asked with 8 demonstrations each. Which
tasks these are is said in the base config. This is the one place that knows what the mean is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ablations.contrasts import Contrast, ScoreKey
from ablations.errors import UserError
from ablations.workload import Metric, Task, Tasks, record_of

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


def average(arm: str, shots: int, condition: str, first: Mapping[str, str]) -> Contrast:
    """The mean over some tasks asked in one form; `first` is task → the metric it is known by."""
    parts = [ScoreKey(arm, task, metric, shots, condition) for task, metric in first.items()]
    return Contrast(dict.fromkeys(parts, 1 / len(parts)))


def known_metric(tasks: Tasks, averaged: Sequence[str], task: str, metric: str) -> Metric:
    """What is known of a metric, of `average` too; of one that nobody described, its name."""
    if task == AVERAGE:
        return average_record(metric, [tasks[name] for name in averaged])
    return record_of(tasks, task, metric)


def average_record(metric: str, tasks: Sequence[Task]) -> Metric:
    """What is known of a metric of `average`: what all its tasks have in common."""
    goals = {task.first.goal for task in tasks}
    units = {task.first.unit for task in tasks}
    return Metric(
        name=metric,
        goal=goals.pop() if len(goals) == 1 else None,
        unit=units.pop() if len(units) == 1 else "",
    )
