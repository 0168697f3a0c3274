from __future__ import annotations

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from pydantic import ValidationError

from mm1_jax.config.connector import (
    AttentionPoolingConfig,
    AveragePoolingConfig,
    CAbstractorConfig,
    LinearConfig,
    MlpConfig,
    PerceiverResamplerConfig,
    PixelUnshuffleConfig,
)
from mm1_jax.config.encoder import FusedEncoderConfig, VisionTransformerConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.model.connectors import (
    CONNECTORS,
    adaptive_average_pool,
    build_connector,
    depthwise_convolution,
    pixel_unshuffle,
    pooling_matrix,
)
from mm1_jax.model.initialisation import initialise

EVERY_KIND = [
    AveragePoolingConfig(tokens=4),
    AttentionPoolingConfig(tokens=5, heads=2),
    LinearConfig(),
    MlpConfig(tokens=9),
    PixelUnshuffleConfig(tokens=1),
    PerceiverResamplerConfig(tokens=5, depth=2, heads=2, head_width=3),
    CAbstractorConfig(tokens=4, width=12, depth=2),
]
ENCODER = VisionTransformerConfig(image_size=12, patch_size=4, width=8, heads=2)
FEATURES = np.random.default_rng(0).normal(size=(3, 9, 8)).astype(np.float32)


def module_and_weights(config, outputs=10, encoder=ENCODER):
    """The connector with every weight drawn anew, so that no bias is 0 and no scale is 1."""
    module = initialise(build_connector(config, encoder, outputs), 0)
    draws = np.random.default_rng(1)
    state = nnx.state(module)
    for _, variable in nnx.to_flat_state(state):
        variable.set_value(jnp.asarray(draws.normal(size=variable.get_value().shape), jnp.float32))
    nnx.update(module, state)
    flat = nnx.to_flat_state(state)
    return module, {"/".join(map(str, p)): np.asarray(v.get_value(), np.float64) for p, v in flat}


def linear(x, w, name):
    return x @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0.0)


def norm(x, w, name, eps=1e-6):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return normal * w[f"{name}/scale"] + w[f"{name}/bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2


def attention(queries, keys, values, heads):
    """Of [tokens, c] or [n, tokens, c]; the columns are cut into heads."""
    outs = []
    for head in np.split(np.arange(queries.shape[-1]), heads):
        q, k, v = (x[..., head] for x in (queries, keys, values))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(len(head))
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        outs.append(shares / shares.sum(-1, keepdims=True) @ v)
    return np.concatenate(outs, -1)


def pool(x, grid, side):
    """Average pooling of [n, grid², c] over the windows of torch's AdaptiveAvgPool2d."""
    square = x.reshape(len(x), grid, grid, -1)
    windows = [(k * grid // side, int(np.ceil((k + 1) * grid / side))) for k in range(side)]
    rows = [square[:, a:b, c:d].mean((1, 2)) for a, b in windows for c, d in windows]
    return np.stack(rows, axis=1)


def test_average_pooling_equals_numpy():
    module, w = module_and_weights(AveragePoolingConfig(tokens=4))
    expected = linear(pool(FEATURES, 3, 2), w, "projection")
    np.testing.assert_allclose(module(jnp.asarray(FEATURES)), expected, rtol=1e-4, atol=1e-4)


def test_attention_pooling_equals_numpy():
    module, w = module_and_weights(AttentionPoolingConfig(tokens=5, heads=2))
    queries = linear(norm(w["queries"], w, "query_norm"), w, "query")
    keys, values = np.split(linear(norm(FEATURES, w, "feature_norm"), w, "key_value"), 2, axis=-1)
    expected = linear(linear(attention(queries, keys, values, 2), w, "out"), w, "projection")
    assert expected.shape == (3, 5, 10)
    np.testing.assert_allclose(module(jnp.asarray(FEATURES)), expected, rtol=1e-3, atol=1e-3)


def test_linear_equals_numpy():
    module, w = module_and_weights(LinearConfig())
    expected = linear(FEATURES, w, "projection")
    np.testing.assert_allclose(module(jnp.asarray(FEATURES)), expected, rtol=1e-4, atol=1e-4)


def test_mlp_equals_numpy():
    module, w = module_and_weights(MlpConfig())
    expected = linear(gelu(linear(FEATURES, w, "readout_in")), w, "readout_out")
    np.testing.assert_allclose(module(jnp.asarray(FEATURES)), expected, rtol=1e-4, atol=1e-4)


def test_pixel_unshuffle_equals_numpy():
    module, w = module_and_weights(PixelUnshuffleConfig(tokens=1))
    x = norm(FEATURES.reshape(3, 1, 72), w, "norm", eps=1e-5)  # all nine patches, row by row
    expected = linear(gelu(linear(x, w, "readout_in")), w, "readout_out")
    np.testing.assert_allclose(module(jnp.asarray(FEATURES)), expected, rtol=1e-3, atol=1e-3)


def test_unshuffled_neighbours_stand_in_the_known_order():
    found = pixel_unshuffle(jnp.arange(16.0).reshape(1, 16, 1), 2)[0]
    known = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    np.testing.assert_array_equal(found, known)


def test_perceiver_resampler_equals_numpy():
    module, w = module_and_weights(PerceiverResamplerConfig(tokens=5, heads=2, head_width=3))
    latents = np.broadcast_to(w["latents"], (3, 5, 8))
    for name in ("layers/0", "layers/1"):
        media = norm(FEATURES, w, f"{name}/feature_norm", eps=1e-5)
        normal = norm(latents, w, f"{name}/latent_norm", eps=1e-5)
        seen = np.concatenate([media, normal], axis=1)
        keys, values = np.split(linear(seen, w, f"{name}/key_value"), 2, axis=-1)
        found = attention(linear(normal, w, f"{name}/query"), keys, values, heads=2)
        latents = latents + linear(found, w, f"{name}/out")
        hidden = linear(norm(latents, w, f"{name}/mlp_norm", eps=1e-5), w, f"{name}/mlp_in")
        latents = latents + linear(gelu(hidden), w, f"{name}/mlp_out")
    expected = linear(norm(latents, w, "norm", eps=1e-5), w, "projection")
    found = np.asarray(module(jnp.asarray(FEATURES)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_c_abstractor_equals_numpy():
    module, w = module_and_weights(CAbstractorConfig(tokens=4, width=12, depth=1))

    def convolve(x, kernel):
        n, patches, channels = x.shape
        grid = round(patches**0.5)
        padded = np.zeros((n, grid + 2, grid + 2, channels))
        padded[:, 1:-1, 1:-1] = x.reshape(n, grid, grid, channels)
        out = np.zeros((n, grid, grid, channels))
        for row in range(grid):
            for column in range(grid):
                window = padded[:, row : row + 3, column : column + 3]
                out[:, row, column] = (window * kernel).sum((1, 2))
        return out.reshape(n, patches, channels)

    def silu(x):
        return x * sigmoid(x)

    def block(x, name):
        y = silu(norm(linear(x, w, f"{name}/conv_in"), w, f"{name}/norm_in"))
        y = silu(norm(convolve(y, w[f"{name}/depthwise"]), w, f"{name}/norm_depthwise"))
        squeezed = silu(linear(y.mean(1, keepdims=True), w, f"{name}/squeeze"))
        y = y * sigmoid(linear(squeezed, w, f"{name}/excite"))
        y = norm(linear(y, w, f"{name}/conv_out"), w, f"{name}/norm_out")
        if f"{name}/shortcut/kernel" in w:
            x = norm(linear(x, w, f"{name}/shortcut"), w, f"{name}/shortcut_norm")
        return silu(x + y)

    x = block(FEATURES + w["positions"], "before/0")
    x = block(pool(x, 3, 2), "after/0")
    expected = linear(silu(linear(x, w, "readout_in")), w, "readout_out")
    found = np.asarray(module(jnp.asarray(FEATURES)))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_depthwise_convolution_sees_zeros_beyond_the_border():
    ones = jnp.ones((1, 9, 1))
    out = depthwise_convolution(ones, jnp.ones((3, 3, 1)))[0, :, 0]
    np.testing.assert_array_equal(out, [4, 6, 4, 6, 9, 6, 4, 6, 4])


def test_gradients_of_the_depthwise_convolution_equal_finite_differences():
    draws = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(draws.normal(size=(2, 16, 3)))
        kernel = jnp.asarray(draws.normal(size=(3, 3, 3)))
        own = jax.jit(depthwise_convolution)
        check_grads(own, (x, kernel), order=1, modes=["rev"], atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(
    ("grid", "side", "windows"),
    [
        (24, 12, [(2 * k, 2 * k + 2) for k in range(12)]),
        (24, 8, [(3 * k, 3 * k + 3) for k in range(8)]),
        (16, 12, [(4 * (k // 3) + k % 3, 4 * (k // 3) + k % 3 + 2) for k in range(12)]),
        (27, 12, [(9 * (k // 4) + (0, 2, 4, 6)[k % 4],) for k in range(12)]),
    ],
)
def test_adaptive_windows_have_the_known_starts_and_ends(grid, side, windows):
    rows = pooling_matrix(grid, side).reshape(side, side, grid, grid).sum((1, 3)) / side
    for row, window in zip(rows, windows, strict=True):
        used = np.flatnonzero(row)
        expected = window if len(window) == 2 else (window[0], window[0] + 3)
        assert (used[0], used[-1] + 1) == expected
        np.testing.assert_allclose(row[used], 1 / len(used), rtol=1e-5)


def test_adaptive_pooling_equals_a_loop_over_windows():
    x = np.random.default_rng(0).normal(size=(2, 25, 3)).astype(np.float32)
    np.testing.assert_allclose(adaptive_average_pool(x, 5, 3), pool(x, 5, 3), atol=1e-6)


def test_every_kind_stands_in_the_list_of_this_file():
    assert {config.kind for config in EVERY_KIND} == set(CONNECTORS)


@pytest.mark.parametrize("config", EVERY_KIND, ids=lambda c: c.kind)
@pytest.mark.parametrize(
    "encoder",
    [ENCODER, FusedEncoderConfig(first=ENCODER, second=ENCODER)],
    ids=["vit", "fused"],
)
def test_every_kind_works_in_bfloat16_behind_any_encoder(config, encoder):
    module, _ = module_and_weights(config, encoder=encoder)
    features = np.concatenate([FEATURES, FEATURES[::-1]], -1)[..., : encoder.width]
    exact = np.asarray(module(jnp.asarray(features)))
    found = module(jnp.asarray(features, jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    assert found.shape == exact.shape == (3, config.tokens or 9, 10)
    difference = np.abs(np.asarray(found, np.float32) - exact)
    assert difference.max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("connector", "nearest"),
    [
        ({"kind": "average_pooling", "tokens": 5}, 4),
        ({"kind": "c_abstractor", "tokens": 17}, 16),
        ({"kind": "linear", "tokens": 4}, 36),
        ({"kind": "mlp", "tokens": 37}, 36),
        ({"kind": "pixel_unshuffle", "tokens": 16}, 9),
        ({"kind": "pixel_unshuffle", "tokens": 30}, 36),
    ],
    ids=str,
)
def test_a_token_count_out_of_reach_names_the_nearest(connector, nearest):
    with pytest.raises(
        ValidationError, match=rf"from 36 patches .* nearest reachable: {nearest}\b"
    ):
        TrainConfig.model_validate({"encoder": {"image_size": 48}, "connector": connector})


@pytest.mark.parametrize("config", EVERY_KIND, ids=lambda c: c.kind)
def test_every_token_count_that_is_called_reachable_is_reached(config):
    counts = config.reachable_tokens(9)
    assert counts is None or counts
    for tokens in counts or (1, 7, 12):
        module = initialise(
            build_connector(config.model_copy(update={"tokens": tokens}), ENCODER, 10), 0
        )
        assert jax.eval_shape(module, FEATURES).shape == (3, tokens, 10)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_without_a_token_count_there_are_as_many_as_patches(kind):
    def config(image_size):
        sections = {"encoder": {"image_size": image_size}, "connector": {"kind": kind}}
        return TrainConfig.model_validate(sections)

    assert [config(size).image_tokens for size in (32, 64)] == [16, 64]
    assert config(32).sequence_length == 128 + 8 * 16


# -- the same against public code, or its structure written down again in PyTorch ------------------


def close_to_torch(found, expected):
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def put(torch, layer, w, name):
    """The weights of our linear layer or norm in a torch one; 1x1 convolutions too."""
    weight = w[f"{name}/kernel"].T if f"{name}/kernel" in w else w[f"{name}/scale"]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight).reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(w[f"{name}/bias"]))
    return layer


@pytest.mark.slow
class TestAgainstTorch:
    def test_mlp_equals_llava(self):
        torch = pytest.importorskip("torch")
        llava = pytest.importorskip("transformers.models.llava.modeling_llava")
        module, w = module_and_weights(MlpConfig())
        twin = llava.LlavaMultiModalProjector(
            SimpleNamespace(
                vision_config=SimpleNamespace(hidden_size=8),
                text_config=SimpleNamespace(hidden_size=10),
                vision_feature_layer=-2,
                projector_hidden_act="gelu",
                multimodal_projector_bias=True,
            )
        )
        put(torch, twin.linear_1, w, "readout_in")
        put(torch, twin.linear_2, w, "readout_out")
        close_to_torch(module(jnp.asarray(FEATURES)), twin(torch.tensor(FEATURES)))

    def test_pixel_unshuffle_equals_internvl(self):
        torch = pytest.importorskip("torch")
        internvl = pytest.importorskip("transformers.models.internvl.modeling_internvl")
        encoder = VisionTransformerConfig(image_size=24, patch_size=4, width=8, heads=2)
        features = np.random.default_rng(2).normal(size=(3, 36, 8)).astype(np.float32)
        module, w = module_and_weights(PixelUnshuffleConfig(tokens=9), encoder=encoder)
        twin = internvl.InternVLMultiModalProjector(
            SimpleNamespace(
                vision_config=SimpleNamespace(hidden_size=8),
                text_config=SimpleNamespace(hidden_size=10),
                downsample_ratio=0.5,
                projector_hidden_act="gelu",
            )
        )
        put(torch, twin.layer_norm, w, "norm")
        put(torch, twin.linear_1, w, "readout_in")
        put(torch, twin.linear_2, w, "readout_out")
        square = torch.tensor(features).reshape(3, 6, 6, 8)
        joined = internvl.InternVLModel.pixel_shuffle(None, square, 0.5)
        close_to_torch(module(jnp.asarray(features)), twin(joined.reshape(3, 9, 32)))

    def test_perceiver_resampler_equals_flamingos(self):
        torch = pytest.importorskip("torch")
        from torch import nn

        module, w = module_and_weights(PerceiverResamplerConfig(tokens=5, heads=2, head_width=3))
        media = torch.tensor(FEATURES)
        latents = torch.tensor(w["latents"], dtype=torch.float32).repeat(3, 1, 1)
        for name in ("layers/0", "layers/1"):
            normal = put(torch, nn.LayerNorm(8), w, f"{name}/latent_norm")(latents)
            seen = put(torch, nn.LayerNorm(8), w, f"{name}/feature_norm")(media)
            seen = torch.cat([seen, normal], dim=1)
            query = put(torch, nn.Linear(8, 6, bias=False), w, f"{name}/query")(normal)
            both = put(torch, nn.Linear(8, 12, bias=False), w, f"{name}/key_value")(seen)
            heads = [x.unflatten(-1, (2, 3)).transpose(1, 2) for x in (query, *both.chunk(2, -1))]
            found = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            latents = latents + put(torch, nn.Linear(6, 8, bias=False), w, f"{name}/out")(found)
            feed_forward = nn.Sequential(
                put(torch, nn.LayerNorm(8), w, f"{name}/mlp_norm"),
                put(torch, nn.Linear(8, 32, bias=False), w, f"{name}/mlp_in"),
                nn.GELU(),
                put(torch, nn.Linear(32, 8, bias=False), w, f"{name}/mlp_out"),
            )
            latents = latents + feed_forward(latents)
        final = nn.Sequential(
            put(torch, nn.LayerNorm(8), w, "norm"), put(torch, nn.Linear(8, 10), w, "projection")
        )
        close_to_torch(module(jnp.asarray(FEATURES)), final(latents))

    def test_c_abstractor_equals_honeybees(self):
        torch = pytest.importorskip("torch")
        from torch import nn

        module, w = module_and_weights(CAbstractorConfig(tokens=4, width=12, depth=2))

        def convolution(inputs, outputs, name, bias=False):
            return put(torch, nn.Conv2d(inputs, outputs, 1, bias=bias), w, name)

        def norm(x, name):  # over channels of [n, c, y, x]
            layer = put(torch, nn.LayerNorm(12, eps=1e-6), w, name)
            return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

        def block(x, name):  # RegNet's bottleneck as timm has it
            silu, inputs = nn.functional.silu, x.shape[1]
            y = silu(norm(convolution(inputs, 12, f"{name}/conv_in")(x), f"{name}/norm_in"))
            depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
            kernel = torch.tensor(w[f"{name}/depthwise"], dtype=torch.float32)
            depthwise.weight.data = kernel.permute(2, 0, 1)[:, None]
            y = silu(norm(depthwise(y), f"{name}/norm_depthwise"))
            squeezed = y.mean((2, 3), keepdim=True)
            squeezed = convolution(12, inputs // 4, f"{name}/squeeze", bias=True)(squeezed)
            gate = convolution(inputs // 4, 12, f"{name}/excite", bias=True)(silu(squeezed))
            y = convolution(12, 12, f"{name}/conv_out")(y * gate.sigmoid())
            y = norm(y, f"{name}/norm_out")
            if inputs != 12:
                x = norm(convolution(inputs, 12, f"{name}/shortcut")(x), f"{name}/shortcut_norm")
            return silu(x + y)

        x = torch.tensor(FEATURES) + torch.tensor(w["positions"], dtype=torch.float32)
        x = x.reshape(3, 3, 3, 8).permute(0, 3, 1, 2)
        x = block(block(x, "before/0"), "before/1")
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        x = block(block(x, "after/0"), "after/1").flatten(2).transpose(1, 2)
        readout = nn.Sequential(
            put(torch, nn.Linear(12, 10), w, "readout_in"),
            nn.SiLU(),
            put(torch, nn.Linear(10, 10), w, "readout_out"),
        )
        close_to_torch(module(jnp.asarray(FEATURES)), readout(x))
