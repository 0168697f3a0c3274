"""The language model on its own: the decoder of the whole model, and its loss on packed texts."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.model.mixture_of_experts import Losses
from mm1_jax.training.checkpoints import load_part
from mm1_jax.training.text_loss import Batch, TextModel


class LanguageModel(TextModel):
    """What the multimodal model has below `language_model`, at the same path, without images.

    Built from shapes alone: `initialisation.initialise` or `load_language_model` fill it.
    A batch (B sequences of T tokens), as `lay_out` gives it with no tokens per image:

        tokens        int32 [B, T]
        segments      int32 [B, T], number of the document, 0 for padding
        positions     int32 [B, T], place within the document
        loss_weights  float32 [B, T], 0 where nothing predicts it (padding, first tokens)
    """

    def __init__(self, config: LanguageModelStageConfig):
        super().__init__(config.training, config.language_model, config.vocabulary)

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


def load_language_model(
    stage_folder: Path, mesh: Mesh | None = None
) -> tuple[LanguageModelStageConfig, LanguageModel]:
    """The config and the trained module of a language model's folder, on a mesh or one device.

    Raises `UserError` where the folder holds no finished checkpoint of that kind.
    """
    return load_part(stage_folder, LanguageModelStageConfig, LanguageModel, mesh)
