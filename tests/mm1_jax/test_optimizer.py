from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mm1_jax.config import OptimizerConfig
from mm1_jax.optimizer import build_optimizer, decays

NAMES = ("encoder/norm/scale", "encoder/qkv/kernel", "encoder/qkv/bias", "language_model/embedding")


def test_a_step_with_zero_gradient_multiplies_decayed_weights_by_one_minus_decay_times_rate():
    optimizer = build_optimizer(OptimizerConfig(weight_decay=0.1), NAMES)
    weights = [jnp.full(3, 2.0) for _ in NAMES]
    zeros = [jnp.zeros(3) for _ in NAMES]
    updates, _ = optimizer.update(zeros, optimizer.init(weights), weights)
    moved = [w - 0.01 * u for w, u in zip(weights, jax.tree.leaves(updates), strict=True)]
    for name, weight in zip(NAMES, moved, strict=True):
        expected = 2.0 * (1 - 0.1 * 0.01) if decays(name) else 2.0
        np.testing.assert_allclose(weight, expected, rtol=1e-6, err_msg=name)
    assert [decays(name) for name in NAMES] == [False, True, False, True]


def test_it_is_optax_adamw_after_clipping():
    config = OptimizerConfig(weight_decay=0.1, clip_norm=1.0)
    ours = build_optimizer(config, ["kernel"])
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(0.03, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=0.1),
    )
    a = b = [jnp.array([1.0, -2.0, 3.0])]
    a_state, b_state = ours.init(a), theirs.init(b)
    for scale in (10.0, 0.1, 3.0):
        gradient = [scale * jnp.array([0.3, -0.2, 0.5])]
        updates, a_state = ours.update(gradient, a_state, a)
        a = jax.tree.map(lambda w, u: w - 0.03 * u, a, updates)
        updates, b_state = theirs.update(gradient, b_state, b)
        b = optax.apply_updates(b, updates)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-6)


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    optimizer = build_optimizer(OptimizerConfig(clip_norm=1.0, b1=0.0, b2=0.0, eps=1e3), ["a", "b"])
    weights = [jnp.zeros(1), jnp.zeros(1)]
    gradient = [jnp.array([30.0]), jnp.array([40.0])]
    updates, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    # eps far above the gradients: the update is nearly gradient / eps.
    found = [float(u[0]) * 1e3 for u in jax.tree.leaves(updates)]
    assert found == pytest.approx([0.6, 0.8], rel=1e-2)
