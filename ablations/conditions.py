"""A claim as a tree: all or any of "the mean of this quantity is above that boundary".

Every form of claim comes down to these three, and so do its negation and its p values
(`ablations.verdicts`):

    a > b by 2                 Above(a - b, 2)
    a == b within 3            All(Above(a - b, -3), Above(b - a, -3))
    effect(A) > abs(effect(B)) All(Above(A - B, 0), Above(A + B, 0))
    abs(effect(A)) > 2         Any(Above(A, 2), Above(-A, 2))

An `Above` says on which side of a boundary a quantity lies. The quantity is the left side of the
claim minus its right side, in the order in which it was written, and `name` says so: the number
and the interval beside a verdict are read with the claim, never against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

Quantity = TypeVar("Quantity")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Above(Generic[Quantity]):
    """Quantity above the boundary; below it if `reverse`."""

    quantity: Quantity
    boundary: float
    reverse: bool = False
    name: str = field(default="", compare=False)  # of the quantity, in the language of claims


@dataclass(frozen=True)
class All(Generic[Quantity]):
    """Every part holds."""

    parts: tuple[Condition[Quantity], ...]


@dataclass(frozen=True)
class AnyOf(Generic[Quantity]):
    """At least one part holds."""

    parts: tuple[Condition[Quantity], ...]


Condition = Above[Quantity] | All[Quantity] | AnyOf[Quantity]


def negated(condition: Condition[Quantity]) -> Condition[Quantity]:
    """The condition that holds where this one does not (De Morgan; ties do not matter)."""
    if isinstance(condition, Above):
        return replace(condition, reverse=not condition.reverse)
    turned = tuple(map(negated, condition.parts))
    return AnyOf(turned) if isinstance(condition, All) else All(turned)


def mapped(condition: Condition[Quantity], change: Callable[[Quantity], Other]) -> Condition[Other]:
    """The same condition about other quantities."""
    if isinstance(condition, Above):
        changed = change(condition.quantity)
        return Above(changed, condition.boundary, condition.reverse, condition.name)
    parts = tuple(mapped(part, change) for part in condition.parts)
    return All(parts) if isinstance(condition, All) else AnyOf(parts)


def quantities(condition: Condition[Quantity]) -> Iterator[Quantity]:
    """Everything that the condition is about, in order."""
    if isinstance(condition, Above):
        yield condition.quantity
    else:
        for part in condition.parts:
            yield from quantities(part)
