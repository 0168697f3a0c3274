from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import LayerNorm, RMSNorm, attend


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_a_loop_over_rows_and_heads(masked):
    draws = np.random.default_rng(0)
    queries = draws.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = draws.normal(size=(2, 2, 7, 2, 6)).astype(np.float32)
    mask = draws.random((2, 5, 7)) < 0.5
    mask[:, :, 0] = True
    expected = np.zeros((2, 5, 4, 6))
    for row in range(2):
        for head in range(4):
            scores = queries[row, :, head] @ keys[row, :, head // 2].T / np.sqrt(6)
            if masked:
                scores = np.where(mask[row], scores, -np.inf)
            expected[row, :, head] = softmax(scores) @ values[row, :, head // 2]
    found = attend(queries, keys, values, jnp.asarray(mask) if masked else None)
    np.testing.assert_allclose(found, expected.reshape(2, 5, 24), atol=1e-5)


def test_attention_survives_scores_far_beyond_what_exp_can_hold():
    queries = jnp.full((1, 2, 1, 4), 300.0)
    out = attend(queries, queries, queries)
    np.testing.assert_allclose(out, np.full((1, 2, 4), 300.0), rtol=1e-6)


def test_norms_equal_their_formulas():
    x = np.random.default_rng(0).normal(3, 2, size=(3, 8)).astype(np.float32)
    centred = x - x.mean(-1, keepdims=True)
    np.testing.assert_allclose(
        initialise(LayerNorm(8), 0)(x), centred / x.std(-1, keepdims=True), atol=1e-5
    )
    np.testing.assert_allclose(
        initialise(RMSNorm(8), 0)(x), x / np.sqrt((x**2).mean(-1, keepdims=True)), atol=1e-5
    )


def test_norms_compute_in_float32_and_return_the_dtype_they_got():
    x = jnp.full((1, 64), 200.0, jnp.bfloat16).at[0, 0].set(-200.0)
    assert initialise(RMSNorm(64), 0)(x).dtype == jnp.bfloat16
    assert bool(jnp.isfinite(jax.grad(lambda x: initialise(RMSNorm(64), 0)(x).sum())(x)).all())
