"""Scores of a likelihood: per token, per byte."""

from __future__ import annotations

import math


def perplexity(nats: float, tokens: float) -> float:
    """exp of the mean negative log-likelihood per token; infinite where that is beyond a float."""
    try:
        return math.exp(nats / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Negative log-likelihood per UTF-8 byte in bits: comparable between vocabularies."""
    return nats / text_bytes / math.log(2)
