"""Lists in a sentence."""

import pytest

from ablations.few import few


@pytest.mark.parametrize(
    ("texts", "most", "mark", "told"),
    [
        ((), 2, ", ", ""),
        (("a", "b"), 2, ", ", "a, b"),
        (("a", "b", "c"), 2, ", ", "a, b and 1 more"),
        (range(5_000), 2, ", ", "0, 1 and 4,998 more"),
        (("a, b", "c"), 1, "; ", "a, b; and 1 more"),
    ],
)
def test_the_first_few_are_named_and_the_others_counted(texts, most, mark, told):
    assert few(texts, most, mark) == told


def test_only_those_that_are_named_are_told():
    assert few([1, 2, 0], 2, told=lambda number: f"{1 / number:g}") == "1, 0.5 and 1 more"
