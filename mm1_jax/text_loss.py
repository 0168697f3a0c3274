"""Cross-entropy on text: what a decoder learns by, alone or among images (MM1 §3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mm1_jax.config import MixtureOfExpertsConfig
from mm1_jax.decoder import Decoder
from mm1_jax.mixture_of_experts import Losses, auxiliary_loss


def token_losses(decoder: Decoder, hidden: jax.Array, tokens: jax.Array) -> jax.Array:
    """Cross-entropy (nats) of tokens int32 [B, T] under states [B, T, width]: float32 [B, T]."""
    # logsumexp - score of the label: a third faster on CPU than picking from log-softmax.
    labels = decoder.output_embedding[...].astype(hidden.dtype)[tokens]
    label_scores = jnp.sum((hidden * labels).astype(jnp.float32), axis=-1)
    return jax.nn.logsumexp(decoder.logits(hidden), axis=-1) - label_scores


def text_loss(
    decoder: Decoder,
    hidden: jax.Array,
    sums: Losses,
    batch: Mapping[str, Any],
    loss_mean: str,
    experts: MixtureOfExpertsConfig | None,
) -> tuple[jax.Array, Losses]:
    """What training lowers, and what is logged of it.

    hidden [B, T, width] predict `batch["tokens"]` where `batch["loss_weights"]` [B, T] are not 0;
    `sums` are the decoder's losses. Mean cross-entropy (nats) of the text tokens that something
    predicts, over all of them alike, or over the sequences' means (`training.loss_mean`): a
    sequence of short answers has few such tokens, and beside one of running text it would hardly
    count. With experts their auxiliary losses are added, and the cross-entropy alone is the metric
    `text_loss`.
    """
    losses = token_losses(decoder, hidden, batch["tokens"])
    weights = batch["loss_weights"]
    if loss_mean == "sequences":
        weights = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1.0)
    loss = jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)
    if experts is None:
        return loss, {}
    auxiliary, metrics = auxiliary_loss(experts, sums)
    return loss + auxiliary, {"text_loss": loss, **metrics}
