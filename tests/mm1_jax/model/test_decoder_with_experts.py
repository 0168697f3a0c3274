"""A decoder with experts in every n-th layer: order, first values, generation, training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.config.language_model import MixtureOfExpertsConfig
from mm1_jax.data.tokenizer import END
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.generation import generate
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import UNROLLED, Form
from mm1_jax.model.mixture_of_experts import from_dense
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.multimodal_training import train

SHAPE = {"width": 16, "heads": 4, "kv_heads": 2, "mlp_width": 24}
EXPERTS = {**SHAPE, "kind": "moe", "layers": 4, "experts": 4, "every": 2}


def named(module) -> dict[str, np.ndarray]:
    return {
        "/".join(map(str, path)): np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(nnx.state(module))
    }


def decoded(decoder: Decoder, form: Form, training: bool = False):
    x = jax.random.normal(jax.random.key(5), (2, 9, 16))
    positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
    segments = jnp.array([[1] * 9, [1] * 6 + [0] * 3])
    return decoder(x, positions, segments, form, training=training)


@pytest.mark.parametrize(("every", "layers"), [pytest.param(1, 2, marks=pytest.mark.slow), (2, 4)])
def test_scanned_and_unrolled_layers_give_the_same_and_so_do_their_gradients(every, layers):
    config = MixtureOfExpertsConfig(**{**EXPERTS, "every": every, "layers": layers})
    graphdef, state = nnx.split(initialise(Decoder(config, 50), 0))

    def loss(state, form: Form):
        y, losses = decoded(nnx.merge(graphdef, state), form, training=True)
        return jnp.sum(jnp.sin(y)) + losses["balance_loss"] + losses["router_z_loss"]

    one, other = (
        jax.jit(jax.value_and_grad(loss), static_argnums=1)(state, form)
        for form in (UNROLLED, Form("scanned"))
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_losses_are_summed_over_the_layers_with_experts_and_see_no_padding():
    decoder = initialise(Decoder(MixtureOfExpertsConfig(**EXPERTS), 50), 0)
    decoder.expert_blocks.experts.router.set_value(jnp.zeros((2, 16, 4)))
    _, losses = nnx.jit(decoded, static_argnums=1)(decoder, UNROLLED)
    # Scores of zero: each of the two layers has a balance loss of 1 and a z-loss of (ln 4)².
    assert float(losses["balance_loss"]) == pytest.approx(2.0)
    assert float(losses["router_z_loss"]) == pytest.approx(2 * np.log(4) ** 2)
    assert float(losses["dropped_share"]) == pytest.approx(0.0, abs=1e-6)


def test_a_layer_starts_with_the_same_weights_with_and_without_experts(tiny):
    moe = MixtureOfExpertsConfig(**EXPERTS)
    ours, dense = (named(initialise(Decoder(c, 50), 3)) for c in (moe, moe.dense()))
    for name, weights in dense.items():
        layer = name.removeprefix("blocks/")
        if layer == name:
            np.testing.assert_array_equal(ours[name], weights, err_msg=name)
            continue
        np.testing.assert_array_equal(ours[name], weights[0::2], err_msg=name)
        if layer.split("/")[0] not in ("gate_up", "down"):
            np.testing.assert_array_equal(ours[f"expert_blocks/{layer}"], weights[1::2])
    kernels = ours["expert_blocks/experts/down"].reshape(8, -1)
    assert len({kernel.tobytes() for kernel in kernels}) == 8


@pytest.mark.parametrize("every", [1, 2, 4])
def test_copies_of_a_dense_models_mlps_give_what_the_dense_model_gives(every):
    config = MixtureOfExpertsConfig(**{**EXPERTS, "every": every})
    dense = initialise(Decoder(config.dense(), 50), 1)
    graphdef, fresh = nnx.split(initialise(Decoder(config, 50), 2))
    weights = from_dense(config, nnx.to_pure_dict(nnx.state(dense)), nnx.to_pure_dict(fresh))
    nnx.replace_by_pure_dict(fresh, weights)
    run = nnx.jit(decoded, static_argnums=1)
    expected, _ = run(dense, UNROLLED)
    found, _ = run(nnx.merge(graphdef, fresh), UNROLLED)
    for row, length in ((0, 9), (1, 6)):  # padding goes to no expert
        np.testing.assert_allclose(found[row, :length], expected[row, :length], atol=5e-5)
    routers = weights["expert_blocks"]["experts"]["router"]
    assert len({router.tobytes() for router in np.asarray(routers)}) == 4 // every


@pytest.mark.parametrize("capacity_factor", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_cached_generation_equals_the_uncached_forward(tiny, synthetic_batch, capacity_factor):
    config = tiny(language_model={**EXPERTS, "capacity_factor": capacity_factor})
    model = initialise(MultimodalModel(config), 0)
    batch = synthetic_batch(config)
    length = config.sequence_length
    rows, at = config.training.batch_size, np.arange(length)
    prompt = np.array([length - 6, length - 4])
    batch["segments"] = (at < prompt[:, None]).astype(np.int32)
    batch["positions"] = np.broadcast_to(at, (rows, length)).astype(np.int32)
    answers = np.asarray(generate(model, batch, prompt, 4))

    @nnx.jit
    def uncached(model, answers):
        """The prompt and its answer once through the decoder: scores after each position."""
        decoder, x = model.language_model, jnp.pad(model.embed(batch), ((0, 0), (0, 4), (0, 0)))
        for step in range(4):
            token = decoder.embed(answers[:, step], x.dtype)
            x = x.at[jnp.arange(rows), prompt + step].set(token)
        every = jnp.broadcast_to(jnp.arange(length + 4), (rows, length + 4))
        states, _ = decoder(x, every, (every < prompt[:, None] + 4).astype(int), UNROLLED)
        return decoder.logits(states)

    best = np.asarray(uncached(model, answers).argmax(-1))
    for row, first in enumerate(prompt):
        expected = best[row, first - 1 : first + 3]
        end = list(expected).index(END) + 1 if END in expected else 4
        np.testing.assert_array_equal(answers[row, :end], expected[:end])


def test_places_are_short_in_training_alone(tiny, synthetic_batch, loss_of):
    config = tiny(language_model={**EXPERTS, "capacity_factor": 0.5, "group_tokens": 8})
    model = initialise(MultimodalModel(config), 0)
    batch = synthetic_batch(config)
    _, metrics = loss_of(model, batch)
    assert 0.3 < float(metrics["dropped_share"]) < 0.9
    _, sums = nnx.jit(MultimodalModel.hidden)(model, batch)
    assert float(sums["dropped_share"]) == pytest.approx(0.0, abs=1e-5)
    weights = batch["loss_weights"]
    losses = nnx.jit(MultimodalModel.token_losses)(model, batch)
    plain = float(jnp.sum(losses * weights) / weights.sum())
    assert float(metrics["text_loss"]) != pytest.approx(plain, abs=1e-4)


def test_the_loss_adds_the_routers_losses_by_their_weights(tiny, synthetic_batch, loss_of):
    def loss(**weights):
        config = tiny(language_model={**EXPERTS, **weights})
        return loss_of(initialise(MultimodalModel(config), 0), synthetic_batch(config))

    total, metrics = loss(balance_loss=0.25, router_z_loss=0.5)
    expected = metrics["text_loss"] + 2 * (
        0.25 * metrics["balance_loss"] + 0.5 * metrics["router_z_loss"]
    )
    assert float(total) == pytest.approx(float(expected), rel=1e-6)
    assert float(metrics["balance_loss"]) >= 0.9
    bare, metrics = loss(balance_loss=0.0, router_z_loss=0.0)
    assert float(bare) == pytest.approx(float(metrics["text_loss"]), rel=1e-6)


@pytest.mark.parametrize("capacity_factor", [pytest.param(None, marks=pytest.mark.slow), 1.25])
def test_a_small_mixture_trains_lowers_its_loss_and_says_how_it_routes(
    tiny, synthetic_batches, recording_context, capacity_factor
):
    experts = {**EXPERTS, "capacity_factor": capacity_factor, "group_tokens": 16}
    config = tiny(
        language_model=experts,
        training={"steps": 30, "log_every": 5, "checkpoint_every": 100},
        optimizer={"peak_lr": 0.01},
    )
    context = recording_context()
    rows = train(config, 0, context.data, {}, context)
    named = {(row.metric, row.step): row.value for row in rows}
    first, last = (named["text_loss", step] for step in (5, 30))
    assert last < first - 0.1
    for name in ("balance_loss", "router_z_loss", "dropped_share"):
        assert np.isfinite(named[name, 30]), name
    assert 0 <= named["expert_share_min", 30] <= 1 / 4 <= named["expert_share_max", 30] <= 1 / 2
