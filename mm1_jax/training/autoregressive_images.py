"""Autoregressive pre-training: each patch is predicted from those before it (AIM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.encoder_pretraining import AimObjective, EncoderStageConfig
from mm1_jax.model.encoders import VisionTransformer, patchify
from mm1_jax.model.layers import Form, Linear, layer_form

Batch = Mapping[str, Any]  # arrays by name, see `data.batches.encoder_batches`


class AutoregressiveModel(nnx.Module):
    """The encoder predicts the next patch's pixels, in raster order (El-Nouby et al., 2024).

    A prefix of each image is seen by all of its patches and not predicted, so that the encoder can
    look everywhere once it is trained. A batch (B images of P patches):

        images    uint8 [B, height, width, 3]
        prefixes  int32 [B], patches of each image's prefix, 1 … P - 1
    """

    def __init__(self, config: EncoderStageConfig):
        encoder, objective = config.encoder, config.objective
        if not isinstance(objective, AimObjective) or not isinstance(
            encoder, VisionTransformerConfig
        ):
            raise TypeError(f"objective {objective.kind} with an encoder of kind {encoder.kind}")
        self.form: Form = layer_form(config.training)
        self.dtype = jnp.dtype(config.training.compute_dtype)
        self.patch_size, self.grid = encoder.patch_size, encoder.grid
        self.encoder = VisionTransformer(encoder)
        self.head = PixelHead(objective, encoder)

    def loss(self, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean squared error of the predicted patches' normalised pixels, each image alike.

        Logged with it: `mean_loss`, what it would be if each patch's mean were predicted.
        """
        patches, prefixes = self.grid**2, batch["prefixes"]
        mask = prefix_mask(prefixes, patches)
        features = self.encoder(batch["images"], self.form, self.dtype, mask)
        predicted = self.head(features[:, :-1]).astype(jnp.float32)
        targets = pixel_targets(batch["images"], self.patch_size, self.grid)[:, 1:]
        weights = (jnp.arange(1, patches) >= prefixes[:, None]).astype(jnp.float32)

        def mean(squares: jax.Array) -> jax.Array:
            per_image = (squares.mean(-1) * weights).sum(1) / weights.sum(1)
            return per_image.mean()

        return mean((predicted - targets) ** 2), {"mean_loss": mean(targets**2)}

    def weight(self, batch: Batch) -> jax.Array:
        """Every image counts alike."""
        return jnp.float32(len(batch["prefixes"]))


def prefix_mask(prefixes: jax.Array, patches: int) -> jax.Array:
    """Lengths of prefixes int32 [B] → bool [B, patches, patches], True where a row may look.

    Each patch looks at the prefix, at itself and at what is before it. Five patches, prefix of 3:

        x x x . .
        x x x . .
        x x x . .
        x x x x .
        x x x x x
    """
    order = jnp.arange(patches)
    causal = order[:, None] >= order[None, :]
    return causal | (order < prefixes[:, None])[:, None, :]


def pixel_targets(images: jax.Array, patch: int, grid: int) -> jax.Array:
    """uint8 [B, height, width, 3] → float32 [B, grid², patch² · 3], each with mean 0, variance 1.

    A patch of one colour is 0 (He et al., 2022: variance + 1e-6, on pixels from -1 to 1).
    """
    side = grid * patch
    pixels = images[:, :side, :side].astype(jnp.float32) / 127.5 - 1
    patches = patchify(pixels, patch)
    centred = patches - patches.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-6)


class PixelHead(nnx.Module):
    """An MLP from a patch's features to the next patch's pixels."""

    def __init__(self, objective: AimObjective, encoder: VisionTransformerConfig):
        self.readout_in = Linear(encoder.width, objective.head_width)
        self.readout_out = Linear(objective.head_width, 3 * encoder.patch_size**2)

    def __call__(self, features: jax.Array) -> jax.Array:
        """[B, patches, width] → [B, patches, patch² · 3]."""
        return self.readout_out(jax.nn.gelu(self.readout_in(features)))
