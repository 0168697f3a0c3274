from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from mm1_jax.config.language_model import MixtureOfExpertsConfig
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.mixture_of_experts import (
    MixtureOfExperts,
    grouped_matmul,
    lay_out,
    permute,
    route,
    routing_losses,
    stand_in_line,
    through_experts,
    through_places,
)

WIDTH, HIDDEN, TOKENS = 6, 10, 40


def weights(experts: int, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    gate_up, down = jax.random.split(jax.random.key(seed))
    return (
        jax.random.normal(gate_up, (experts, WIDTH, 2, HIDDEN)),
        jax.random.normal(down, (experts, HIDDEN, WIDTH)),
    )


def routed(experts: int, top_k: int, tokens: int = TOKENS) -> tuple[jax.Array, ...]:
    """Tokens that prefer some experts, as real ones do; their choices and gates."""
    x = jax.random.normal(jax.random.key(1), (tokens, WIDTH))
    logits = jax.random.normal(jax.random.key(2), (tokens, experts)) - 0.5 * jnp.arange(experts)
    return x, *route(logits, top_k)


def one_by_one(x, choices, gates, gate_up, down, capacity: int | None = None, group: int = 0):
    """The same in numpy, expert after expert and token after token."""
    x, choices, gates, gate_up, down = map(np.asarray, (x, choices, gates, gate_up, down))
    y, kept = np.zeros_like(x), np.zeros(choices.shape, bool)
    for begin in range(0, len(x), group or len(x)):
        taken = np.zeros(len(down), int)
        tokens = range(begin, min(begin + (group or len(x)), len(x)))
        for choice in range(choices.shape[1]):
            for token in tokens:
                expert = choices[token, choice]
                if expert >= len(down) or (capacity is not None and taken[expert] == capacity):
                    continue
                taken[expert] += 1
                kept[token, choice] = True
                gate, up = x[token] @ gate_up[expert, :, 0], x[token] @ gate_up[expert, :, 1]
                out = (gate / (1 + np.exp(-gate)) * up) @ down[expert]
                y[token] += gates[token, choice] * out
    return y, kept


# First choices 0 0 0 1 1 0, second 1 2 1 2 0 1 (GShard's top-2 gating on six tokens).
KNOWN_LOGITS = jnp.array(
    [(2, 1, 0), (2, 0, 1), (2, 1, 0), (0, 2, 1), (1, 2, 0), (2, 1, 0)], jnp.float32
)


def test_six_tokens_and_three_experts_are_routed_as_known():
    choices, gates = route(KNOWN_LOGITS, 2)
    np.testing.assert_array_equal(choices[:, 0], [0, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(choices[:, 1], [1, 2, 1, 2, 0, 1])
    np.testing.assert_allclose(gates[:, 0], 0.73106, atol=1e-5)
    np.testing.assert_allclose(gates.sum(-1), 1.0, rtol=1e-6)
    config = MixtureOfExpertsConfig(experts=3, capacity_factor=0.5)
    assert config.places(6) == 2
    kept = stand_in_line(choices[None], 3)[0] < 2
    np.testing.assert_array_equal(kept[:, 0], [1, 1, 0, 1, 1, 0])
    np.testing.assert_array_equal(kept[:, 1], [0, 1, 0, 1, 0, 0])
    losses = routing_losses(KNOWN_LOGITS, choices, kept, jnp.ones(6, bool))
    assert float(losses["balance_loss"]) == pytest.approx(1.357691, abs=1e-6)
    assert float(losses["router_z_loss"]) == pytest.approx(5.796566, abs=1e-5)
    assert float(losses["dropped_share"]) == pytest.approx(0.5)
    assert float(losses["expert_share_max"]) == pytest.approx(5 / 12)
    assert float(losses["expert_share_min"]) == pytest.approx(2 / 12)


def test_one_choice_is_weighted_by_its_probability():
    _, gates = route(KNOWN_LOGITS, 1)
    np.testing.assert_allclose(gates[0, 0], np.exp(2) / np.exp([2.0, 1, 0]).sum(), rtol=1e-5)


def test_the_balance_loss_of_a_uniform_router_is_one():
    choices, _ = route(jnp.zeros((32, 8)), 2)
    losses = routing_losses(jnp.zeros((32, 8)), choices, choices >= 0, jnp.ones(32, bool))
    assert float(losses["balance_loss"]) == pytest.approx(1.0)
    assert float(losses["router_z_loss"]) == pytest.approx(np.log(8) ** 2)


def test_padding_changes_no_loss():
    choices, _ = route(KNOWN_LOGITS, 2)
    alone = routing_losses(KNOWN_LOGITS, choices, choices >= 0, jnp.ones(6, bool))
    more = jnp.concatenate([KNOWN_LOGITS, 9.0 * jax.random.normal(jax.random.key(0), (5, 3))])
    valid = jnp.arange(11) < 6
    choices = jnp.where(valid[:, None], route(more, 2)[0], 3)
    padded = routing_losses(more, choices, choices < 3, valid)
    for name, value in alone.items():
        assert float(padded[name]) == pytest.approx(float(value), abs=1e-6), name


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (3, 1), (4, 2), (5, 3), (30, 2)])
def test_dropless_equals_a_loop_over_tokens(experts, top_k):
    x, choices, gates = routed(experts, top_k)
    choices = choices.at[3].set(experts)  # padding
    y = jax.jit(through_experts)(x, choices, gates, *weights(experts))
    expected, _ = one_by_one(x, choices, gates, *weights(experts))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(y[3], 0.0)


@pytest.mark.parametrize(("experts", "group", "places"), [(4, 16, 4), (3, 40, 8), (4, 9, 5)])
def test_capacity_equals_a_loop_over_tokens_in_groups(experts, group, places):
    x, choices, gates = routed(experts, 2)
    choices = choices.at[3].set(experts)
    run = jax.jit(through_places, static_argnums=(5, 6))
    y, kept = run(x, choices, gates, *weights(experts), group, places)
    expected, expected_kept = one_by_one(x, choices, gates, *weights(experts), places, group)
    assert 0 < expected_kept.mean() < 0.95
    np.testing.assert_array_equal(kept, expected_kept)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_endless_capacity_equals_dropless_in_values_and_gradients():
    x, choices, gates = routed(4, 2)

    def dropless(x, gates, gate_up, down):
        return jnp.sum(jnp.sin(through_experts(x, choices, gates, gate_up, down)))

    def capacity(x, gates, gate_up, down):
        return jnp.sum(jnp.sin(through_places(x, choices, gates, gate_up, down, 16, 16)[0]))

    arguments = x, gates, *weights(4)
    one, other = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2, 3)))(*arguments)
        for f in (dropless, capacity)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("capacity_factor", [None, 0.75])
def test_permuting_the_experts_changes_nothing(capacity_factor):
    config = MixtureOfExpertsConfig(
        width=WIDTH, heads=1, kv_heads=1, mlp_width=HIDDEN, experts=4,
        capacity_factor=capacity_factor, group_tokens=16,
    )  # fmt: skip
    x = jax.random.normal(jax.random.key(3), (2, 20, WIDTH))
    model, order = initialise(MixtureOfExperts(config, 1.0), 0), jnp.array([2, 0, 3, 1])
    valid = jnp.arange(20) < jnp.array([[20], [15]])
    expected, losses = model(x, valid)
    model.router.set_value(model.router[...][:, order])
    model.gate_up.set_value(model.gate_up[...][order])
    model.down.set_value(model.down[...][order])
    y, same = model(x, valid)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[1, 15:], 0.0)
    for name, value in losses.items():
        assert float(same[name]) == pytest.approx(float(value), abs=1e-6), name


@pytest.mark.parametrize("capacity_factor", [None, 1.0])
def test_one_expert_is_the_dense_mlp(capacity_factor):
    config = MixtureOfExpertsConfig(
        width=WIDTH, heads=1, kv_heads=1, mlp_width=HIDDEN, experts=1, top_k=1,
        capacity_factor=capacity_factor,
    )  # fmt: skip
    model = initialise(MixtureOfExperts(config, 1.0), 0)
    x = jax.random.normal(jax.random.key(3), (2, 20, WIDTH))
    y, losses = model(x, jnp.ones((2, 20), bool))
    gate, up = x @ model.gate_up[...][0, :, 0], x @ model.gate_up[...][0, :, 1]
    dense = (jax.nn.silu(gate) * up) @ model.down[...][0]
    np.testing.assert_allclose(y, dense, rtol=1e-5, atol=1e-5)
    assert float(losses["balance_loss"]) == pytest.approx(1.0)
    assert float(losses["dropped_share"]) == pytest.approx(0.0, abs=1e-6)


def test_dropless_ignores_the_capacity_when_asked():
    config = MixtureOfExpertsConfig(
        width=WIDTH, heads=1, kv_heads=1, mlp_width=HIDDEN, experts=4, capacity_factor=0.25
    )
    model = initialise(MixtureOfExperts(config, 1.0), 0)
    x = jax.random.normal(jax.random.key(3), (1, 20, WIDTH))
    run = nnx.jit(type(model).__call__, static_argnames="dropless")
    alone = run(model, x[:, 7:8], jnp.ones((1, 1), bool), dropless=True)[0]
    together, losses = run(model, x, jnp.ones((1, 20), bool), dropless=True)
    np.testing.assert_allclose(together[:, 7:8], alone, rtol=1e-5, atol=1e-6)
    assert float(losses["dropped_share"]) == pytest.approx(0.0, abs=1e-6)
    assert float(model(x, jnp.ones((1, 20), bool))[1]["dropped_share"]) > 0.3


@pytest.mark.parametrize("capacity_factor", [None, 0.75])
def test_gradients_equal_finite_differences(capacity_factor):
    config = MixtureOfExpertsConfig(
        width=WIDTH, heads=1, kv_heads=1, mlp_width=HIDDEN, experts=3,
        capacity_factor=capacity_factor, group_tokens=8,
    )  # fmt: skip
    graphdef, state = nnx.split(initialise(MixtureOfExperts(config, 1.0), 0))
    x = jax.random.normal(jax.random.key(3), (1, 12, WIDTH))
    valid = jnp.arange(12)[None] < 10

    @jax.jit
    def loss(x, state):
        y, losses = nnx.merge(graphdef, state)(x, valid)
        return jnp.sum(jnp.sin(y)) + losses["balance_loss"] + losses["router_z_loss"]

    with jax.enable_x64(True):
        at = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), (x, state))
        direction = jax.tree.map(
            lambda leaf: jnp.asarray(np.random.default_rng(leaf.size).normal(size=leaf.shape)), at
        )

        def along(step: float):
            return loss(*jax.tree.map(lambda a, d: a + step * d, at, direction))

        slope = (along(1e-4) - along(-1e-4)) / 2e-4
        gradients = jax.grad(loss, argnums=(0, 1))(*at)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradients, direction)
        assert float(sum(jax.tree.leaves(products))) == pytest.approx(float(slope), rel=1e-3)


def test_every_experts_rows_begin_at_a_block():
    rows, sizes = lay_out(jnp.array([2, 0, 2, 5, 2, 0, 2, 2]), 3, 4)
    np.testing.assert_array_equal(sizes, [4, 0, 8])
    np.testing.assert_array_equal(rows, [4, 0, 5, 2**31 - 1, 6, 1, 7, 8])


def test_the_grouped_product_equals_that_of_ragged_dot():
    rows = jax.random.normal(jax.random.key(0), (16, 5))
    kernels = jax.random.normal(jax.random.key(1), (3, 5, 7))
    sizes = jnp.array([8, 0, 4])
    np.testing.assert_allclose(
        grouped_matmul(rows, kernels, sizes, 4)[:12],
        jax.lax.ragged_dot(rows, kernels, sizes)[:12],
        rtol=1e-5,
        atol=1e-5,
    )


def test_gradients_of_the_grouped_product_equal_finite_differences():
    sizes = jnp.array([8, 0, 4])

    @jax.jit
    def product(rows, kernels):
        # What stands in rows beyond the last group is not to be used.
        return jnp.sin(grouped_matmul(rows, kernels, sizes, 4)[:12])

    with jax.enable_x64(True):
        rows = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)))
        kernels = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 5)))
        check_grads(product, (rows, kernels), order=1, modes=["rev"], atol=1e-7, rtol=1e-7)
        gradient = np.asarray(jax.grad(lambda kernels: product(rows, kernels).sum())(kernels))
    assert not gradient[1].any()  # an expert that nobody chose
    assert gradient[0].all()
    assert gradient[2].all()


def test_gradients_of_permuting_rows_equal_finite_differences():
    index, inverse = jnp.array([4, 0, 9, 1, 2]), jnp.array([1, 3, 4, 9, 0])

    @jax.jit
    def permuted(x):
        return jnp.sin(permute(x, index, inverse))

    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
        check_grads(permuted, (x,), order=1, modes=["rev"], atol=1e-7, rtol=1e-7)


def test_permuting_rows_has_the_gradient_of_indexing():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    index, inverse = jnp.array([2, 9, 0, 3, 9]), jnp.array([2, 9, 0, 3])
    own = jax.grad(lambda x: jnp.sum(jnp.sin(permute(x, index, inverse))))(x)
    plain = jax.grad(lambda x: jnp.sum(jnp.sin(x.at[index].get(mode="fill", fill_value=0))))(x)
    np.testing.assert_allclose(own, plain, rtol=1e-6)
    np.testing.assert_array_equal(permute(x, index, inverse)[1], 0.0)
