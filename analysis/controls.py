"""What a score is compared with: the same model asked otherwise, and answerers without it."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.contrasts import ScoreKey
from ablations.workload import INTACT
from analysis.score_table import ScoreTable

# What is done to the questions → what that control is called, if not by the same word.
CONDITIONS = {
    "shuffled": "shuffled images",
    "no_image": "no image",
    "wrong_demonstrations": "wrong demonstrations",
}
BEATEN = ("shuffled", "no_image")  # by a model that has learnt something


@dataclass(frozen=True)
class Control:
    """A score that another one is compared with."""

    key: ScoreKey
    name: str  # "shuffled images", "blind", "chance", "oracle", …
    beaten: bool  # by a model that has learnt something
    is_own: bool  # of the arm's own model, so that other arms have another


def controls(table: ScoreTable, key: ScoreKey) -> list[Control]:
    """The controls of a score that were measured: conditions, then answerers, an oracle last."""
    measured = [one[3] for one in table.metrics if one[:3] == key[1:4] and one[3] != INTACT]
    asked = [*(one for one in CONDITIONS if one in measured), *measured]
    found = [
        Control(
            key._replace(condition=condition),
            CONDITIONS.get(condition, condition),
            condition in BEATEN,
            is_own=True,
        )
        for condition in dict.fromkeys(asked if key.condition == INTACT else ())
    ]
    task = table.tasks.get(key.task)
    answerers = [
        Control(key._replace(metric=one.name), one.by or one.name, one.beaten, is_own=False)
        for one in (task.metrics if task else ())
        if one.role != "score" and one.of == key.metric
    ]
    found += sorted(answerers, key=lambda one: not one.beaten)
    return [one for one in found if table.score(*one.key)]
