"""An n-gram model: what a language model must beat to have learnt more than to count.

Interpolated modified Kneser-Ney (Chen & Goodman, 1998; Kneser & Ney, 1995), the strongest of the
counting models; in numpy, so that a million tokens take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDERS = (2, 3, 4, 5)
HELD_BACK = 10  # one training text in so many chooses the order
UNUSUAL_COUNTS = np.array(
    [0.0, 0.5, 1.0, 1.5]
)  # discounts, as KenLM's fallback (Heafield et al., 2013)


@dataclass(frozen=True)
class Counts:
    """Contexts of one length and the n-grams that end them, as texts have them.

    Contexts are numbered from 0. One of length m is the pair (context of length m - 1, the symbol
    before it), and an n-gram is the pair (context, token); a pair is kept as one number.
    """

    context_keys: np.ndarray  # int64 [contexts], sorted
    shortened: np.ndarray  # int64 [contexts], the context without its first symbol
    at_start: np.ndarray  # bool [contexts], whether nothing can stand before it
    gram_keys: np.ndarray  # int64 [grams], sorted
    counts: np.ndarray  # int64 [grams]


def count(texts: Sequence[np.ndarray], order: int, vocabulary: int) -> list[Counts]:
    """Counts with contexts of 0 … order - 1 symbols. texts: int arrays of ids below `vocabulary`.

    Every text has a mark of its own before its first token, beyond which no context reaches.
    """
    symbols, since_start = _stream(texts, vocabulary)
    events = np.flatnonzero(since_start > 0)
    contexts = np.zeros(len(events), np.int64)  # of each event: all have the empty one
    keys = np.zeros(1, np.int64)
    shortened, before = keys, keys
    lengths = []
    for length in range(order):
        if length:
            longer = since_start[events] >= length
            events, contexts = events[longer], contexts[longer]
            pairs = _pair(contexts, symbols[events - length], vocabulary)
            keys, contexts = np.unique(pairs, return_inverse=True)
            shortened, before = np.divmod(keys, vocabulary + 1)
        grams, found = np.unique(_pair(contexts, symbols[events], vocabulary), return_counts=True)
        lengths.append(Counts(keys, shortened, before == vocabulary, grams, found))
    return lengths


@dataclass(frozen=True)
class Level:
    """What contexts of one length say."""

    context_keys: np.ndarray  # int64 [contexts], as in `Counts`
    gram_keys: np.ndarray  # int64 [grams], as in `Counts`
    kept: np.ndarray  # float64 [grams], the share of its context that an n-gram keeps
    left_over: np.ndarray  # float64 [contexts], the share that shorter contexts give out


class KneserNey:
    """Probabilities of the next token, given up to `order` - 1 symbols before it in its text.

    Every token id below `vocabulary` has a probability, seen or not.
    """

    def __init__(self, counts: Sequence[Counts], order: int, vocabulary: int):
        """`counts` of at least this order."""
        self.order, self.vocabulary = order, vocabulary
        self.levels = [
            _level(counts[length], counts[length + 1] if length + 1 < order else None, vocabulary)
            for length in range(order)
        ]

    def nats(self, texts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Negative log-probability of each token of each text: float64 [its tokens]."""
        symbols, since_start = _stream(texts, self.vocabulary)
        events = np.flatnonzero(since_start > 0)
        tokens = symbols[events]
        probability = np.full(len(events), 1 / self.vocabulary)
        contexts = np.zeros(len(events), np.int64)  # -1: not known
        for length, level in enumerate(self.levels):
            if length:
                known = (contexts >= 0) & (since_start[events] >= length)
                before = symbols[np.maximum(events - length, 0)]
                longer = _find(level.context_keys, _pair(contexts, before, self.vocabulary))
                contexts = np.where(known, longer, -1)
            seen = contexts >= 0
            own = contexts[seen]
            gram = _find(level.gram_keys, _pair(own, tokens[seen], self.vocabulary))
            kept = np.where(gram >= 0, level.kept[gram], 0.0)
            probability[seen] = kept + level.left_over[own] * probability[seen]
        ends = np.cumsum([len(text) for text in texts])
        return np.split(-np.log(probability), ends[:-1])


def _level(own: Counts, longer: Counts | None, vocabulary: int) -> Level:
    """The longest contexts count how often an n-gram occurs, others after how many symbols it does.

    What stands at the start of a text follows nothing, and counts as often as it occurs.
    """
    context, counts = own.gram_keys // (vocabulary + 1), own.counts
    if longer is not None:
        longer_context, token = np.divmod(longer.gram_keys, vocabulary + 1)
        suffix = _pair(longer.shortened[longer_context], token, vocabulary)
        places = np.searchsorted(own.gram_keys, suffix)
        follows = np.bincount(places, minlength=len(counts))
        counts = np.where(own.at_start[context], counts, follows)
    taken = discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(context, counts, len(own.context_keys))
    return Level(
        context_keys=own.context_keys,
        gram_keys=own.gram_keys,
        kept=(counts - taken) / totals[context],
        left_over=np.bincount(context, taken, len(own.context_keys)) / totals,
    )


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 0, 1, 2 and 3 or more: float64 [4] (Chen & Goodman, eq. 26).

    From n_c, how many n-grams have the count c. Where these make no sense, as of a few or of
    very frequent n-grams, `UNUSUAL_COUNTS`.
    """
    n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
    if not min(n1, n2, n3, n4):
        return UNUSUAL_COUNTS
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    possible = (found[1:] > 0) & (found[1:] <= (1, 2, 3))
    return found if possible.all() else UNUSUAL_COUNTS


def fit_ngrams(texts: Sequence[np.ndarray], vocabulary: int) -> KneserNey:
    """The model of all texts, of the order that serves best where a tenth of them is held back."""
    held = np.arange(len(texts)) % HELD_BACK == HELD_BACK - 1
    learnt = [text for text, asked in zip(texts, held, strict=True) if not asked]
    asked = [text for text, asked in zip(texts, held, strict=True) if asked]
    counts = count(learnt, max(ORDERS), vocabulary)

    def loss(order: int) -> float:
        return float(np.concatenate(KneserNey(counts, order, vocabulary).nats(asked)).sum())

    best = min(ORDERS, key=loss)
    return KneserNey(count(texts, best, vocabulary), best, vocabulary)


def _pair(contexts: np.ndarray, symbols: np.ndarray, vocabulary: int) -> np.ndarray:
    return contexts * (vocabulary + 1) + symbols


def _stream(texts: Sequence[np.ndarray], start: int) -> tuple[np.ndarray, np.ndarray]:
    """All texts in a row, each with the mark `start` before it, and places since that mark."""
    lengths = np.array([len(text) + 1 for text in texts])
    ends = np.cumsum(lengths)
    symbols = np.full(int(ends[-1]), start, np.int64)
    since_start = np.arange(len(symbols)) - np.repeat(ends - lengths, lengths)
    symbols[since_start > 0] = np.concatenate(texts)
    return symbols, since_start


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted number stands among sorted keys, -1 where it does not."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
