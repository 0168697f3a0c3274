from __future__ import annotations

import pytest

from ablations.errors import UserError
from mm1_jax.scale.chips import CHIPS, chip_of


def test_slices_stand_smallest_first():
    for chip in CHIPS.values():
        sizes = [chip_of(topology)[1] for topology in chip.topologies]
        assert sizes == sorted(set(sizes)), chip.name


def test_a_topology_names_its_chip_and_how_many():
    chip, count = chip_of("v5p:4x4x8")
    assert (chip.name, count) == ("v5p", 128)


@pytest.mark.parametrize(
    ("topology", "told"),
    [
        ("v5f:4x4", "no chip 'v5f'; did you mean 'v5"),
        ("v5e", "v5e slices have 2 sizes"),
        ("v5e:4x4x4", "v5e slices have 2 sizes; did you mean '4x4'"),
        ("v4:4xfour", "v4 slices have 3 sizes"),
        ("v5e:0x4", "v5e slices have 2 sizes"),
    ],
)
def test_a_topology_that_is_none_is_told_with_the_nearest(topology, told):
    with pytest.raises(UserError, match=told):
        chip_of(topology)
