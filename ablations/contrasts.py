"""What is compared: a weighted sum of cells of the score table, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class ScoreKey(NamedTuple):
    """One cell of the score table, but for the seed."""

    arm: str
    task: str
    metric: str
    shots: int
    condition: str


Scores = Mapping[ScoreKey, Mapping[int, float]]  # key → seed → value


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
        kept = {key: weight for key, weight in total.items() if abs(weight) > 1e-12}
        return Contrast(kept, self.constant + sign * other.constant)

    def minus(self, other: Contrast) -> Contrast:
        """This minus another."""
        return self.plus(other, -1.0)

    def times(self, factor: float) -> Contrast:
        """This, so many times."""
        return Contrast({}).plus(self, factor)
