"""Lists in a sentence that may be long: the first few, and how many more there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def few(
    things: Iterable[Any], most: int, mark: str = ", ", told: Callable[[Any], str] = str
) -> str:
    """`a, b, c and 4 more`; between texts that have commas of their own, `a; b; and 4 more`.

    Only of those that are named is asked how they are `told`.
    """
    things = list(things)
    rest = len(things) - most
    shown = mark.join(map(told, things[:most]))
    return f"{shown}{mark.strip(', ')} and {rest:,} more" if rest > 0 else shown
