"""Scores of captions against references."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_LONGEST_NGRAM = 4
_SIGMA = 6.0


def words(text: str) -> list[str]:
    """Lower-case words; punctuation is dropped, `t-shirt` and `isn't` are one word each.

    Java-free, so scores differ from those with PTBTokenizer where a text has contractions.
    """
    return _WORD.findall(text.lower())


Ngram = tuple[str, ...]


def _ngrams(text: str) -> list[Counter[Ngram]]:
    """Counts of n-grams, one Counter per n = 1…4."""
    tokens = words(text)
    return [
        Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
        for n in range(1, _LONGEST_NGRAM + 1)
    ]


def cider_d(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    corpus: Sequence[Sequence[str]] | None = None,
) -> np.ndarray:
    """CIDEr-D of each image, 0 to 10 (Vedantam et al., 2015; coco-caption's `cider_scorer.py`).

    `candidates[i]` is scored against `references[i]`. Document frequencies and the number of images
    come from `corpus`, the references of the whole split (`references` if None): scores of a
    subset are then those of the whole. Papers quote the mean × 100.
    """
    corpus = references if corpus is None else corpus
    frequency: Counter[Ngram] = Counter()
    for texts in corpus:
        frequency.update({gram for text in texts for counts in _ngrams(text) for gram in counts})
    log_images = math.log(len(corpus)) if corpus else 0.0

    def vectors(text: str) -> tuple[list[dict[Ngram, float]], int]:
        counted = _ngrams(text)
        weighted = [
            {g: n * (log_images - math.log(max(1, frequency[g]))) for g, n in counts.items()}
            for counts in counted
        ]
        return weighted, counted[1].total()  # length is counted in bigrams, as in the original

    def similarity(candidate: str, reference: str) -> float:
        ours, our_length = vectors(candidate)
        theirs, their_length = vectors(reference)
        penalty = math.exp(-((our_length - their_length) ** 2) / (2 * _SIGMA**2))
        total = 0.0
        for h, r in zip(ours, theirs, strict=True):
            norms = math.hypot(*h.values()) * math.hypot(*r.values())
            if norms:
                total += sum(min(w, r.get(g, 0.0)) * r.get(g, 0.0) for g, w in h.items()) / norms
        return 10 * penalty * total / _LONGEST_NGRAM

    scores = [
        sum(similarity(candidate, text) for text in texts) / len(texts)
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    return np.array(scores)
