"""Which shards of a source are read together, and the draws that shuffle what is in them.

An epoch goes through the source window by window: a window is a number of shards, a million
documents or so. Which shards are together follows from (seed, source, epoch). A source of one
window is shuffled as a whole. Windows are counted through all epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mm1_jax.data.draws import generator

WINDOW_DOCUMENTS = 1_000_000


class Windows:
    """The windows of one source; `sizes` has how many items each of its shards holds."""

    def __init__(self, name: str, sizes: Sequence[int], seed: int):
        self._name, self._seed = name, seed
        self._shards = shards = len(sizes)
        self._together = max(1, min(shards, WINDOW_DOCUMENTS * shards // max(1, sum(sizes))))
        self.per_epoch = -(-shards // self._together)

    def shards(self, number: int) -> list[int]:
        """Which shards a window has."""
        epoch, inside = divmod(number, self.per_epoch)
        first = inside * self._together
        shards = range(self._shards)
        if self.per_epoch > 1:
            shards = _shuffled(self._shards, self._name, self._seed, epoch)
        return list(shards[first : first + self._together])

    def draws(self, what: str, number: int) -> np.random.Generator:
        """The generator that shuffles what is in a window."""
        epoch, inside = divmod(number, self.per_epoch)
        of_window = (inside,) if self.per_epoch > 1 else ()
        return generator(self._seed, what, self._name, epoch, *of_window)


@lru_cache(maxsize=16)
def _shuffled(shards: int, name: str, seed: int, epoch: int) -> tuple[int, ...]:
    order = generator(seed, "order of shards", name, epoch).permutation(shards)
    return tuple(order.tolist())
