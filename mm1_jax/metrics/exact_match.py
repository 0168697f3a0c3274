"""Equality of a generated answer with the reference."""

from __future__ import annotations


def exact_match(prediction: str, reference: str) -> bool:
    """Equal but for case and surrounding space."""
    return prediction.strip().lower() == reference.strip().lower()
