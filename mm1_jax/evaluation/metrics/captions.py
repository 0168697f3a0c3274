"""Scores of captions against references, as coco-caption computes them (pycocoevalcap).

Captions are text as people and models write them; their tokens are those of `ptb_tokenizer`. Scores
are as in the original: BLEU and ROUGE-L from 0 to 1, CIDEr-D from 0 to 10. Tasks and papers quote
them × 100.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mm1_jax.evaluation.metrics.ptb_tokenizer import tokenize

_LONGEST_NGRAM = 4
_SIGMA = 6.0  # of CIDEr-D's length penalty, in tokens
_BETA = 1.2  # of ROUGE-L's F: recall weighs more
# What the original adds to counts so that nothing is divided by zero; they show in tiny scores.
_TINY, _SMALL = 1e-15, 1e-9

Ngram = tuple[str, ...]


def _tokenized(captions: Sequence[Sequence[str]]) -> list[list[str]]:
    """Tokens, joined by spaces, of every image's captions."""
    tokens = iter(tokenize(tuple(text for texts in captions for text in texts)))
    return [[next(tokens) for _ in texts] for texts in captions]


def _ngrams(tokens: str) -> list[Counter[Ngram]]:
    """Counts of n-grams, one Counter per n = 1…4."""
    words = tokens.split()
    return [
        Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
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
    frequency: Counter[Ngram] = Counter()
    corpus = references if corpus is None else corpus
    for texts in _tokenized(corpus):
        frequency.update({gram for text in texts for counts in _ngrams(text) for gram in counts})
    log_images = math.log(len(corpus)) if corpus else 0.0

    def vectors(tokens: str) -> _Vectors:
        counted = _ngrams(tokens)
        weighted = [
            {g: n * (log_images - math.log(max(1, frequency[g]))) for g, n in counts.items()}
            for counts in counted
        ]
        norms = [math.hypot(*weights.values()) for weights in weighted]
        return _Vectors(weighted, norms, counted[1].total())

    scores = []
    for candidate, texts in zip(tokenize(tuple(candidates)), _tokenized(references), strict=True):
        ours = vectors(candidate)
        similarities = [_similarity(ours, vectors(text)) for text in texts]
        scores.append(10 * sum(similarities) / len(similarities))
    return np.array(scores)


class _Vectors(NamedTuple):
    """A caption to CIDEr-D: weights and norm per n, and its length in bigrams, as they count it."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    length: int


def _similarity(ours: _Vectors, theirs: _Vectors) -> float:
    """Mean over n of the clipped cosine, less the more the lengths differ."""
    total = 0.0
    for h, r, our_norm, their_norm in zip(
        ours.weights, theirs.weights, ours.norms, theirs.norms, strict=True
    ):
        shared = sum(min(weight, r[g]) * r[g] for g, weight in h.items() if g in r)
        if shared:
            total += shared / (our_norm * their_norm)
    penalty = math.exp(-((ours.length - theirs.length) ** 2) / (2 * _SIGMA**2))
    return penalty * total / _LONGEST_NGRAM


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """BLEU-1 … BLEU-4 of all images together, 0 to 1 (Papineni et al., 2002).

    Counts are summed over images before anything is divided, so there is no score of an image. A
    candidate is compared in length with the reference closest to it, the shorter of two equally
    close ones.
    """
    right = np.zeros(_LONGEST_NGRAM)
    proposed = np.zeros(_LONGEST_NGRAM)
    length = reference_length = 0
    for candidate, texts in zip(tokenize(tuple(candidates)), _tokenized(references), strict=True):
        counted = [_ngrams(text) for text in texts]
        lengths = [counts[0].total() for counts in counted]
        for n, grams in enumerate(_ngrams(candidate)):
            most: Counter[Ngram] = Counter()
            for counts in counted:
                most |= counts[n]
            right[n] += (grams & most).total()
            proposed[n] += grams.total()
        own = len(candidate.split())
        length += own
        reference_length += min(lengths, key=lambda other: (abs(other - own), other))
    precisions = np.cumprod((right + _TINY) / (proposed + _SMALL))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return penalty * precisions ** (1 / np.arange(1, _LONGEST_NGRAM + 1))


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """ROUGE-L of each image, 0 to 1 (Lin, 2004; coco-caption's `rouge.py`).

    F of the best precision and the best recall that any of the references gives, not of the best
    reference.
    """
    scores = []
    for candidate, texts in zip(tokenize(tuple(candidates)), _tokenized(references), strict=True):
        ours = candidate.split(" ")
        theirs = [text.split(" ") for text in texts]
        common = [_longest_common_subsequence(ours, words) for words in theirs]
        precision = max(common) / len(ours)
        recall = max(c / len(words) for c, words in zip(common, theirs, strict=True))
        weighted = recall + _BETA**2 * precision
        scores.append((1 + _BETA**2) * precision * recall / weighted if weighted else 0.0)
    return np.array(scores)


def _longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for i, other in enumerate(b, start=1):
            above = row[i]
            row[i] = diagonal + 1 if word == other else max(above, row[i - 1])
            diagonal = above
    return row[-1]
