"""What is compared: a weighted sum of scores of one seed, and the weights that a design gives.

Verdicts and effects alike are contrasts over the cells of a design. A main effect is the mean over
all cells of the other factors in which both levels were run (in a one-at-a-time design that is the
base), a simple effect the same with other factors fixed, a slope the least-squares line through the
means of all levels:

         b=1    b=2         effect(a, 1 -> 2)               ½ a=2 + ½ a=2,b=2 − ½ base − ½ b=2
    a=1  base   b=2         effect(a, 1 -> 2, at: {b: 2})   a=2,b=2 − b=2
    a=2  a=2    a=2,b=2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ablations.errors import UserError


class Place(NamedTuple):
    """Where a model was asked: whatever is measured there comes from the same answers."""

    arm: str
    task: str
    shots: int
    condition: str
    seed: int


class ScoreKey(NamedTuple):
    """One cell of the score table, but for the seed."""

    arm: str
    task: str
    metric: str
    shots: int
    condition: str

    def at(self, seed: int) -> Place:
        """Where its value of a seed was measured."""
        return Place(self.arm, self.task, self.shots, self.condition, seed)


Scores = Mapping[ScoreKey, Mapping[int, float]]  # key → seed → value


def by_seed(scores: Scores, keys: Iterable[ScoreKey]) -> dict[int, dict[ScoreKey, float]]:
    """Seed → value of each of some cells, for the seeds that have all of them."""
    columns = {key: scores.get(key, {}) for key in keys}
    first = next(iter(columns.values()), {})
    return {
        seed: {key: column[seed] for key, column in columns.items()}
        for seed in first
        if all(seed in column for column in columns.values())
    }


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of scores of one seed, plus a constant."""

    weights: Mapping[ScoreKey, float]
    constant: float = 0.0

    def plus(self, other: Contrast, sign: float = 1.0) -> Contrast:
        """This plus `sign` times another."""
        total = dict(self.weights)
        for key, weight in other.weights.items():
            total[key] = total.get(key, 0.0) + sign * weight
        # What cancels leaves rounding, relative to what was added: slopes have tiny weights.
        sizes = [abs(weight) for weight in (*self.weights.values(), *other.weights.values())]
        least = 1e-12 * max(sizes, default=0.0) * min(1.0, abs(sign))
        kept = {key: weight for key, weight in total.items() if abs(weight) > least}
        return Contrast(kept, self.constant + sign * other.constant)

    def minus(self, other: Contrast) -> Contrast:
        """This minus another."""
        return self.plus(other, -1.0)

    def times(self, factor: float) -> Contrast:
        """This, so many times."""
        return Contrast({}).plus(self, factor)

    def value(self, scores: Mapping[ScoreKey, float]) -> float:
        """What it comes to with the scores of one seed."""
        return self.constant + math.fsum(w * scores[key] for key, w in self.weights.items())

    def error(self, errors: Mapping[ScoreKey, float]) -> float:
        """Its standard error where those of the scores are independent."""
        return math.hypot(*(w * errors[key] for key, w in self.weights.items()))

    @classmethod
    def over(cls, weights: Mapping[str, float], score: Callable[[str], Contrast]) -> Contrast:
        """The scores of some arms, weighted; `score` gives an arm's."""
        total = cls({})
        apart: dict[ScoreKey, float] = {}  # of arms that share no score, where nothing cancels
        constant = 0.0
        for arm, weight in weights.items():
            part = score(arm)
            if weight and apart.keys().isdisjoint(part.weights):
                apart |= {key: weight * own for key, own in part.weights.items()}
                constant += weight * part.constant
            else:
                total = total.plus(part, weight)
        return cls(apart, constant).plus(total)


# -- weights from a design -----------------------------------------------------------------------

Weights = Mapping[str, float]  # arm → weight of its score


@dataclass(frozen=True)
class Design:
    """Which cells were run: factors with their levels, and where among them each arm lies."""

    factors: Mapping[str, Sequence[str]]  # factor → level names, base level first
    arms: Mapping[str, Mapping[str, str]]  # arm → factor → level; without null arms


def matched(
    design: Design, factor: str, levels: Sequence[str], at: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Sets of arms that differ in a factor alone, level → arm, each with all of `levels`.

    `at` fixes levels of other factors.
    """
    fixed = (at or {}).items()
    cells: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for arm, where in design.arms.items():
        if where[factor] in levels and all(where[f] == level for f, level in fixed):
            others = tuple((f, level) for f, level in where.items() if f != factor)
            cells.setdefault(others, {})[where[factor]] = arm
    return [cell for cell in cells.values() if len(cell) == len(set(levels))]


def level_means(
    design: Design, factor: str, levels: Sequence[str], at: Mapping[str, str] | None = None
) -> dict[str, Weights]:
    """Level → the mean over its matched arms. `UserError` where no arms match."""
    found = matched(design, factor, levels, at)
    if not found:
        place = "".join(f", {f}={level}" for f, level in (at or {}).items())
        raise UserError(
            f"no arms of this design differ only in {factor} ({', '.join(levels)}){place}"
        )
    return {level: {cell[level]: 1 / len(found) for cell in found} for level in levels}


def effect(
    design: Design, factor: str, start: str, end: str, at: Mapping[str, str] | None = None
) -> Weights:
    """The mean at level `end` minus the mean at level `start`; nothing if they are the same."""
    means = level_means(design, factor, (start, end), at)
    return combined({end: 1.0, start: -1.0} if start != end else {}, means)


def slope(design: Design, factor: str, places: Mapping[str, float]) -> Weights:
    """Σ (x - x̄) y / Σ (x - x̄)² over the means y of all levels; `places` is level → x."""
    center = sum(places.values()) / len(places)
    spread = sum((x - center) ** 2 for x in places.values())
    slopes = {level: (x - center) / spread for level, x in places.items()}
    return combined(slopes, level_means(design, factor, tuple(places)))


def combined(levels: Mapping[str, float], means: Mapping[str, Weights]) -> Weights:
    """A weighted sum of the means of levels."""
    return {
        arm: by * weight for level, by in levels.items() for arm, weight in means[level].items()
    }
