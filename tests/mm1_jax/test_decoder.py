from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mm1_jax.decoder import document_mask, rotate, rotation_of


def test_a_position_sees_itself_and_the_earlier_ones_of_its_document():
    mask = document_mask(jnp.array([[1, 1, 2, 2, 0]]))[0].astype(int)
    np.testing.assert_array_equal(
        mask,
        [
            [1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 0, 1],
        ],
    )


def test_rotary_scores_depend_on_the_distance_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(at: int, other: int) -> float:
        turned = [
            rotate(x, rotation_of(jnp.array([[place]]), 8, 10_000.0))
            for x, place in ((query, at), (key, other))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert np.isclose(score(7, 3), score(104, 100), atol=1e-4)
    assert not np.isclose(score(7, 3), score(7, 2), atol=1e-2)


def test_rotation_pairs_the_halves_and_turns_the_first_pair_by_one_radian():
    turned = rotate(jnp.array([[[[1.0, 1, 0, 0]]]]), rotation_of(jnp.array([[1]]), 4, 100.0))
    expected = [np.cos(1), np.cos(0.1), np.sin(1), np.sin(0.1)]
    np.testing.assert_allclose(turned[0, 0, 0], expected, atol=1e-6)
