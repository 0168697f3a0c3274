"""Means over all items and over the items of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def group_means(
    metric: str, scores: Sequence[float], groups: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """`metric` → mean of scores, and `metric/group:value` → mean over the items of that value.

    `groups` is name → each item's value, "" for none.
    """
    values = np.asarray(scores, np.float64)
    means = {metric: float(values.mean())}
    for group, of_items in groups.items():
        members = np.asarray(of_items)
        for value in sorted(set(of_items) - {""}):
            means[f"{metric}/{group}:{value}"] = float(values[members == value].mean())
    return means
