from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.config.language_model import SHAPES, DenseConfig, RopeScaling
from mm1_jax.model.decoder import Decoder, cache_mask, document_mask, rotate, rotation_of
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import UNROLLED, Form

SMALL = {"width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "mlp_width": 24}
CHOICES = {
    "default": {},
    "wide heads": {"head_width": 10},
    "linear": {"rope_scaling": {"kind": "linear", "factor": 4}},
    "llama3": {"rope_scaling": {"kind": "llama3", "factor": 4, "original_length": 16}},
    "norm_eps": {"norm_eps": 0.1},
    "qk_norm": {"qk_norm": True},
    "qkv_bias": {"qkv_bias": True},
    "free head": {"tied_embeddings": False},
    "unscaled": {"scaled_embeddings": False},
}


def drawing(function) -> list[list[str]]:
    """The lines of the docstring's example that hold x or dots, each as its marks."""
    lines = [line.split() for line in function.__doc__.splitlines()]
    kept = [[mark for mark in line if mark in ("x", ".")] for line in lines]
    return [marks for marks in kept if len(marks) > 1]


def states_of(config: DenseConfig, tokens: np.ndarray, seed: int = 1) -> jax.Array:
    model = initialise(Decoder(config, 32), seed)
    x = model.embed(jnp.asarray(tokens), jnp.dtype("float32"))
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    states, _ = model(x, positions, jnp.ones_like(positions), UNROLLED)
    return model.logits(states)


def test_the_mask_of_documents_is_the_one_drawn():
    mask = document_mask(jnp.array([[1, 1, 1, 2, 2, 0, 0]]))[0]
    drawn = np.array(drawing(document_mask)) == "x"
    assert drawn.shape == (7, 7)
    np.testing.assert_array_equal(mask, drawn)


def test_the_mask_of_the_cache_is_the_one_drawn():
    mask = cache_mask(jnp.array([0, 2, 4]), 5)
    drawn = np.array(drawing(cache_mask)) == "x"
    assert drawn.shape == (3, 5)
    np.testing.assert_array_equal(mask[:, 0], drawn)


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


def test_linear_scaling_is_the_rotation_of_nearer_positions():
    far, near = jnp.array([[12, 20]]), jnp.array([[3, 5]])
    scaled = rotation_of(far, 8, 100.0, RopeScaling(kind="linear", factor=4))
    np.testing.assert_allclose(scaled, rotation_of(near, 8, 100.0), atol=1e-6)


def test_llama3_scaling_keeps_fast_angles_divides_slow_ones_and_blends_between():
    scaling = RopeScaling(
        kind="llama3", factor=8, low_freq_factor=1, high_freq_factor=4, original_length=64
    )
    theta, width = 10_000.0, 16
    frequencies = theta ** (-np.arange(0, width, 2) / width)
    turns = 64 * frequencies / (2 * math.pi)  # 10.2, 3.2, 1.02, then below 1
    expected = np.where(turns < 1, frequencies / 8, frequencies)
    for i in (1, 2):
        share = (turns[i] - 1) / 3
        expected[i] = (1 - share) * frequencies[i] / 8 + share * frequencies[i]
    cos, sin = rotation_of(jnp.array([[1]]), width, theta, scaling)
    np.testing.assert_allclose(np.arctan2(sin, cos)[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("choice", [c for c in CHOICES if c not in ("default", "free head")])
def test_every_choice_changes_what_the_decoder_says(choice):
    tokens = np.random.default_rng(0).integers(0, 32, (1, 12))
    plain = states_of(DenseConfig(**SMALL), tokens)
    config = DenseConfig(**SMALL, **CHOICES[choice])
    if choice == "qkv_bias":  # biases start at zero, where they change nothing
        model = initialise(Decoder(config, 32), 1)
        assert model.blocks.qkv.bias is not None
        assert not np.any(model.blocks.qkv.bias[...])
        np.testing.assert_array_equal(states_of(config, tokens), plain)
    else:
        assert not np.allclose(states_of(config, tokens), plain, atol=1e-3)


def test_a_free_head_scores_with_a_table_of_its_own():
    model = initialise(Decoder(DenseConfig(**SMALL, tied_embeddings=False), 32), 0)
    assert model.head is not None
    states = jax.random.normal(jax.random.key(0), (2, 3, 16))
    np.testing.assert_allclose(model.logits(states), states @ model.head[...].T, rtol=1e-5)
    assert not np.allclose(model.head[...], model.embedding[...])


@pytest.mark.parametrize("choice", CHOICES)
def test_the_formula_counts_the_weights_of_the_tree(choice):
    config = DenseConfig(**SMALL, **CHOICES[choice])
    leaves = jax.tree.leaves(nnx.state(Decoder(config, 50)))
    assert sum(leaf.size for leaf in leaves) == config.parameters() + config.head_parameters(50)


@pytest.mark.parametrize("preset", SHAPES)
def test_the_formula_counts_the_weights_of_every_preset(preset):
    config = DenseConfig.model_validate({"preset": preset})
    leaves = jax.tree.leaves(nnx.state(Decoder(config, 100)))
    assert sum(leaf.size for leaf in leaves) == config.parameters() + 100 * config.width


def test_tinyllama_has_the_weights_that_it_is_published_with():
    config = DenseConfig(
        width=2048, layers=22, heads=32, kv_heads=4, mlp_width=5632, tied_embeddings=False
    )
    assert config.parameters() + config.head_parameters(32_000) == 1_100_048_384


@pytest.mark.parametrize("form", [UNROLLED, Form("scanned")])
def test_dropout_follows_its_key_and_differs_between_layers(form):
    config = DenseConfig(**SMALL, dropout=0.5)
    model = initialise(Decoder(config, 32), 0)
    x = jax.random.normal(jax.random.key(0), (1, 6, 16))
    positions = jnp.arange(6)[None]

    def run(key: jax.Array | None) -> np.ndarray:
        return np.asarray(model(x, positions, jnp.ones_like(positions), form, key)[0])

    plain, first, again, other = (
        run(key) for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, plain)
    assert not np.allclose(first, other)
    without = initialise(Decoder(DenseConfig(**SMALL), 32), 0)
    same, _ = without(x, positions, jnp.ones_like(positions), form, jax.random.key(1))
    np.testing.assert_array_equal(same, plain)


def test_dropout_keeps_its_share_and_the_mean():
    block = initialise(Decoder(DenseConfig(**SMALL, dropout=0.25), 32), 0).blocks
    ones = jnp.ones((64, 64, 16))
    dropped = np.asarray(block._dropped(ones, jax.random.key(0), 0))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert abs(dropped.mean() - 1) < 0.01
    assert not np.array_equal(dropped, block._dropped(ones, jax.random.key(0), 1))


def test_both_forms_compute_the_same_with_the_same_dropout():
    config = DenseConfig(**SMALL, dropout=0.5)
    model = initialise(Decoder(config, 32), 0)
    x = jax.random.normal(jax.random.key(0), (1, 6, 16))
    positions = jnp.arange(6)[None]
    results = [
        model(x, positions, jnp.ones_like(positions), form, jax.random.key(1))[0]
        for form in (UNROLLED, Form("scanned"))
    ]
    np.testing.assert_allclose(*results, atol=1e-5)
