"""Connectors: patch features → a fixed number of image tokens of the language model's width.

A new one = a config class in `config/connector.py` (fields, reachable token counts, formulas), a
module class here, and a line in `CONNECTORS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm1_jax.config.connector import (
    AnyEncoder,
    AttentionPoolingConfig,
    AveragePoolingConfig,
    CAbstractorConfig,
    ConnectorConfig,
    LinearConfig,
    MlpConfig,
    PerceiverResamplerConfig,
    PixelUnshuffleConfig,
)
from mm1_jax.model.initialisation import Normal, parameter
from mm1_jax.model.layers import LayerNorm, Linear, attend


class AveragePooling(nnx.Module):
    """Adaptive average pooling to a square grid, then a linear projection (MM1 §3.2)."""

    def __init__(self, config: AveragePoolingConfig, encoder: AnyEncoder, outputs: int):
        self.windows = (encoder.grid, math.isqrt(config.tokens))
        self.projection = Linear(encoder.width, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, tokens, outputs]."""
        return self.projection(adaptive_average_pool(features, *self.windows))


class AttentionPooling(nnx.Module):
    """`tokens` learned queries attend to the patches, then a linear projection (MM1 §3.2).

    One norm on either side, four projections with bias; the layout is ours, the paper gives none.
    """

    def __init__(self, config: AttentionPoolingConfig, encoder: AnyEncoder, outputs: int):
        width = encoder.width
        self.heads = config.heads
        self.queries = parameter((config.tokens, width), Normal(1.0))
        self.query_norm = LayerNorm(width)
        self.feature_norm = LayerNorm(width)
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.out = Linear(width, width)
        self.projection = Linear(width, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, tokens, outputs]."""
        n, patches, width = features.shape
        head = width // self.heads
        learned = self.queries[...].astype(features.dtype)
        queries = self.query(self.query_norm(learned)).reshape(1, -1, self.heads, head)
        queries = jnp.broadcast_to(queries, (n, *queries.shape[1:]))
        key_value = self.key_value(self.feature_norm(features))
        keys, values = (
            part.reshape(n, patches, self.heads, head) for part in jnp.split(key_value, 2, axis=-1)
        )
        return self.projection(self.out(attend(queries, keys, values)))


class LinearProjection(nnx.Module):
    """One linear layer from each patch to a token (LLaVA)."""

    def __init__(self, config: LinearConfig, encoder: AnyEncoder, outputs: int):
        self.projection = Linear(encoder.width, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, patches, outputs]."""
        return self.projection(features)


class MlpProjection(nnx.Module):
    """Linear, GELU, linear from each patch to a token (LLaVA-1.5's mlp2x_gelu)."""

    def __init__(self, config: MlpConfig, encoder: AnyEncoder, outputs: int):
        self.readout_in = Linear(encoder.width, outputs)
        self.readout_out = Linear(outputs, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, patches, outputs]."""
        return self.readout_out(jax.nn.gelu(self.readout_in(features), approximate=False))


class PixelUnshuffle(nnx.Module):
    """Each square of neighbouring patches becomes one token, then norm and MLP (InternVL)."""

    def __init__(self, config: PixelUnshuffleConfig, encoder: AnyEncoder, outputs: int):
        self.side = math.isqrt(config.tokens)
        self.norm = LayerNorm(config.joined(encoder), eps=1e-5)
        self.readout_in = Linear(config.joined(encoder), outputs)
        self.readout_out = Linear(outputs, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, tokens, outputs]."""
        x = self.norm(pixel_unshuffle(features, self.side))
        return self.readout_out(jax.nn.gelu(self.readout_in(x), approximate=False))


def pixel_unshuffle(x: jax.Array, side: int) -> jax.Array:
    """[n, grid * grid, width] → [n, side * side, (grid / side)² * width].

    Token (Y, X) holds its patches row by row, each with all its channels.
    """
    n, patches, width = x.shape
    factor = math.isqrt(patches) // side
    squares = x.reshape(n, side, factor, side, factor, width).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(n, side * side, factor * factor * width)


class PerceiverResampler(nnx.Module):
    """`tokens` learned latents attend to the patches and to themselves, layer after layer.

    Flamingo (Alayrac et al., 2022), with its projections without bias; no position is added, so
    the order of the patches is known only from the encoder's features. A linear projection ends it.
    """

    def __init__(self, config: PerceiverResamplerConfig, encoder: AnyEncoder, outputs: int):
        width = encoder.width
        self.latents = parameter((config.tokens, width), Normal(1.0))
        self.layers = nnx.List([ResamplerLayer(config, width) for _ in range(config.depth)])
        self.norm = LayerNorm(width, eps=1e-5)
        self.projection = Linear(width, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, tokens, outputs]."""
        learned = self.latents[...].astype(features.dtype)
        latents = jnp.broadcast_to(learned, (features.shape[0], *learned.shape))
        for layer in self.layers:
            latents = layer(latents, features)
        return self.projection(self.norm(latents))


class ResamplerLayer(nnx.Module):
    """Attention of the latents to patches and latents, then an MLP, each added to the latents."""

    def __init__(self, config: PerceiverResamplerConfig, width: int):
        self.heads, inner = config.heads, config.heads * config.head_width
        self.latent_norm = LayerNorm(width, eps=1e-5)
        self.feature_norm = LayerNorm(width, eps=1e-5)
        self.query = Linear(width, inner, bias=False)
        self.key_value = Linear(width, 2 * inner, bias=False)
        self.out = Linear(inner, width, bias=False)
        self.mlp_norm = LayerNorm(width, eps=1e-5)
        self.mlp_in = Linear(width, 4 * width, bias=False)
        self.mlp_out = Linear(4 * width, width, bias=False)

    def __call__(self, latents: jax.Array, features: jax.Array) -> jax.Array:
        """[n, tokens, width] and [n, patches, width] → [n, tokens, width]."""
        normal = self.latent_norm(latents)
        seen = jnp.concatenate([self.feature_norm(features), normal], axis=1)
        queries, key_value = self.query(normal), self.key_value(seen)
        queries, keys, values = (
            x.reshape(*x.shape[:2], self.heads, -1)
            for x in (queries, *jnp.split(key_value, 2, axis=-1))
        )
        latents = latents + self.out(attend(queries, keys, values))
        hidden = jax.nn.gelu(self.mlp_in(self.mlp_norm(latents)), approximate=False)
        return latents + self.mlp_out(hidden)


class CAbstractor(nnx.Module):
    """Convolution blocks, adaptive average pooling, convolution blocks, two-layer read-out.

    Honeybee (Cha et al., 2024): learned positions are added first; blocks are RegNet bottlenecks.
    """

    def __init__(self, config: CAbstractorConfig, encoder: AnyEncoder, outputs: int):
        self.windows = (encoder.grid, math.isqrt(config.tokens))
        self.positions = parameter((encoder.patches, encoder.width), Normal(0.02))
        widths = [encoder.width] + [config.width] * (config.depth - 1)
        self.before = nnx.List([RegNetBlock(width, config.width) for width in widths])
        self.after = nnx.List(
            [RegNetBlock(config.width, config.width) for _ in range(config.depth)]
        )
        self.readout_in = Linear(config.width, outputs)
        self.readout_out = Linear(outputs, outputs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[n, patches, width] → [n, tokens, outputs]."""
        x = features + self.positions[...].astype(features.dtype)
        for block in self.before:
            x = block(x)
        x = adaptive_average_pool(x, *self.windows)
        for block in self.after:
            x = block(x)
        return self.readout_out(jax.nn.silu(self.readout_in(x)))


class RegNetBlock(nnx.Module):
    """1×1 → depthwise 3×3 → squeeze-excite → 1×1, with a residual (Radosavovic et al., 2020).

    Stride 1, SiLU, channel LayerNorm; convolutions without bias, as Honeybee uses it.
    """

    def __init__(self, inputs: int, width: int):
        self.conv_in = Linear(inputs, width, bias=False)
        self.norm_in = LayerNorm(width)
        self.depthwise = parameter((3, 3, width), Normal(1 / 3))
        self.norm_depthwise = LayerNorm(width)
        self.squeeze = Linear(width, max(1, round(inputs / 4)))
        self.excite = Linear(max(1, round(inputs / 4)), width)
        self.conv_out = Linear(width, width, bias=False)
        self.norm_out = LayerNorm(width)
        self.shortcut = Linear(inputs, width, bias=False) if inputs != width else None
        self.shortcut_norm = LayerNorm(width) if inputs != width else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[n, grid * grid, inputs] → [n, grid * grid, width]."""
        y = jax.nn.silu(self.norm_in(self.conv_in(x)))
        y = depthwise_convolution(y, self.depthwise[...].astype(y.dtype))
        y = jax.nn.silu(self.norm_depthwise(y))
        gate = self.excite(jax.nn.silu(self.squeeze(y.mean(1, keepdims=True))))
        y = self.norm_out(self.conv_out(y * jax.nn.sigmoid(gate)))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return jax.nn.silu(x + y)


@jax.custom_vjp
def depthwise_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Each channel with its own 3×3 kernel, zero-padded: [n, grid * grid, c], [3, 3, c] → as x."""
    # Nine shifted products: XLA's CPU has no fast path for grouped convolutions (ten times slower).
    products = [
        shifted * weight
        for shifted, weight in zip(neighbours(x), kernel.reshape(9, -1), strict=True)
    ]
    return sum(products[1:], products[0])


def _convolve(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_convolution(x, kernel), (x, kernel)


def _convolve_back(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # By hand, because the derivative of nine slices is nine padded arrays: a third slower.
    x, kernel = kept
    to_kernel = [jnp.sum(shifted * gradient, (0, 1)) for shifted in neighbours(x)]
    to_x = depthwise_convolution(gradient, kernel[::-1, ::-1])
    return to_x, jnp.stack(to_kernel).reshape(kernel.shape)


depthwise_convolution.defvjp(_convolve, _convolve_back)


def neighbours(x: jax.Array) -> list[jax.Array]:
    """For each of the 3 × 3 places around a patch, row by row, what stands there: as x.

    x [n, grid * grid, c]; zeros beyond the border.
    """
    n, patches, channels = x.shape
    grid = math.isqrt(patches)
    padded = jnp.pad(x.reshape(n, grid, grid, channels), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        padded[:, row : row + grid, column : column + grid].reshape(x.shape)
        for row in range(3)
        for column in range(3)
    ]


def adaptive_average_pool(x: jax.Array, grid: int, side: int) -> jax.Array:
    """[n, grid * grid, width] → [n, side * side, width], the mean over adaptive windows."""
    pool = jnp.asarray(pooling_matrix(grid, side), x.dtype)
    return jnp.einsum("tp,npw->ntw", pool, x)


def pooling_matrix(grid: int, side: int) -> np.ndarray:
    """The weights [side * side, grid * grid] of adaptive average pooling.

    Output row k averages the input rows ⌊k·grid/side⌋ … ⌈(k+1)·grid/side⌉ - 1, likewise for
    columns; windows overlap where `side` does not divide `grid`.
    """
    rows = np.zeros((side, grid))
    for k in range(side):
        start, stop = k * grid // side, -(-(k + 1) * grid // side)
        rows[k, start:stop] = 1 / (stop - start)
    return np.kron(rows, rows).astype(np.float32)


CONNECTORS: dict[str, Callable[..., nnx.Module]] = {
    "average_pooling": AveragePooling,
    "attention_pooling": AttentionPooling,
    "linear": LinearProjection,
    "mlp": MlpProjection,
    "pixel_unshuffle": PixelUnshuffle,
    "perceiver_resampler": PerceiverResampler,
    "c_abstractor": CAbstractor,
}


def build_connector(config: ConnectorConfig, encoder: AnyEncoder, outputs: int) -> nnx.Module:
    """The module of the config's kind; `outputs` is the language model's width."""
    return CONNECTORS[config.kind](config, encoder, outputs)
