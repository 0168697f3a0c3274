"""Contrastive pre-training: images and captions that belong together meet in one space.

Both losses are over all pairs of the whole batch. They are written over whole arrays: where the
batch is cut over devices, the compiler gathers what is needed, and the result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config.connector import AnyEncoder, AttentionPoolingConfig
from mm1_jax.config.encoder_pretraining import (
    ClipObjective,
    EncoderStageConfig,
    SigLipObjective,
)
from mm1_jax.model.connectors import AttentionPooling
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.encoders import build_encoder
from mm1_jax.model.initialisation import Constant, parameter
from mm1_jax.model.layers import Form, Linear, layer_form

Batch = Mapping[str, Any]  # arrays by name, see `data.batches.encoder_batches`

LARGEST_SCALE = 100.0  # CLIP: 1 / the smallest temperature


class ContrastiveModel(nnx.Module):
    """An image encoder and a text tower that are trained to agree (CLIP, SigLIP).

    The tower is a causal decoder, as CLIP's; a caption's vector is read at its `<|end|>`. A batch
    (B pairs of an image and a caption of T tokens):

        images   uint8 [B, height, width, 3]
        tokens   int32 [B, T], `<|end|>` last, then padding
        lengths  int32 [B], tokens of each caption with its end
        matches  bool [B, B], True where caption j is true of image i
    """

    def __init__(self, config: EncoderStageConfig):
        objective = config.objective
        if not isinstance(objective, ClipObjective | SigLipObjective):
            raise TypeError(f"objective {objective.kind} is not contrastive")
        self.form: Form = layer_form(config.training)
        self.dtype = jnp.dtype(config.training.compute_dtype)
        self.encoder = build_encoder(config.encoder)
        self.text_tower = TextTower(objective, config.vocabulary)
        self.head = PairHead(objective, config.encoder)

    def embed_images(self, images: jax.Array) -> jax.Array:
        """uint8 [B, height, width, 3] → unit vectors, float32 [B, width]."""
        return self.head.image_vector(self.encoder(images, self.form, self.dtype))

    def embed_captions(
        self, tokens: jax.Array, lengths: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """tokens int32 [B, T], lengths int32 [B] → unit vectors, float32 [B, width]."""
        return self.text_tower(tokens, lengths, self.form, self.dtype, key)

    def loss(self, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The objective's loss; logged with it: scale, bias, and how often an image's own caption
        scores highest of the batch's (`batch_accuracy`)."""
        images = self.embed_images(batch["images"])
        captions = self.embed_captions(batch["tokens"], batch["lengths"], key)
        scores = self.head.scores(images, captions)
        # A caption that is true of another image of the batch is neither right nor wrong there.
        own = jnp.eye(len(scores), dtype=bool)
        ignored = batch["matches"] & ~own
        best = jnp.argmax(jnp.where(ignored, -jnp.inf, scores), axis=1)
        metrics = {"batch_accuracy": (best == jnp.arange(len(scores))).mean(), "scale": self.scale}
        if self.head.bias is None:
            return clip_loss(scores, ignored), metrics
        return siglip_loss(scores, ignored), {**metrics, "bias": self.head.bias[...]}

    def weight(self, batch: Batch) -> jax.Array:
        """Raises `TypeError`: the pairs of a part of a batch are not those of the whole."""
        raise TypeError("a contrastive batch cannot be cut in parts")

    @property
    def scale(self) -> jax.Array:
        """What cosines are multiplied with."""
        return self.head.factor()


def clip_loss(scores: jax.Array, ignored: jax.Array) -> jax.Array:
    """Mean of two cross-entropies: each image among the captions, each caption among the images.

    scores float32 [B, B] (image i, caption j), its diagonal the true pairs; ignored bool [B, B],
    True where a pair is left out, never on the diagonal (Radford et al., 2021, figure 3).
    """
    scores = jnp.where(ignored, -jnp.inf, scores)
    own = jnp.diagonal(scores)
    of_images = jax.nn.logsumexp(scores, axis=1) - own
    of_captions = jax.nn.logsumexp(scores, axis=0) - own
    return (of_images.mean() + of_captions.mean()) / 2


def siglip_loss(scores: jax.Array, ignored: jax.Array) -> jax.Array:
    """Sum over all pairs of -log sigmoid(± score), per image (Zhai et al., 2023, algorithm 1).

    Shapes as `clip_loss`; + on the diagonal, - elsewhere.
    """
    sign = 2 * jnp.eye(len(scores)) - 1
    losses = jnp.where(ignored, 0.0, -jax.nn.log_sigmoid(sign * scores))
    return losses.sum() / len(scores)


class TextTower(nnx.Module):
    """A decoder over the caption; the state at its last token, projected."""

    def __init__(self, objective: ClipObjective | SigLipObjective, vocabulary: int):
        tower = objective.text_tower
        self.decoder = Decoder(tower, vocabulary)
        self.projection = Linear(tower.width, objective.width, bias=False)

    def __call__(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        form: Form,
        dtype: jnp.dtype,
        key: jax.Array | None,
    ) -> jax.Array:
        """tokens int32 [B, T], lengths int32 [B] → unit vectors, float32 [B, width]."""
        places = jnp.arange(tokens.shape[1])
        positions = jnp.broadcast_to(places, tokens.shape)
        segments = (places < lengths[:, None]).astype(jnp.int32)
        embedded = self.decoder.embed(tokens, dtype)
        states, _ = self.decoder(embedded, positions, segments, form, key)
        last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)[:, 0]
        return unit(self.projection(last))


class PairHead(nnx.Module):
    """From patches to one vector in the common space, and from two vectors to a score.

    `scale` holds the logarithm of the factor. Attention pooling is the connector's with one query:
    as SigLIP's, but without the MLP after it.
    """

    def __init__(self, objective: ClipObjective | SigLipObjective, encoder: AnyEncoder):
        if objective.pooling == "attention":
            pooling = AttentionPoolingConfig(tokens=1, heads=objective.pooling_heads)
            self.pool = AttentionPooling(pooling, encoder, objective.width)
            self.projection = None
        else:
            self.pool = None
            self.projection = Linear(encoder.width, objective.width, bias=False)
        if isinstance(objective, ClipObjective):
            self.scale = parameter((), Constant(-math.log(objective.temperature)))
            self.bias = None
        else:
            self.scale = parameter((), Constant(math.log(objective.scale)))
            self.bias = parameter((), Constant(objective.bias))

    def image_vector(self, features: jax.Array) -> jax.Array:
        """[B, patches, width] → unit vectors, float32 [B, common width]."""
        if self.pool is not None:
            return unit(self.pool(features)[:, 0])
        assert self.projection is not None
        return unit(self.projection(features.mean(1)))

    def factor(self) -> jax.Array:
        """What cosines are multiplied with; CLIP's is at most 100."""
        scale = self.scale[...]
        return jnp.exp(jnp.minimum(scale, math.log(LARGEST_SCALE)) if self.bias is None else scale)

    def scores(self, images: jax.Array, captions: jax.Array) -> jax.Array:
        """Unit vectors float32 [I, width] and [C, width] → scores float32 [I, C]."""
        scores = self.factor() * (images @ captions.T)
        return scores if self.bias is None else scores + self.bias[...]


def unit(x: jax.Array) -> jax.Array:
    """[..., width] → float32 vectors of length 1."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
