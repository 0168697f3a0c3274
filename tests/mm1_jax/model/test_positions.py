from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mm1_jax.model.positions import bicubic_weights, interpolate_positions, sincos_positions


def test_sincos_positions_are_the_known_ones():
    # A grid of 2 × 2 at width 8: half for the column, half for the row; sines, then cosines.
    right, below = sincos_positions((2, 2), 8)[1:3]
    one = [0.8415, 0.01, 0.5403, 1.0]
    np.testing.assert_allclose(right, [*one, 0, 0, 1, 1], atol=1e-4)
    np.testing.assert_allclose(below, [0, 0, 1, 1, *one], atol=1e-4)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("sizes", [(4, 7), (7, 4), (16, 27), (5, 5), (37, 16)])
def test_rows_of_weights_add_up_to_one_and_a_constant_stays(sizes, antialias):
    np.testing.assert_allclose(bicubic_weights(*sizes, antialias).sum(1), 1, atol=1e-12)


def test_twice_the_size_has_the_known_weights():
    # a = -0.75, a quarter of the way from sample 3 to sample 4.
    middle = bicubic_weights(8, 16)[7]
    expected = [-0.10546875, 0.87890625, 0.26171875, -0.03515625]
    np.testing.assert_allclose(middle[2:6], expected, atol=1e-12)


def test_the_class_token_is_untouched_and_the_same_grid_gives_the_same_table():
    table = jnp.asarray(np.random.default_rng(0).standard_normal((17, 6)), jnp.float32)
    moved = interpolate_positions(table, (4, 4), (3, 5), first=1)
    assert moved.shape == (16, 6)
    np.testing.assert_array_equal(moved[0], table[0])
    assert interpolate_positions(table, (4, 4), (4, 4), first=1) is table


@pytest.mark.slow
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("new", [(3, 5), (8, 8), (13, 4)])
def test_interpolation_equals_pytorchs(new, antialias):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).standard_normal((42, 5)).astype(np.float32)
    grid = torch.tensor(table.reshape(1, 6, 7, 5)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        grid, size=new, mode="bicubic", align_corners=False, antialias=antialias
    )
    found = interpolate_positions(jnp.asarray(table), (6, 7), new, antialias=antialias)
    expected = expected.permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)
