"""A linear probe: the category of held-out drawings, read from frozen features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

NAME = "emoji_probe"
PENALTIES = tuple(10.0**power for power in range(-5, 2))  # of the ridge, per training drawing


def most_frequent(labels: Sequence[str]) -> str:
    """The answer of who never looks: the most frequent training label."""
    return Counter(labels).most_common(1)[0][0]


def ridge_probe(
    features: np.ndarray, labels: Sequence[str], asked: np.ndarray
) -> tuple[list[str], float]:
    """Ridge regression onto one column per label: the highest column's label for each asked row.

    features float [N, width] with N labels, asked float [M, width]. Features are standardised by
    the training rows. The penalty is the one of `PENALTIES` (times N) with the smallest
    leave-one-out error on the training rows, which has a closed form; it is returned too.
    """
    classes = sorted(set(labels))
    targets = np.array([[label == name for name in classes] for label in labels], np.float64)
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    rows = (features.astype(np.float64) - mean) / deviation
    centre = targets.mean(0)
    left, singular, right = np.linalg.svd(rows, full_matrices=False)
    projected = left.T @ (targets - centre)
    count = len(rows)

    def leave_one_out(penalty: float) -> float:
        kept = singular**2 / (singular**2 + penalty * count)
        residual = targets - centre - left @ (kept[:, None] * projected)
        leverage = (left**2 @ kept) + 1 / count
        return float(((residual / (1 - leverage)[:, None]) ** 2).mean())

    best = min(PENALTIES, key=leave_one_out)
    weights = right.T @ ((singular / (singular**2 + best * count))[:, None] * projected)
    scores = (asked.astype(np.float64) - mean) / deviation @ weights + centre
    return [classes[column] for column in scores.argmax(1)], best
