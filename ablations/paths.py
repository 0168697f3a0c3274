"""A claim seed after seed: its sequential p values, and what further seeds may bring.

A claim is a tree of conditions (`ablations.conditions`). Where all its parts must hold, it crosses
the boundary at a look where all of them do: the largest of their p values is looked at, which is
never smaller than that of a part that does not hold. Where any of k parts is enough, the sequential
p value is k times the smallest (Bonferroni), as with a fixed number of seeds. Each direction is
looked at on its own: what would refute a claim is what supports its negation.

Values have the axes `[…, seeds]`, so all of this works on many studies at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ablations.conditions import Above, All, AnyOf, Condition, mapped
from ablations.sequential import (
    Array,
    boundary_t,
    chance_above,
    sequential_p,
    z_of,
)
from ablations.verdicts import Values, no_spread, p_value


def first(condition: Condition[Values], n: int) -> Condition[Values]:
    """The same with the first n seeds alone."""
    return mapped(condition, lambda one: one.only(n))


def p_path(condition: Condition[Values], looks: Sequence[int], most: int) -> Array:
    """Sequential p value `[…, looks]` against "the condition does not hold", at looks in order."""
    if isinstance(condition, AnyOf):
        parts = [p_path(part, looks, most) for part in condition.parts]
        return np.minimum(1.0, len(parts) * np.min(parts, axis=0))
    if _is_mixed(condition):
        assert isinstance(condition, All)
        plain = tuple(part for part in condition.parts if _is_plain(part))
        rest = [p_path(part, looks, most) for part in condition.parts if not _is_plain(part)]
        return np.max([*rest, *([p_path(All(plain), looks, most)] if plain else [])], axis=0)
    z = np.stack([z_of(p_value(first(condition, n))) for n in looks], axis=-1)
    return sequential_p(z, looks, most)


def _is_plain(condition: Condition[Values]) -> bool:
    """Whether no part of it is "any of"."""
    if isinstance(condition, Above):
        return True
    return isinstance(condition, All) and all(map(_is_plain, condition.parts))


def _is_mixed(condition: Condition[Values]) -> bool:
    return isinstance(condition, All) and not _is_plain(condition)


def chances(
    condition: Condition[Values], n: int, later: ArrayLike, level: float, most: int
) -> Array:
    """Chance `[…, later]` that the condition is accepted at each later number of seeds.

    By the first n seeds, for a boundary of this level. Of parts that must all hold, no more than
    the least likely one's; of those on either side of one quantity, that it lies between them.
    """
    later = np.asarray(later, dtype=float)
    if isinstance(condition, AnyOf):
        own = [
            chances(part, n, later, level / len(condition.parts), most) for part in condition.parts
        ]
        return np.minimum(1.0, np.sum(own, axis=0))
    if isinstance(condition, Above):
        return _chance(condition, n, later, level, most)
    mixed = [part for part in condition.parts if not isinstance(part, Above)]
    found = [chances(part, n, later, level, most) for part in mixed]
    for group in _by_quantity([part for part in condition.parts if isinstance(part, Above)]):
        sides = []
        for reverse in (False, True):
            own = [_chance(one, n, later, level, most) for one in group if one.reverse == reverse]
            if own:
                sides.append(np.min(own, axis=0))
        found.append(sides[0] if len(sides) == 1 else np.maximum(0.0, sides[0] + sides[1] - 1.0))
    return np.min(found, axis=0)


def _chance(part: Above[Values], n: int, later: Array, level: float, most: int) -> Array:
    x = part.quantity.only(n).values
    sign = -1.0 if part.reverse else 1.0
    mean, sd = x.mean(axis=-1)[..., None], x.std(axis=-1, ddof=1)[..., None]
    flat = no_spread(part.quantity.only(n))[..., None] | ~np.isfinite(sd)
    sd = np.where(flat, 1.0, sd)
    needed = boundary_t(level, later, most) * sd / np.sqrt(later)
    chance = chance_above(sign * (mean - part.boundary), sd, n, later, needed)
    return np.where(flat, 0.0, chance)


def _by_quantity(parts: Sequence[Above[Values]]) -> Iterator[list[Above[Values]]]:
    left = list(parts)
    while left:
        values = left[0].quantity.values
        yield [one for one in left if np.array_equal(one.quantity.values, values)]
        left = [one for one in left if not np.array_equal(one.quantity.values, values)]
