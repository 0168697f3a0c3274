"""The language model on its own: the decoder of the whole model, and its loss on packed texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mm1_jax.checkpoints import load_part
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.decoder import Decoder
from mm1_jax.layers import Form, layer_form
from mm1_jax.mixture_of_experts import Losses
from mm1_jax.text_loss import text_loss, token_weights

Batch = Mapping[str, Any]  # arrays by name, see `LanguageModel`


class LanguageModel(nnx.Module):
    """What the multimodal model has below `language_model`, at the same path, without images.

    Built from shapes alone: `initialisation.initialise` or `load_language_model` fill it.
    A batch (B sequences of T tokens), as `lay_out` gives it with no tokens per image:

        tokens        int32 [B, T]
        segments      int32 [B, T], number of the document, 0 for padding
        positions     int32 [B, T], place within the document
        loss_weights  float32 [B, T], 0 where nothing predicts it (padding, first tokens)
    """

    def __init__(self, config: LanguageModelStageConfig):
        self.form: Form = layer_form(config.training)
        self.loss_mean, self.z_loss = config.training.loss_mean, config.training.z_loss
        self.experts = config.language_model if config.language_model.kind == "moe" else None
        self.dtype = jnp.dtype(config.training.compute_dtype)
        self.language_model = Decoder(config.language_model, config.vocabulary)

    def hidden(
        self, batch: Batch, key: jax.Array | None = None, *, training: bool = False
    ) -> tuple[jax.Array, Losses]:
        """The hidden state that predicts each token, [B, T, width]; the decoder's losses.

        It is the one before it; that of a row's first token means nothing.
        """
        states, losses = self.language_model(
            self.language_model.embed(batch["tokens"], self.dtype),
            batch["positions"],
            batch["segments"],
            self.form,
            key,
            training=training,
        )
        return jnp.roll(states, 1, axis=1), losses

    def loss(self, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Losses]:
        """What training lowers, and what is logged of it: see `text_loss`; `key` is dropout's."""
        hidden, sums = self.hidden(batch, key, training=True)
        return text_loss(
            self._cross_entropy(hidden, batch),
            batch["loss_weights"],
            sums,
            loss_mean=self.loss_mean,
            z_loss=self.z_loss,
            experts=self.experts,
        )

    def weight(self, batch: Batch) -> jax.Array:
        """What the loss of a part of a batch counts beside other parts: its weights' sum."""
        return token_weights(batch["loss_weights"], self.loss_mean).sum()

    def token_losses(self, batch: Batch) -> jax.Array:
        """Cross-entropy (nats) of each token, float32 [B, T]; weights are not applied."""
        return self._cross_entropy(self.hidden(batch)[0], batch)[0]

    def _cross_entropy(self, hidden: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return self.language_model.cross_entropy(hidden, batch["tokens"], self.form)


def load_language_model(stage_folder: Path) -> tuple[LanguageModelStageConfig, LanguageModel]:
    """The config and the trained module of a language model's folder.

    Raises `UserError` where the folder holds no finished checkpoint of that kind.
    """
    return load_part(stage_folder, LanguageModelStageConfig, LanguageModel)
