"""Equality of a generated answer with the reference."""

from __future__ import annotations

import string


def exact_match(prediction: str, reference: str) -> bool:
    """Equal but for case and surrounding space."""
    return prediction.strip().lower() == reference.strip().lower()


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match_without_punctuation(prediction: str, reference: str) -> bool:
    """Equal but for case and ASCII punctuation: `exact_match` of the EleutherAI harness, lmms-eval.

    Spaces count: the caller strips what a model said.
    """
    plain, right = (text.lower().translate(_NO_PUNCTUATION) for text in (prediction, reference))
    return plain == right
