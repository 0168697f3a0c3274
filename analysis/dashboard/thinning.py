"""As many points of a line as a screen shows, none of its peaks lost; and smoothing."""

from __future__ import annotations

import itertools

import numpy as np

MOST_POINTS = 1_200  # of a line; a wide screen has about as many pixels


def thinned(
    x: np.ndarray, y: np.ndarray, span: tuple[float, float] | None = None, most: int = MOST_POINTS
) -> np.ndarray:
    """Numbers of the points that are drawn: of each stretch its lowest and its highest.

    Of what lies in `span` only, with a neighbour on either side. Points that are not finite stay
    where their stretch has no others, so that a gap is seen.
    """
    inside = np.arange(len(x))
    if span is not None and len(x):
        first = max(0, int(np.searchsorted(x, span[0], "left")) - 1)
        last = min(len(x), int(np.searchsorted(x, span[1], "right")) + 1)
        inside = np.arange(first, last)
    if len(inside) <= most:
        return inside
    stretches = most // 2
    edges = np.linspace(0, len(inside), stretches + 1).astype(int)
    values = y[inside]
    low = np.where(np.isfinite(values), values, np.inf)
    high = np.where(np.isfinite(values), values, -np.inf)
    kept = {0, len(inside) - 1}
    for start, end in itertools.pairwise(edges):
        kept.add(start + int(low[start:end].argmin()))
        kept.add(start + int(high[start:end].argmax()))
    return inside[sorted(kept)]


def smoothed(y: np.ndarray, factor: float) -> np.ndarray:
    """An exponential moving average, without the pull of its beginning; gaps stay gaps."""
    if not factor or not len(y):
        return y
    out = np.empty(len(y))
    total = weight = 0.0
    for place, value in enumerate(y):
        if np.isfinite(value):
            total = factor * total + (1 - factor) * value
            weight = factor * weight + (1 - factor)
            out[place] = total / weight
        else:
            out[place] = value
    return out
