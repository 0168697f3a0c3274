"""Which source a packed sequence comes from, by its number alone.

The order is a fixed pattern: after n sequences each source has had its share of n, up to rounding.
Where weights change with the step, or because a source is used up, a new pattern begins, and each
source goes on where it was. So sequence n is known without the sequences before it, on any host.
"""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from mm1_jax.config.data import DataConfig, KindsConfig

_ONE = 10**12  # shares are rounded to 12 digits


@dataclass(frozen=True)
class Stretch:
    """Sequences with the same weights: from number `first` on."""

    first: int
    weights: tuple[int, ...]  # of each source, relative
    before: tuple[int, ...]  # sequences that each source has given before `first`

    def counts(self, number: int) -> tuple[int, ...]:
        """How many of the first `number` sequences each source gives."""
        left, remaining = number - self.first, sum(self.weights)
        counts = []
        for weight, before in zip(self.weights, self.before, strict=True):
            # What is left to the sources after this one, rounded down.
            after = left * (remaining - weight) // remaining if weight else left
            counts.append(before + left - after)
            left, remaining = after, remaining - weight
        return tuple(counts)


@dataclass(frozen=True)
class Mixture:
    """The order of `sources` over all sequences; `length` of them, where one may be used up."""

    sources: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    length: int = sys.maxsize

    def counts(self, number: int) -> dict[str, int]:
        """How many of the first `number` sequences each source gives."""
        return dict(zip(self.sources, self._at(number).counts(number), strict=True))

    def place(self, number: int) -> tuple[str, int]:
        """Source of a sequence, and the number that it has within the source."""
        stretch = self._at(number)
        before, after = stretch.counts(number), stretch.counts(number + 1)
        for source, here, there in zip(self.sources, before, after, strict=True):
            if there > here:
                return source, here
        raise AssertionError("every sequence has a source")

    def _at(self, number: int) -> Stretch:
        after = bisect.bisect_right(self.stretches, number, key=lambda stretch: stretch.first)
        return self.stretches[after - 1]


def mixture_of(
    data: DataConfig,
    batch_size: int,
    sizes: Mapping[str, int],
    tokens_per_sequence: Mapping[str, float],
    epochs: Mapping[str, int],
) -> Mixture:
    """The order that a config asks for.

    `sizes` are the text tokens of each source, read where sources count by size;
    `tokens_per_sequence` the mean text tokens of each one's sequences, read where weights are
    shares of tokens; `epochs` the sequences of the first epoch of each source that may be used up.
    """
    sources = tuple(sizes)
    weights, kinds = data.mixture.weights, data.kinds
    changes = list(data.mixture_changes)
    stretches: list[Stretch] = []
    gone: set[str] = set()
    first, before = 0, (0,) * len(sources)
    while True:
        shares = _shares(data, weights, kinds, gone, sizes, tokens_per_sequence)
        if not shares:  # all are used up
            return Mixture(sources, tuple(stretches), first)
        rounded = tuple(round(shares.get(source, 0.0) * _ONE) for source in sources)
        stretch = Stretch(first, rounded, before)
        stretches.append(stretch)
        end = (changes[0].from_step - 1) * batch_size if changes else sys.maxsize
        used_up = {
            source: _first_with(stretch, sources.index(source), limit, end)
            for source, limit in epochs.items()
            if shares.get(source)
        }
        soonest = min(used_up, key=lambda source: used_up[source], default=None)
        if soonest is not None and used_up[soonest] < end:
            first = used_up[soonest]
            if data.exhausted[soonest] == "stop":
                return Mixture(sources, tuple(stretches), first)
            gone.add(soonest)
        elif changes:
            change = changes.pop(0)
            weights = change.mixture.weights if change.mixture else weights
            kinds = change.kinds or kinds
            first = end
        else:
            return Mixture(sources, tuple(stretches))
        before = stretch.counts(first)


def _shares(
    data: DataConfig,
    weights: Mapping[str, float],
    kinds: KindsConfig | None,
    gone: set[str],
    sizes: Mapping[str, int],
    tokens_per_sequence: Mapping[str, float],
) -> dict[str, float]:
    """Source → share of the sequences; empty if no source is left."""
    shares = {source: weight for source, weight in weights.items() if source not in gone}
    if kinds is not None:
        within = {s: float(sizes[s]) for s in shares} if data.within_kinds != "weights" else shares
        of_kind = {
            kind: math.fsum(w for s, w in within.items() if data.kind_of[s] == kind)
            for kind in kinds.weights
        }
        shares = {
            s: kinds.weights[data.kind_of[s]] * w / of_kind[data.kind_of[s]]
            for s, w in within.items()
            if data.kind_of[s] in of_kind
        }
    if data.mixture_unit == "text_tokens":
        shares = {s: share / tokens_per_sequence[s] for s, share in shares.items()}
    total = math.fsum(shares.values())
    return {source: share / total for source, share in shares.items() if share > 0}


def _first_with(stretch: Stretch, source: int, limit: int, end: int) -> int:
    """The smallest number whose first sequences hold `limit` of a source; `end` if that is less."""
    low, high = stretch.first, end
    while low < high:
        middle = (low + high) // 2
        if stretch.counts(middle)[source] >= limit:
            high = middle
        else:
            low = middle + 1
    return low
