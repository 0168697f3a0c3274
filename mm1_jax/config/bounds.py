"""Sizes that a model may have, and the nearest ones that are possible."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

# Larger numbers are no model or run that anybody has, and would fill the memory of who plans it.
LARGEST = 2**24
Count = Annotated[int, Field(gt=0, le=LARGEST)]  # of weights side by side, tokens, rows, images
Vocabulary = Annotated[int, Field(ge=300, le=LARGEST)]
Side = Annotated[int, Field(gt=0, le=16_384)]  # pixels
Layers = Annotated[int, Field(gt=0, le=10_000)]


def check_heads(part: str, width: int, heads: int) -> None:
    """Raise ValueError, with the nearest possible number, unless `heads` divides `width`."""
    if width % heads:
        raise ValueError(
            f"{part} width {width} is not divisible by {heads} heads; "
            f"nearest: {nearest_divisor(width, heads)} heads"
        )


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`; of two the smaller."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return min((*small, *(number // d for d in small)), key=lambda d: (abs(d - wanted), d))
