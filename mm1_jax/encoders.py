"""Image encoders: pixels → one vector per patch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config import AnyEncoder, FusedEncoderConfig, VisionTransformerConfig
from mm1_jax.initialisation import Normal, parameter, stack
from mm1_jax.layers import Form, LayerNorm, Linear, attend, run_layers


class VisionTransformer(nnx.Module):
    """ViT with learned positions and pre-norm blocks, no class token (Dosovitskiy et al., 2021).

    A final norm over all patches, as in SigLIP, whose pixel range [-1, 1] it also takes.
    """

    def __init__(self, config: VisionTransformerConfig):
        self.config = config
        pixels = 3 * config.patch_size**2
        self.patch_embedding = Linear(pixels, config.width)
        self.positions = parameter((config.patches, config.width), Normal(0.02))
        self.blocks = stack(EncoderBlock(config), config.layers)
        self.norm = LayerNorm(config.width)

    def __call__(
        self, images: jax.Array, form: Form, dtype: jnp.dtype, mask: jax.Array | None = None
    ) -> jax.Array:
        """Images uint8 [n, height, width, 3] → features [n, patches, width] of `dtype`.

        mask bool [n, patches, patches], True where a patch may look; without one, everywhere.
        """
        pixels = (images.astype(jnp.float32) / 127.5 - 1).astype(dtype)
        x = self.patch_embedding(patchify(pixels, self.config.patch_size))
        x = x + self.positions[...].astype(dtype)
        x, _ = run_layers(self.blocks, form, lambda block, x, _: (block(x, mask), None), x)
        return self.norm(x)


def build_encoder(config: AnyEncoder) -> VisionTransformer:
    """The module of the config's kind."""
    if isinstance(config, FusedEncoderConfig):
        raise NotImplementedError
    return VisionTransformer(config)


class EncoderBlock(nnx.Module):
    """x + attention(norm x), then x + MLP(norm x); every patch sees its image, or as masked."""

    def __init__(self, config: VisionTransformerConfig):
        self.heads = config.heads
        width, hidden = config.width, config.mlp_width
        # Branches start small where they join the residual stream (Radford et al., 2019).
        joining = (2 * config.layers) ** -0.5
        self.attention_norm = LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.attention_out = Linear(width, width, std=joining * width**-0.5)
        self.mlp_norm = LayerNorm(width)
        self.mlp_in = Linear(width, hidden)
        self.mlp_out = Linear(hidden, width, std=joining * hidden**-0.5)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x [n, patches, width], mask bool [n, patches, patches] → x."""
        n, patches, width = x.shape
        qkv = self.qkv(self.attention_norm(x))
        heads = (n, patches, self.heads, width // self.heads)
        queries, keys, values = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        x = x + self.attention_out(attend(queries, keys, values, mask))
        return x + self.mlp_out(jax.nn.gelu(self.mlp_in(self.mlp_norm(x))))


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """[n, height, width, 3] → [n, patches, patch * patch * 3].

    Patches row by row; within one (row, column, channel), so a patch convolution's kernel
    [patch, patch, 3, width] reshapes to the embedding's kernel.
    """
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // patch, patch, width // patch, patch, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, patch * patch * channels)
