"""Cut names that stay unlike."""

from __future__ import annotations

import pytest

from ablations.short_labels import short_labels


def test_short_names_stay_and_a_long_one_loses_its_end():
    assert short_labels(["base", "a" * 12], 8) == {"base": "base", "a" * 12: "aaaaaaa…"}


def test_names_that_begin_alike_keep_their_ends():
    names = [f"encoder.image_size=336,connector.kind={kind}" for kind in ("mlp", "linear")]
    assert list(short_labels(names, 20).values()) == [
        "encoder.image…nd=mlp",
        "encoder.image…linear",
    ]


@pytest.mark.parametrize("width", [1, 5, 12, 36])
@pytest.mark.parametrize(
    "names",
    [
        [f"{'p' * 40}{number}{'s' * 40}" for number in range(12)],
        [f"factor={number}" for number in range(1000)],
        ["x" * 36, "x" * 37, "x" * 38, "x" * 35 + "…"],
        ["same", "same"],
    ],
)
def test_unlike_names_stay_unlike_at_any_width(names, width):
    shown = short_labels(names, width)
    assert set(shown) == set(names)
    assert len(set(shown.values())) == len(set(names))
    if width == 36:
        assert max(map(len, shown.values())) <= width
