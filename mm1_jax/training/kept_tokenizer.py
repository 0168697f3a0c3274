"""The tokenizer beside a checkpoint: so it speaks, and is exported, without its prepared data."""

from __future__ import annotations

from pathlib import Path

import jax

from ablations.timeline import doing
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.weights.weights_folder import BEST_FOLDER, is_checkpoint


@doing("save")
def keep_tokenizer(
    config: TrainConfig | LanguageModelStageConfig, data_root: Path, folder: Path
) -> None:
    """Write the tokenizer that a model was trained with beside its checkpoint, and the best one."""
    if jax.process_index() == 0:
        tokenizer = open_prepared(config.data, data_root).tokenizer
        for place in filter(is_checkpoint, (folder, folder / BEST_FOLDER)):
            tokenizer.save(place)
