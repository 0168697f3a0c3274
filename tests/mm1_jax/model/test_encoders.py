from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.config.encoder import FusedEncoderConfig, VisionTransformerConfig
from mm1_jax.model.encoders import VisionTransformer, build_encoder, patchify
from mm1_jax.model.initialisation import initialise
from mm1_jax.model.layers import UNROLLED, Form
from mm1_jax.model.positions import interpolate_positions


def test_patches_go_row_by_row_and_hold_row_column_channel():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = np.asarray(patchify(jnp.asarray(images), 2))
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].reshape(-1))


def test_images_do_not_see_each_other_and_positions_matter(tiny):
    encoder = initialise(VisionTransformer(tiny().encoder), 0)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    encode = nnx.jit(lambda images: encoder(images, UNROLLED, jnp.dtype("float32")))
    features = encode(images)
    assert features.shape == (2, 16, 16)
    others = images.copy()  # JAX may still be reading the first ones, and reads them in place
    others[1] = 0
    again = encode(others)
    np.testing.assert_allclose(again[0], features[0], atol=1e-6)
    assert float(jnp.abs(again[1] - features[1]).max()) > 0.1
    # A uniform image differs from patch to patch only by its learned positions.
    assert float(jnp.abs(again[1, 0] - again[1, 1]).max()) > 1e-3


SMALL = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 2, "heads": 2}
CHOICES = [
    {},
    {"class_token": True, "registers": 3},
    {"positions": "sincos"},
    {"positions": "none", "class_token": True},
    {"embedding_norm": "patches", "norm": "rms_norm"},
    {"embedding_norm": "tokens", "class_token": True, "patch_bias": False},
    {"activation": "gelu"},
    {"activation": "quick_gelu"},
    {"activation": "swiglu", "bias": False, "mlp_ratio": 1.5},
    {"layer_scale": 0.5},
    {"output_layer": -2},
    {"output_layer": 0},
    {"output_norm": False},
    {"pixels": "clip"},
    {"pixels": "imagenet"},
    {"image_size": 18, "remainder": "drop"},
]


def features(config, images):
    encoder = initialise(build_encoder(config), 0)
    return np.asarray(encoder(jnp.asarray(images), UNROLLED, jnp.dtype("float32")))


def images(size=16):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_formula_counts_the_parameters_of_every_choice(choice):
    config = VisionTransformerConfig(**{**SMALL, **choice})
    leaves = nnx.to_flat_state(nnx.state(build_encoder(config)))
    assert config.parameters() == sum(v.get_value().size for _, v in leaves)


@pytest.mark.parametrize("choice", CHOICES[1:], ids=str)
def test_every_choice_changes_the_features_and_keeps_their_shape(choice):
    config = VisionTransformerConfig(**{**SMALL, **choice})
    found = features(config, images(config.image_size))
    assert found.shape == (2, 16, 16)
    assert np.isfinite(found).all()
    # The two forms of GELU differ by less than 5e-4; rounding by less than 1e-6.
    assert np.abs(found - features(VisionTransformerConfig(**SMALL), images())).max() > 1e-4


def pooling_head(width: int, hidden: int) -> int:
    """Weights of SigLIP's pooling head: probe, attention, norm and MLP, all with biases."""
    attention = 4 * (width * width + width)
    return width + attention + 2 * width + 2 * width * hidden + hidden + width


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        # Vision towers without heads: CLIP L/14 at 336 px has 304,293,888 with its projection
        # (768 × 1024) and the norm of its pooled token (2 × 1024); SigLIP's are published with
        # their pooling heads, and with the norm after the last block, which ours have too.
        (
            {
                "preset": "vit_l14",
                "class_token": True,
                "patch_bias": False,
                "embedding_norm": "tokens",
                "output_norm": False,
            },
            304_293_888 - 768 * 1024 - 2 * 1024,
        ),
        (
            {
                "preset": "vit_l14",
                "image_size": 518,
                "class_token": True,
                "layer_scale": 1.0,
            },
            304_368_640 - 1024,  # DINOv2 L has a mask token too
        ),
        (
            {
                "preset": "vit_l14",
                "mlp_ratio": 2816 / 1024,
                "heads": 8,
                "activation": "swiglu",
                "norm": "rms_norm",
                "bias": False,
                "embedding_norm": "patches",
            },
            309_525_504,  # AIMv2 L/14 at 336 px
        ),
        (
            {
                "image_size": 518,
                "patch_size": 14,
                "width": 1536,
                "layers": 40,
                "heads": 24,
                "mlp_ratio": 4096 / 1536,
                "activation": "swiglu",
                "class_token": True,
                "layer_scale": 1.0,
            },
            1_136_480_768 - 1536,  # DINOv2 g
        ),
        (
            {
                "preset": "vit_l14",
                "image_size": 518,
                "class_token": True,
                "registers": 4,
                "layer_scale": 1.0,
            },
            304_372_736 - 1024,  # DINOv2 L with registers, less its mask token
        ),
        ({"preset": "so400m_14"}, 428_225_600 - pooling_head(1152, 4304)),
        ({"preset": "vit_l16", "image_size": 384}, 316_283_904 - pooling_head(1024, 4096)),
    ],
    ids=[
        "clip_l14_336",
        "dinov2_l14_518",
        "aimv2_l14_336",
        "dinov2_g14_518",
        "dinov2_l14_518_registers",
        "siglip_so400m14_384",
        "siglip_l16_384",
    ],
)
def test_public_shapes_have_their_published_parameter_counts(preset, published):
    assert VisionTransformerConfig(**preset).parameters() == published


@pytest.mark.parametrize("preset", VisionTransformerConfig.presets)
def test_the_formula_counts_the_parameters_of_every_preset(preset):
    config = VisionTransformerConfig.model_validate({"preset": preset})
    leaves = nnx.to_flat_state(nnx.state(build_encoder(config)))
    assert config.parameters() == sum(v.get_value().size for _, v in leaves)


# Dosovitskiy et al. (2021), table 1, and Touvron et al. (2021) for S: with a class token, some with
# a head of classes, to the million.
ROUNDED = {"vit_s16": 22e6, "vit_b16": 86e6, "vit_l16": 307e6, "vit_h14": 632e6}


@pytest.mark.parametrize("preset", ROUNDED)
def test_usual_sizes_have_their_published_millions(preset):
    config = VisionTransformerConfig.model_validate({"preset": preset})
    assert config.parameters() == pytest.approx(ROUNDED[preset], rel=0.02)


def test_another_aspect_gets_interpolated_positions_and_the_same_size_is_untouched():
    config = VisionTransformerConfig(**SMALL, class_token=True)
    encoder = initialise(VisionTransformer(config), 0)
    wide = np.random.default_rng(0).integers(0, 256, (1, 8, 24, 3)).astype(np.uint8)
    assert encoder(jnp.asarray(wide), UNROLLED, jnp.dtype("float32")).shape == (1, 12, 16)
    np.testing.assert_array_equal(encoder.positions_for((4, 4)), encoder.positions[...])
    smooth = VisionTransformer(config.model_copy(update={"antialias": True}))
    nnx.update(smooth, nnx.state(encoder))
    table = encoder.positions[...]
    expected = interpolate_positions(table, (4, 4), (2, 6), first=1, antialias=True)
    np.testing.assert_array_equal(smooth.positions_for((2, 6)), expected)
    assert not np.allclose(encoder.positions_for((2, 6)), expected)


def test_states_are_what_the_chosen_layer_is_taken_from():
    config = VisionTransformerConfig(**SMALL, class_token=True, registers=1, output_layer=1)
    encoder = initialise(VisionTransformer(config), 0)
    pixels = encoder.normalise(jnp.asarray(images()))
    states = encoder.states(pixels, UNROLLED)
    assert len(states) == 3
    expected = encoder.output(states[1])[:, 2:]
    np.testing.assert_allclose(encoder.features(pixels, UNROLLED), expected, atol=1e-6)
    scanned = encoder.states(pixels, Form("scanned"))
    np.testing.assert_allclose(scanned[2], states[2], atol=1e-5)


def test_fused_towers_stand_side_by_side():
    first = VisionTransformerConfig(**SMALL)
    second = VisionTransformerConfig(**{**SMALL, "width": 8}, class_token=True, pixels="clip")
    fused = FusedEncoderConfig(first=first, second=second)
    encoder = initialise(build_encoder(fused), 0)
    found = np.asarray(encoder(jnp.asarray(images()), UNROLLED, jnp.dtype("float32")))
    assert found.shape == (2, 16, 24) == (2, fused.patches, fused.width)
    alone = np.asarray(encoder.second(jnp.asarray(images()), UNROLLED, jnp.dtype("float32")))
    np.testing.assert_array_equal(found[..., 16:], alone)
    leaves = nnx.to_flat_state(nnx.state(encoder))
    assert fused.parameters() == sum(v.get_value().size for _, v in leaves)


def test_a_mask_hides_what_it_bars():
    encoder = initialise(VisionTransformer(VisionTransformerConfig(**SMALL)), 0)
    causal = jnp.tril(jnp.ones((2, 16, 16), bool))
    pixels = np.array(encoder.normalise(jnp.asarray(images())))
    before = np.asarray(encoder.features(jnp.asarray(pixels), UNROLLED, causal))
    pixels[:, 12:, 12:] = 0  # the last patch
    after = encoder.features(jnp.asarray(pixels), UNROLLED, causal)
    np.testing.assert_allclose(before[:, :15], after[:, :15], atol=1e-6)
    assert float(jnp.abs(before[:, 15] - after[:, 15]).max()) > 1e-3
