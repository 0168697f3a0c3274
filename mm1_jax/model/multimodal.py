"""The whole model: encoder → connector → language model, and the loss on its text (MM1 §3)."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mm1_jax.config.train_config import TrainConfig
from mm1_jax.model.connectors import build_connector
from mm1_jax.model.encoders import build_encoder
from mm1_jax.model.mixture_of_experts import Losses
from mm1_jax.scale.sharding import BATCH, cut_along, on_a_mesh
from mm1_jax.training.checkpoints import load_part
from mm1_jax.training.text_loss import Batch, TextModel


class MultimodalModel(TextModel):
    """Image tokens stand in the text sequence where the image stands in the document.

    Built from shapes alone: `initialisation.initialise` or `load_model` fill it.
    A batch (B sequences of T text tokens and I images, k tokens per image, S = T + I * k):

        images        uint8 [B, I, height, width, 3]
        tokens        int32 [B, T]
        gather        int32 [B, S], which of T text embeddings, then I * k image tokens, stands here
        segments      int32 [B, S], number of the document, 0 for padding
        positions     int32 [B, S], place within the document
        predictors    int32 [B, T], the place in S whose hidden state predicts this text token
        loss_weights  float32 [B, T], 0 where no position predicts it (padding, first tokens)
        sources       int32 [B], the data source of each sequence; -1 if it has none
    """

    def __init__(self, config: TrainConfig):
        data = config.data
        sources = len(data.source_names)
        super().__init__(config.training, config.language_model, data.vocabulary, sources)
        self.encoder = build_encoder(config.encoder)
        width = config.language_model.width
        self.connector = build_connector(config.connector, config.encoder, width)

    def embed(self, batch: Batch) -> jax.Array:
        """Text embeddings and image tokens in the order of the documents, [B, S, width]."""
        text = self.language_model.embed(batch["tokens"], self.dtype)
        sequences, images, *pixels = batch["images"].shape
        flat = cut_along(batch["images"].reshape(sequences * images, *pixels), BATCH)
        seen = cut_along(self.encoder(flat, self.form, self.dtype), BATCH)
        image_tokens = cut_along(self.connector(seen), BATCH)
        image_tokens = image_tokens.reshape(sequences, -1, text.shape[-1])
        both = cut_along(jnp.concatenate([text, image_tokens], axis=1), BATCH)
        return take_rows(both, batch["gather"])

    def hidden(
        self, batch: Batch, key: jax.Array | None = None, *, training: bool = False
    ) -> tuple[jax.Array, Losses]:
        """The hidden state that predicts each text token, [B, T, width]; the decoder's losses."""
        states, losses = self.language_model(
            self.embed(batch),
            batch["positions"],
            batch["segments"],
            self.form,
            key,
            training=training,
        )
        return take_rows(states, batch["predictors"]), losses

    def __call__(self, batch: Batch) -> jax.Array:
        """Scores for each text token given what precedes it in its document, [B, T, vocabulary]."""
        return self.language_model.logits(self.hidden(batch)[0])


def take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    """x [batch, n, width], rows int32 [batch, m] → [batch, m, width]."""
    batch, n, width = x.shape
    if on_a_mesh():  # row by row, so that each device sees that it needs only its own
        return cut_along(jax.vmap(lambda own, index: own[index])(x, rows), BATCH)
    flat = rows + jnp.arange(batch, dtype=rows.dtype)[:, None] * n
    return x.reshape(batch * n, width)[flat.reshape(-1)].reshape(batch, -1, width)


def load_model(stage_folder: Path, mesh: Mesh | None = None) -> tuple[TrainConfig, MultimodalModel]:
    """The config and the trained model of a multimodal stage's folder, on a mesh or one device.

    Raises `UserError` where the folder holds no finished multimodal checkpoint.
    """
    return load_part(stage_folder, TrainConfig, MultimodalModel, mesh)
