"""How far a mean over items would move with other items of the same kind."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Standard error of the mean of `values`; those of one cluster may depend on each other.

    Questions on one image are a cluster. With clusters of one it is SD / √n. None below two
    clusters. It says nothing of other seeds: for these predictions only.
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    if len(numbers) < 2:
        return None
    deviations = np.asarray(values, np.float64) - np.mean(values)
    sums = np.zeros(len(numbers))
    np.add.at(sums, [numbers[cluster] for cluster in clusters], deviations)
    spread = np.sum(sums**2) * len(numbers) / (len(numbers) - 1)
    return float(np.sqrt(spread) / len(deviations))
