"""The stage that reads a part's first weights from a folder and keeps them as a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from ablations.errors import UserError
from ablations.stage import Context, ResultRow
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.training.checkpoints import load_config, load_subtree, save_tree
from mm1_jax.training.initial_weights import parameter_count
from mm1_jax.weights.part_weights import encoder_weights, language_model_weights
from mm1_jax.weights.weights_folder import CHECKPOINT_FOLDER, CONFIG_FILE, content_of, is_checkpoint


def read_weights(
    part: str, folder: Path, *, content: str, vocabulary: int, context: Context
) -> list[ResultRow]:
    """Write the part's weights as a checkpoint of ours into `context.output`.

    `vocabulary` is of the tokenizer that the part is scored with. UserError if the folder does not
    hold what it held when the study was planned, or has no such part.
    """
    if content_of(folder) != content:
        raise UserError(f"{folder} has changed since the study was planned; plan it anew")
    if is_checkpoint(folder) and not isinstance(load_config(folder), TrainConfig):
        # Whole: a text tower is needed where the encoder is scored.
        _, weights = load_subtree(folder, part)
        shutil.copy(folder / CONFIG_FILE, context.output)
        shutil.copytree(folder / CHECKPOINT_FOLDER, context.output / CHECKPOINT_FOLDER)
    elif part == "encoder":
        encoder = encoder_weights(folder)
        weights = encoder.tree
        config = EncoderStageConfig(encoder=encoder.config, vocabulary=vocabulary)
        save_tree(context.output, config, {part: weights})
    else:
        model = language_model_weights(folder)
        weights = model.tree
        stated = LanguageModelStageConfig(language_model=model.config, vocabulary=model.vocabulary)
        save_tree(context.output, stated, {part: weights})
    return [ResultRow("training", "parameters", parameter_count(weights))]
