"""Image encoders: pixels → one vector per patch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config.connector import AnyEncoder
from mm1_jax.config.encoder import FusedEncoderConfig, VisionTransformerConfig
from mm1_jax.images.preprocessing import MEAN_AND_STD
from mm1_jax.model.initialisation import Constant, Normal, parameter, stack
from mm1_jax.model.layers import Attention, Form, LayerNorm, Linear, RMSNorm, attend, run_layers
from mm1_jax.model.positions import Grid, interpolate_positions, sincos_positions
from mm1_jax.scale.sharding import BATCH, cut_along

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # Radford et al., 2021
}


class VisionTransformer(nnx.Module):
    """ViT with pre-norm blocks (Dosovitskiy et al., 2021), as its config says.

    Tokens are class token, registers, patches, as far as there are any; positions are added to
    class token and patches, not to registers. An image of another size or aspect than the config's
    gets interpolated positions.
    """

    def __init__(self, config: VisionTransformerConfig):
        self.config = config
        width = config.width
        pixels = 3 * config.patch_size**2
        self.patch_embedding = Linear(pixels, width, bias=config.patch_bias)
        self.class_token = parameter((width,), Normal(0.02)) if config.class_token else None
        self.registers = (
            parameter((config.registers, width), Normal(0.02)) if config.registers else None
        )
        self.positions = (
            parameter((config.patches + config.class_token, width), Normal(0.02))
            if config.positions == "learned"
            else None
        )
        self.embedding_norm = None if config.embedding_norm == "none" else build_norm(config)
        self.blocks = stack(EncoderBlock(config), config.layers)
        self.norm = build_norm(config) if config.output_norm else None

    def __call__(
        self, images: jax.Array, form: Form, dtype: jnp.dtype, mask: jax.Array | None = None
    ) -> jax.Array:
        """Images uint8 [n, height, width, 3] → features [n, patches, width] of `dtype`.

        Those of `output_layer`, without class token and registers. mask as for `features`.
        """
        return self.features(self.normalise(images).astype(dtype), form, mask)

    def normalise(self, images: jax.Array) -> jax.Array:
        """uint8 [n, height, width, 3] → float32 with the mean and deviation of the config."""
        if self.config.pixels == "half":
            return images.astype(jnp.float32) / 127.5 - 1
        mean, std = (jnp.asarray(row, jnp.float32) for row in MEAN_AND_STD[self.config.pixels])
        return (images.astype(jnp.float32) / 255 - mean) / std

    def features(self, pixels: jax.Array, form: Form, mask: jax.Array | None = None) -> jax.Array:
        """Normalised pixels [n, height, width, 3] → [n, patches, width].

        mask bool [n, tokens, tokens], True where a token may look; without one, everywhere.
        """
        x = cut_along(self.embed(pixels), BATCH)
        if (run := self.config.layers_run) == self.config.layers:
            blocks = self.blocks
        else:
            graphdef, parameters = nnx.split(self.blocks)
            blocks = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[:run], parameters))

        def layer(block: EncoderBlock, x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return cut_along(block(x, mask, form.attention), BATCH), None

        if run:
            x, _ = run_layers(blocks, form, layer, x)
        return self.output(x)[:, self.config.extra_tokens :]

    def states(self, pixels: jax.Array, form: Form) -> list[jax.Array]:
        """What the embeddings and each block give, all tokens: layers + 1 of [n, tokens, width]."""
        x = self.embed(pixels)

        def layer(block: EncoderBlock, x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            x = cut_along(block(x, None, form.attention), BATCH)
            return x, x

        _, states = run_layers(self.blocks, form, layer, x)
        return [x, *states]

    def output(self, x: jax.Array) -> jax.Array:
        """A block's [n, tokens, width] → the same, under the output norm if there is one."""
        return x if self.norm is None else self.norm(x)

    def embed(self, pixels: jax.Array) -> jax.Array:
        """Normalised pixels [n, height, width, 3] → what the first block sees."""
        config, patch = self.config, self.config.patch_size
        n, height, width, _ = pixels.shape
        grid = (height // patch, width // patch)
        if config.remainder == "drop":
            pixels = pixels[:, : grid[0] * patch, : grid[1] * patch]
        x = self.patch_embedding(patchify(pixels, patch))
        if self.embedding_norm is not None and config.embedding_norm == "patches":
            x = self.embedding_norm(x)
        if self.class_token is not None:
            token = self.class_token[...].astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(token, (n, 1, x.shape[-1])), x], axis=1)
        if (positions := self.positions_for(grid)) is not None:
            x = x + positions.astype(x.dtype)
        if self.registers is not None:
            registers = jnp.broadcast_to(
                self.registers[...].astype(x.dtype), (n, config.registers, x.shape[-1])
            )
            first = int(config.class_token)
            x = jnp.concatenate([x[:, :first], registers, x[:, first:]], axis=1)
        if self.embedding_norm is not None and config.embedding_norm == "tokens":
            x = self.embedding_norm(x)
        return x

    def positions_for(self, grid: Grid) -> jax.Array | None:
        """What is added to class token and patches: [tokens, width]; None where nothing is."""
        config = self.config
        if config.positions == "sincos":
            fixed = sincos_positions(grid, config.width)
            return jnp.pad(jnp.asarray(fixed), ((int(config.class_token), 0), (0, 0)))
        if self.positions is None:
            return None
        own = (config.grid, config.grid)
        return interpolate_positions(
            *(self.positions[...], own, grid),
            first=int(config.class_token),
            antialias=config.antialias,
        )


class FusedTowers(nnx.Module):
    """Two encoders over the same image, features side by side (Prismatic, Cambrian-1)."""

    def __init__(self, config: FusedEncoderConfig):
        self.config = config
        self.first = VisionTransformer(config.first)
        self.second = VisionTransformer(config.second)

    def __call__(self, images: jax.Array, form: Form, dtype: jnp.dtype) -> jax.Array:
        """Images uint8 [n, height, width, 3] → [n, patches, first width + second width]."""
        towers = (self.first, self.second)
        return jnp.concatenate([tower(images, form, dtype) for tower in towers], axis=-1)


def build_encoder(config: AnyEncoder) -> VisionTransformer | FusedTowers:
    """The module of the config's kind."""
    if isinstance(config, FusedEncoderConfig):
        return FusedTowers(config)
    return VisionTransformer(config)


def build_norm(config: VisionTransformerConfig) -> LayerNorm | RMSNorm:
    """A norm over the encoder's width, of the config's kind."""
    kind = LayerNorm if config.norm == "layer_norm" else RMSNorm
    return kind(config.width, config.norm_eps)


class LayerScale(nnx.Module):
    """A learned factor for each channel of what a branch adds (Touvron et al., 2021)."""

    def __init__(self, width: int, first: float):
        self.scale = parameter((width,), Constant(first))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] → [..., width]."""
        return x * self.scale[...].astype(x.dtype)


class EncoderBlock(nnx.Module):
    """x + attention(norm x), then x + MLP(norm x); without a mask every token sees every other."""

    def __init__(self, config: VisionTransformerConfig):
        self.heads, self.activation = config.heads, config.activation
        width, hidden, bias = config.width, config.mlp_width, config.bias
        # Branches start small where they join the residual stream (Radford et al., 2019).
        joining = (2 * config.layers) ** -0.5
        self.attention_norm = build_norm(config)
        self.qkv = Linear(width, 3 * width, bias=bias)
        self.attention_out = Linear(width, width, bias=bias, std=joining * width**-0.5)
        self.mlp_norm = build_norm(config)
        inner = 2 * hidden if config.activation == "swiglu" else hidden
        self.mlp_in = Linear(width, inner, bias=bias)
        self.mlp_out = Linear(hidden, width, bias=bias, std=joining * hidden**-0.5)
        scale = config.layer_scale
        self.attention_layer_scale = None if scale is None else LayerScale(width, scale)
        self.mlp_layer_scale = None if scale is None else LayerScale(width, scale)

    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, attention: Attention = "plain"
    ) -> jax.Array:
        """[n, tokens, width] → [n, tokens, width]; mask bool [n, tokens, tokens]."""
        n, tokens, width = x.shape
        qkv = self.qkv(self.attention_norm(x))
        heads = (n, tokens, self.heads, width // self.heads)
        queries, keys, values = (
            cut_along(part.reshape(heads), BATCH, None, "tensor", None)
            for part in jnp.split(qkv, 3, axis=-1)
        )
        y = self.attention_out(attend(queries, keys, values, mask, attention))
        x = x + (y if self.attention_layer_scale is None else self.attention_layer_scale(y))
        y = self.mlp_in(self.mlp_norm(x))
        if self.activation == "swiglu":
            gate, up = jnp.split(y, 2, axis=-1)
            y = jax.nn.silu(gate) * up
        else:
            y = ACTIVATIONS[self.activation](y)
        y = self.mlp_out(y)
        return x + (y if self.mlp_layer_scale is None else self.mlp_layer_scale(y))


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """[n, height, width, 3] → [n, patches, patch * patch * 3].

    Patches row by row; within one (row, column, channel), so a patch convolution's kernel
    [patch, patch, 3, width] reshapes to the embedding's kernel.
    """
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // patch, patch, width // patch, patch, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, patch * patch * channels)
