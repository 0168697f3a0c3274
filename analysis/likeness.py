"""Which arms train the same, but for seeds and for numbers that hardly differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np

from ablations.plan import Plan

# Numbers of two configs that differ by less, relative to the larger, make the same arm: whoever
# changes an epsilon by a millionth asks the same question again.
TOLERANCE = 0.05
NOTHING = 1e-7  # numbers that differ by less are near whatever their ratio, such as 0 and 1e-12
_ABSENT = object()
_NUMBER = object()  # in the place of one, where only what stands beside numbers is compared

Leaves = Mapping[str, Any]  # path → plain value


class TrainedArms:
    """What each arm of a plan trains, and which of them train the same as some other."""

    def __init__(self, plan: Plan):
        self.leaves: dict[str, Leaves] = _leaves(plan)  # by arm
        grouped: dict[object, list[tuple[str, list[float]]]] = {}
        for name, leaves in self.leaves.items():
            words, numbers = _parts(leaves)
            grouped.setdefault(words, []).append((name, numbers))
        # What is not a number → the arms that have it, and their numbers: [arms, paths].
        self._groups = {
            words: ([name for name, _ in some], np.array([numbers for _, numbers in some]))
            for words, some in grouped.items()
        }

    def like(self, leaves: Leaves) -> set[str]:
        """The arms that match what another trains: all is near."""
        words, numbers = _parts(leaves)
        names, rows = self._groups.get(words, ([], np.empty((0, len(numbers)))))
        one = np.array(numbers)
        most = np.maximum(TOLERANCE * np.maximum(np.abs(rows), np.abs(one)), NOTHING)
        return {names[index] for index in np.flatnonzero((np.abs(rows - one) <= most).all(axis=1))}


def same_leaf(path: str, one: Leaves, other: Leaves) -> bool:
    """Whether two configs are near at a path, as where neither has it."""
    return near(one.get(path, _ABSENT), other.get(path, _ABSENT))


def differing(one: Leaves, other: Leaves) -> list[str]:
    """Paths at which two configs are not near."""
    return [path for path in dict.fromkeys([*one, *other]) if not same_leaf(path, one, other)]


def near(one: Any, other: Any) -> bool:
    """Whether two values are the same, or numbers within `TOLERANCE` of the larger."""
    if not (_is_number(one) and _is_number(other)):
        return one == other
    return abs(one - other) <= max(TOLERANCE * max(abs(one), abs(other)), NOTHING)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parts(leaves: Leaves) -> tuple[tuple[tuple[str, Any], ...], list[float]]:
    """Everything but the numbers, and these, in order of their paths."""
    items = sorted(leaves.items())
    words = tuple((path, _NUMBER if _is_number(value) else value) for path, value in items)
    return words, [float(value) for _, value in items if _is_number(value)]


def _leaves(plan: Plan) -> dict[str, Leaves]:
    """Arm → everything that decides what is trained, but for data and code.

    Weights from folders by what the folders held.
    """
    left_out: Iterable[str] = {*plan.free, *plan.untrained}

    @cache
    def counts(path: str) -> bool:
        return not any(fnmatchcase(path, one) for one in left_out)

    def visit(value: Any, path: str, found: dict[str, Any]) -> None:
        if not counts(path):
            return
        if isinstance(value, Mapping):
            for key, part in value.items():
                visit(part, f"{path}.{key}" if path else str(key), found)
        elif isinstance(value, list | tuple):
            for index, part in enumerate(value):
                visit(part, f"{path}.{index}" if path else str(index), found)
        else:
            found[path] = value

    first = {trial.arm: trial for trial in reversed(plan.trials)}
    leaves: dict[str, Leaves] = {}
    for arm in plan.arms:
        leaves[arm.name] = found = {
            f"pinned {role}": stage
            for role, stage in first[arm.name].stages.items()
            if plan.stages[stage].work.pinned
        }
        visit(arm.config, "", found)
    return leaves
