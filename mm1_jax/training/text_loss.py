"""The loss on text that training lowers, of a language model alone or among images (MM1 §3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.config.language_model import LanguageModelConfig, MixtureOfExpertsConfig
from mm1_jax.config.training import TrainingConfig
from mm1_jax.model.decoder import Decoder
from mm1_jax.model.layers import Form, layer_form
from mm1_jax.model.mixture_of_experts import Losses, auxiliary_loss

Batch = Mapping[str, Any]  # arrays by name, among them `tokens` and `loss_weights`


class TextModel(nnx.Module):
    """A model that is trained on the text tokens that its decoder predicts."""

    def __init__(
        self,
        training: TrainingConfig,
        decoder: LanguageModelConfig,
        vocabulary: int,
        sources: int = 0,
    ):
        self.sources = sources  # of the data, whose losses are logged one by one
        self.form: Form = layer_form(training)
        self.loss_mean, self.z_loss = training.loss_mean, training.z_loss
        self.experts = decoder if decoder.kind == "moe" else None
        self.dtype = jnp.dtype(training.compute_dtype)
        self.language_model = Decoder(decoder, vocabulary)

    def hidden(
        self, batch: Batch, key: jax.Array | None = None, *, training: bool = False
    ) -> tuple[jax.Array, Losses]:
        """The hidden state that predicts each text token, [B, T, width]; the decoder's losses."""
        raise NotImplementedError

    def loss(self, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Losses]:
        """What training lowers, and what is logged of it: see `text_loss`; `key` is dropout's.

        Where the batch says its `sources`, also the sums of each: `by_source`.
        """
        hidden, sums = self.hidden(batch, key, training=True)
        cross_entropy, counted = self._cross_entropy(hidden, batch), batch["loss_weights"]
        loss, metrics = text_loss(
            cross_entropy,
            counted,
            sums,
            loss_mean=self.loss_mean,
            z_loss=self.z_loss,
            experts=self.experts,
        )
        if "sources" in batch:
            metrics["by_source"] = losses_by_source(
                cross_entropy[0], counted, batch["sources"], self.sources
            )
        return loss, metrics

    def weight(self, batch: Batch) -> jax.Array:
        """What the loss of a part of a batch counts beside other parts: its weights' sum."""
        return token_weights(batch["loss_weights"], self.loss_mean).sum()

    def token_losses(self, batch: Batch) -> jax.Array:
        """Cross-entropy (nats) of each text token, float32 [B, T]; weights are not applied."""
        return self._cross_entropy(self.hidden(batch)[0], batch)[0]

    def _cross_entropy(self, hidden: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return self.language_model.cross_entropy(hidden, batch["tokens"], self.form)


def text_loss(
    cross_entropy: tuple[jax.Array, jax.Array],
    weights: jax.Array,
    sums: Losses,
    *,
    loss_mean: str,
    z_loss: float,
    experts: MixtureOfExpertsConfig | None,
) -> tuple[jax.Array, Losses]:
    """What training lowers, and what is logged of it.

    `cross_entropy` is what `Decoder.cross_entropy` gives, `weights` float32 [B, T] are 0 where
    nothing predicts the token, `sums` are the decoder's losses.

    Mean cross-entropy (nats) of the text tokens that something predicts, over all of them alike,
    or over the sequences' means (`training.loss_mean`): a sequence of short answers has few such
    tokens, and beside one of running text it would hardly count. The z-loss (`training.z_loss`)
    and the experts' auxiliary losses are added where there are any, and the cross-entropy alone is
    then the metric `text_loss`.
    """
    losses, normalisers = cross_entropy
    weights = token_weights(weights, loss_mean)
    total = jnp.maximum(jnp.sum(weights), 1.0)
    loss = jnp.sum(losses * weights) / total
    metrics: Losses = {}
    auxiliary: jax.Array | float = 0.0
    if z_loss:
        metrics["z_loss"] = jnp.sum(normalisers**2 * weights) / total
        auxiliary += z_loss * metrics["z_loss"]
    if experts is not None:
        routing, more = auxiliary_loss(experts, sums)
        auxiliary, metrics = auxiliary + routing, metrics | more
    if not metrics:
        return loss, {}
    return loss + auxiliary, {"text_loss": loss, **metrics}


def token_weights(weights: jax.Array, loss_mean: str) -> jax.Array:
    """float32 [B, T] → the same, each sequence's adding up to 1 if its mean is what counts."""
    if loss_mean == "tokens":
        return weights
    return weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1.0)


def losses_by_source(
    losses: jax.Array, counted: jax.Array, sources: jax.Array, count: int
) -> jax.Array:
    """Summed losses and counted tokens of each data source, float32 [2, sources].

    losses and counted float32 [B, T]; sources int32 [B], of `count`, -1 for none.
    """
    per_sequence = jnp.stack([(losses * counted).sum(1), counted.sum(1)])
    return per_sequence @ jax.nn.one_hot(sources, count)
