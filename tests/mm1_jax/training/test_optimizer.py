from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.training import OptimizerConfig, PartRates
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.multimodal import MultimodalModel
from mm1_jax.training.contrastive import ContrastiveModel
from mm1_jax.training.loop import Trainer
from mm1_jax.training.optimizer import (
    SHORTEST_FACTORED_SIDE,
    build_optimizer,
    decays,
    part_rate,
    stacked_axes,
)

KINDS = ("adamw", "adafactor")
NAMES = ("encoder/norm/scale", "encoder/qkv/kernel", "encoder/qkv/bias", "language_model/embedding")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_zero_gradient_multiplies_decayed_weights_by_one_minus_decay_times_rate(kind):
    optimizer = build_optimizer(OptimizerConfig(kind=kind, weight_decay=0.1), NAMES)
    weights = [jnp.full((20, 20), 2.0) for _ in NAMES]
    zeros = [jnp.zeros((20, 20)) for _ in NAMES]
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


def test_a_parts_rate_is_multiplied_by_its_own_factor(tiny, synthetic_batch):
    rates = {"connector": 0.5, "encoder": 2.0}
    assert [part_rate(PartRates(**rates), name) for name in NAMES] == [2.0, 2.0, 2.0, 1.0]
    moved = []
    for more in ({}, {"part_rates": rates}):
        config = tiny(
            encoder={"layers": 1},
            language_model={"layers": 1},
            optimizer={"clip_norm": 1e9, **more},
        )
        model = initialise(MultimodalModel(config), 0)
        before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
        trainer = Trainer(model, config.training, config.optimizer, 0)
        trainer.step(synthetic_batch(config), 0.01, 1)
        after = nnx.to_pure_dict(nnx.state(trainer.model()))
        moved.append(jax.tree.map(lambda a, b: np.asarray(a) - b, after, before))
    for part, factor in {"encoder": 2.0, "connector": 0.5, "language_model": 1.0}.items():
        plain, multiplied = (jax.tree.leaves(tree[part]) for tree in moved)
        for a, b in zip(plain, multiplied, strict=True):
            np.testing.assert_allclose(b, factor * a, rtol=1e-2, atol=1e-5, err_msg=part)


# -- Adafactor -----------------------------------------------------------------------------------

LOOSE = {"clip_norm": 1e9, "weight_decay": 0.0}  # the moments alone


def run(config: OptimizerConfig, names, weights, gradients) -> list[list[np.ndarray]]:
    """Updates of each step, for gradients of each step."""
    optimizer = build_optimizer(config, names)
    state, out, update = optimizer.init(weights), [], jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, weights)
        out.append([np.asarray(update) for update in updates])
    return out


def test_adafactor_is_optaxs_without_momentum_and_scaling_by_weights():
    draws = np.random.default_rng(0)
    shapes = [(24, 40), (40,), (3, 3, 24), (300, 16)]
    weights = [jnp.asarray(draws.normal(size=shape), jnp.float32) for shape in shapes]
    steps = [
        [jnp.asarray(scale * draws.normal(size=shape), jnp.float32) for shape in shapes]
        for scale in (0.1, 30.0, 0.2)
    ]
    theirs = optax.adafactor(
        learning_rate=1.0,
        min_dim_size_to_factor=SHORTEST_FACTORED_SIDE,
        multiply_by_parameter_scale=False,
        weight_decay_rate=0.1,
    )
    config = OptimizerConfig(kind="adafactor", clip_norm=1e9, weight_decay=0.1)
    ours = run(config, ["a", "b", "c", "d"], weights, steps)
    state = theirs.init(weights)
    for gradients, own in zip(steps, ours, strict=True):
        updates, state = theirs.update(gradients, state, weights)
        for a, b in zip(own, updates, strict=True):
            np.testing.assert_allclose(a, -b, rtol=1e-5, atol=1e-7)


def test_adafactors_first_step_is_the_gradients_sign_where_its_square_is_of_rank_one():
    draws = np.random.default_rng(1)
    size = np.outer(draws.uniform(1e-4, 10, 20), draws.uniform(1e-4, 10, 30))
    gradient = size * draws.choice([-1.0, 1.0], size.shape)
    config = OptimizerConfig(kind="adafactor", **LOOSE)
    ((update,),) = run(config, ["kernel"], [jnp.zeros((20, 30))], [[jnp.asarray(gradient)]])
    np.testing.assert_allclose(update, np.sign(gradient), rtol=1e-4)


@pytest.mark.parametrize(
    ("stacked", "alone", "shape"),
    [
        ("encoder/blocks/qkv/kernel", "encoder/qkv/kernel", (24, 40)),
        ("encoder/blocks/attention_norm/scale", "encoder/norm/scale", (24,)),
        ("language_model/expert_blocks/experts/router", "router", (24, 16)),
    ],
)
def test_a_stack_of_layers_moves_as_its_layers_would_on_their_own(stacked, alone, shape):
    draws = np.random.default_rng(2)
    weights = jnp.asarray(draws.normal(size=(5, *shape)), jnp.float32)
    # A layer's own size of gradients; the last step is a spike, which the clipping brings down.
    own = 10.0 ** draws.integers(-3, 3, (5, *[1] * len(shape)))
    sizes = (own, own, 50 * own)
    steps = [jnp.asarray(s * draws.normal(size=weights.shape), jnp.float32) for s in sizes]
    config = OptimizerConfig(kind="adafactor", **LOOSE)
    together = run(config, [stacked], [weights], [[step] for step in steps])
    apart = run(config, [alone] * 5, list(weights), [list(step) for step in steps])
    for one, many in zip(together, apart, strict=True):
        np.testing.assert_allclose(one[0], np.stack(many), rtol=1e-4, atol=1e-7)
    size = np.sqrt(np.mean(together[-1][0].reshape(5, -1) ** 2, axis=1))
    np.testing.assert_allclose(size, 1.0, rtol=1e-4)


def test_every_expert_of_every_layer_is_a_matrix_of_its_own():
    draws = np.random.default_rng(3)
    name, config = "language_model/expert_blocks/experts/", OptimizerConfig(kind="adafactor")
    for last, shape in {"gate_up": (24, 2, 40), "down": (40, 24)}.items():
        gradient = draws.normal(size=(2, 3, *shape)).astype(np.float32)
        zeros = jnp.zeros_like(gradient)
        ((together,),) = run(config, [name + last], [zeros], [[gradient]])
        ((alone,),) = run(config, ["kernel"], [zeros[1, 2]], [[gradient[1, 2]]])
        np.testing.assert_allclose(together[1, 2], alone, rtol=1e-4)


def test_the_axes_that_count_layers_are_known_from_the_names(tiny):
    experts = {"kind": "moe", "layers": 4, "experts": 3, "every": 2}
    kinds = [{"kind": "average_pooling", "tokens": 4}, {"kind": "perceiver_resampler", "tokens": 4}]
    models = [MultimodalModel(tiny(language_model=experts, connector=kind)) for kind in kinds]
    checked = 0
    for model in (*models, ContrastiveModel(EncoderStageConfig())):
        for path, variable in nnx.to_flat_state(nnx.state(model)):
            name = "/".join(map(str, path))
            layers = variable.get_metadata("layers")
            of_experts = "experts" in path and path[-1] != "router"
            assert stacked_axes(name) == (layers is not None) + of_experts, name
            checked += stacked_axes(name) > 0
    assert checked > 30


def test_adafactors_moments_are_small_beside_adamws():
    from mm1_jax.config.language_model import DenseConfig
    from mm1_jax.model.decoder import Decoder

    flat = nnx.to_flat_state(nnx.state(Decoder(DenseConfig(), 1024)))
    names = ["language_model/" + "/".join(map(str, path)) for path, _ in flat]
    weights = [variable.get_value() for _, variable in flat]

    def held(kind) -> int:
        optimizer = build_optimizer(OptimizerConfig(kind=kind), names)
        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(optimizer.init, weights)))

    count = sum(weight.size for weight in weights)
    assert held("adamw") == pytest.approx(2 * count, rel=1e-4)
    assert held("adafactor") < 0.03 * count  # rows and columns of even the smallest model
