"""Equality of a generated answer with the reference."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm1_jax.evaluation.tasks.generation_task import Item


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


def accuracies(items: Sequence[Item], answers: Sequence[str]) -> list[float]:
    """100 for each answer that is its item's first reference, but for case and space, else 0."""
    return [
        100.0 * exact_match(answer, item.references[0])
        for item, answer in zip(items, answers, strict=True)
    ]
