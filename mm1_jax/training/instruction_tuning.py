"""The stage `sft`: the whole model tuned on conversations, the loss on answers only (MM1 §7)."""

from __future__ import annotations

from pathlib import Path

from ablations.stage import Context, ResultRow
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.training.initial_weights import take_model
from mm1_jax.training.multimodal_training import fit_model


def tune(
    config: TrainConfig, seed: int, data_root: Path, model_folder: Path, context: Context
) -> list[ResultRow]:
    """Go on with a multimodal stage's model; write `config.json` and `checkpoint/`.

    Its images may be of another size: learned positions are interpolated. The optimiser starts
    anew. UserError where the folder holds another model than the config's.
    """
    model = take_model(config, model_folder)
    return fit_model(model, config, seed, data_root, context)
