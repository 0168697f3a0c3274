from __future__ import annotations

import pytest
from pydantic import ValidationError

from ablations.errors import UserError
from ablations.resources import Resources, Shape, Slice


@pytest.mark.parametrize(
    ("text", "written", "chips"),
    [
        ("v5e-16", "v5e:4x4", 16),
        ("v5litepod-256", "v5e:16x16", 256),
        ("v6e-8", "v6e:2x4", 8),
        ("v5p-256", "v5p:4x4x8", 128),  # counts cores, two a chip
        ("v4-8", "v4:2x2x1", 4),
        ("v5e:4x8", "v5e:4x8", 32),
        ("v5p:4x4x12", "v5p:4x4x12", 192),
    ],
)
def test_a_slice_by_any_of_its_names(text, written, chips):
    found = Slice.of(text)
    assert str(found) == written
    assert found.chips == chips
    assert Slice.of(written) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("16", "no TPU slice such as v5e-16"),
        ("v5e-15", "no slice; nearest: v5e-16"),
        ("v5e:4x4x4", "v5e slices have 2 sizes"),
        ("v9z-16", "no TPU version 'v9z'"),
    ],
)
def test_what_is_no_slice_says_what_is(text, said):
    with pytest.raises(UserError, match=said):
        Slice.of(text)


@pytest.mark.parametrize(
    "said",
    [
        {"gpu": 2.5},
        {"gpu": 1, "tpu": Slice.of("v5e-4")},
        {"hosts": 3, "tpu": Slice.of("v5e-4")},
        {"hosts": 2, "devices": 3},
        {"gpu": 4, "devices": 8},
    ],
)
def test_what_contradicts_itself_is_refused(said):
    with pytest.raises(ValidationError):
        Resources(**said)


def test_devices_that_a_program_sees():
    assert Shape().devices == 1
    assert Shape(gpu=0.25).devices == 1
    assert Shape(gpu=8, hosts=2).devices == 16
    assert Shape(simulated_devices=4, hosts=2).devices == 8
    assert Shape(tpu=Slice.of("v5e-16"), hosts=4).devices == 16
