"""Claims as trees of one-sided statements."""

from __future__ import annotations

import itertools

from ablations.conditions import Above, All, AnyOf, mapped, negated, quantities


def holds(condition, values):
    """Whether a condition is true of known values; ties are left out."""
    if isinstance(condition, Above):
        return (values[condition.quantity] > condition.boundary) != condition.reverse
    parts = [holds(part, values) for part in condition.parts]
    return all(parts) if isinstance(condition, All) else any(parts)


CONDITION = All(
    (
        AnyOf((Above("a", 0.5), All((Above("b", 0.5, True), Above("a", 1.5))))),
        Above("b", 1.5, True),
    )
)


def test_a_condition_or_its_negation_holds_never_both():
    for a, b in itertools.product((0, 1, 2), repeat=2):
        values = {"a": a, "b": b}
        assert holds(CONDITION, values) != holds(negated(CONDITION), values)


def test_negating_twice_is_the_condition():
    assert negated(negated(CONDITION)) == CONDITION


def test_quantities_are_mapped_in_place():
    assert list(quantities(CONDITION)) == ["a", "b", "a", "b"]
    assert list(quantities(mapped(CONDITION, str.upper))) == ["A", "B", "A", "B"]
