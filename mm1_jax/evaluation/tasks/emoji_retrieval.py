"""Zero-shot retrieval: which of N captions of held-out drawings belongs to this image?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mm1_jax.data.sources.drawing_captions import read_drawings
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.tasks import prompts
from mm1_jax.evaluation.tasks.generation_task import Item

NAME = "emoji_retrieval"


def items(prepared: PreparedData, size: int | None, seed: int) -> list[Item]:
    """Held-out drawings, each with its longest wording: name, kind and category in one sentence.

    UserError if there are not `size` of them.
    """
    found = [
        Item(drawing.name, drawing.image, "", (drawing.captions[-1],))
        for drawing in read_drawings(prepared, "test")
    ]
    return prompts.subset(found, size, seed, NAME)


@dataclass(frozen=True)
class Retrieval:
    """Ranks and metrics in per cent."""

    ranks: np.ndarray  # int64 [N], 0 is best
    best: np.ndarray  # int64 [N], the caption that scores highest
    metrics: dict[str, float]


def score(scores: np.ndarray, at: Sequence[int] = (1, 5)) -> Retrieval:
    """scores float [N, N] of image i with caption j; caption i is the right one.

    Of equal scores the right caption comes last. Chance at k is k / N.
    """
    own = np.diagonal(scores)[:, None]
    ranks = (scores >= own).sum(axis=1) - 1
    found = {f"recall_at_{k}": 100 * float((ranks < k).mean()) for k in at}
    chance = {f"chance_at_{k}": 100 * min(1.0, k / len(scores)) for k in at}
    return Retrieval(ranks, scores.argmax(axis=1), {**found, **chance})
