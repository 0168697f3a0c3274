from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm1_jax.config import (
    AttentionPoolingConfig,
    AveragePoolingConfig,
    CAbstractorConfig,
    VisionTransformerConfig,
)
from mm1_jax.connectors import (
    adaptive_average_pool,
    build_connector,
    depthwise_convolution,
    pooling_matrix,
)
from mm1_jax.initialisation import initialise

ENCODER = VisionTransformerConfig(image_size=12, patch_size=4, width=8, heads=2)
FEATURES = np.random.default_rng(0).normal(size=(3, 9, 8)).astype(np.float32)


def module_and_weights(config, outputs=10):
    """The connector with every weight drawn anew, so that no bias is 0 and no scale is 1."""
    module = initialise(build_connector(config, ENCODER, outputs), 0)
    draws = np.random.default_rng(1)
    state = nnx.state(module)
    for _, variable in nnx.to_flat_state(state):
        variable.set_value(jnp.asarray(draws.normal(size=variable.get_value().shape), jnp.float32))
    nnx.update(module, state)
    flat = nnx.to_flat_state(state)
    return module, {"/".join(map(str, p)): np.asarray(v.get_value(), np.float64) for p, v in flat}


def linear(x, w, name):
    return x @ w[f"{name}/kernel"] + w.get(f"{name}/bias", 0.0)


def norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return normal * w[f"{name}/scale"] + w[f"{name}/bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


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
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = queries[:, head] @ keys[:, :, head].transpose(0, 2, 1) / np.sqrt(4)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(shares / shares.sum(-1, keepdims=True) @ values[:, :, head])
    expected = linear(linear(np.concatenate(heads, -1), w, "out"), w, "projection")
    assert expected.shape == (3, 5, 10)
    np.testing.assert_allclose(module(jnp.asarray(FEATURES)), expected, rtol=1e-3, atol=1e-3)


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
