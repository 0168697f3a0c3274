"""The mean of several tasks' first metrics (MM1 §5.1), a metric for each number of demonstrations.

`average.8_shot` is the mean of what its tasks are known by, asked with 8 demonstrations each. Which
tasks these are is said in the base config. This is the one place that knows what the mean is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ablations.contrasts import Contrast, ScoreKey
from ablations.errors import UserError
from ablations.stage import ResultRow
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


def average_rows(rows: Sequence[ResultRow], first: Mapping[str, str]) -> list[ResultRow]:
    """The mean over some tasks of one model, a row for each form that all of them were asked in.

    `first` is task → the metric it is known by.
    """
    found = {ScoreKey("", r.task, r.metric, r.shots, r.condition): r for r in rows}
    forms = dict.fromkeys((row.shots, row.condition) for row in rows) if first else {}
    result = []
    for shots, condition in forms:
        mean = average("", shots, condition, first)
        if not mean.weights.keys() <= found.keys():
            continue
        parts = {key: found[key] for key in mean.weights}
        errors = {key: e for key, part in parts.items() if (e := part.standard_error) is not None}
        result.append(
            ResultRow(
                task=AVERAGE,
                metric=average_metric(shots),
                value=mean.value({key: part.value for key, part in parts.items()}),
                split="test",
                shots=shots,
                condition=condition,
                step=next(iter(parts.values())).step,
                n_items=sum(part.n_items for part in parts.values()),
                standard_error=mean.error(errors) if errors.keys() == parts.keys() else None,
            )
        )
    return result


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
