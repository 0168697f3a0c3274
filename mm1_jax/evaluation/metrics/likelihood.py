"""Scores of a likelihood: per token, per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence


def perplexity(nats: float, tokens: float) -> float:
    """exp of the mean negative log-likelihood per token; infinite where that is beyond a float."""
    try:
        return math.exp(nats / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Negative log-likelihood per UTF-8 byte in bits: comparable between vocabularies."""
    return nats / text_bytes / math.log(2)


LogLikelihood = tuple[
    float, bool
]  # of a continuation: nats, at most 0; whether it is the greedy one


def chosen(
    log_likelihoods: Sequence[LogLikelihood], choices: Sequence[str]
) -> tuple[int, int, int]:
    """The likeliest choice by the sum, per character and per UTF-8 byte; ties go to the first.

    acc, acc_norm and acc_bytes of the EleutherAI harness compare these with the right choice. An
    empty choice is no choice and never taken, as there per character or byte. Source: its
    `api/task.py`.
    """
    nats = [value for value, _ in log_likelihoods]

    def best(lengths: Sequence[int]) -> int:
        rated = [n / size if size else -math.inf for n, size in zip(nats, lengths, strict=True)]
        return rated.index(max(rated))

    return (
        best([bool(choice.strip()) for choice in choices]),
        best([len(choice) for choice in choices]),
        best([len(choice.encode()) for choice in choices]),
    )
