"""Our stages, named by import path: "mm1_jax.runner:train" and "mm1_jax.runner:evaluate".

Nothing heavy is imported before a stage runs: planners and schedulers may read this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.stage import Context, ResultRow
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.scale.freed_memory import keep_freed_memory
from mm1_jax.scale.stage_times import timed

# Kind of stage → what runs it, unless a study names its own.
RUNNERS = {
    "encoder": "mm1_jax.runner:pretrain_encoder",
    "language_model": "mm1_jax.runner:pretrain_language_model",
    "weights": "mm1_jax.runner:read_weights",
    "multimodal": "mm1_jax.runner:train",
    "sft": "mm1_jax.runner:tune",
    "evaluation": "mm1_jax.runner:evaluate",
    "encoder_evaluation": "mm1_jax.runner:evaluate_encoder",
    "language_model_evaluation": "mm1_jax.runner:evaluate_language_model",
}
# Kind of stage → the module whose source, with all it imports, is the stage's code.
STAGE_MODULES = {
    "encoder": "mm1_jax.training.encoder_pretraining",
    "language_model": "mm1_jax.training.language_model_pretraining",
    "weights": "mm1_jax.weights.weights_stage",
    "multimodal": "mm1_jax.training.multimodal_training",
    "sft": "mm1_jax.training.instruction_tuning",
    "evaluation": "mm1_jax.evaluation.multimodal_evaluation",
    "encoder_evaluation": "mm1_jax.evaluation.encoder_evaluation",
    "language_model_evaluation": "mm1_jax.evaluation.language_model_evaluation",
}


@timed(STAGE_MODULES["multimodal"])
def train(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Train the model of a `TrainConfig` dump; `inputs` are parts that were trained before."""
    from mm1_jax.training import kept_tokenizer, multimodal_training

    keep_freed_memory()
    whole = TrainConfig.model_validate(config)
    rows = multimodal_training.train(whole, seed, context.data, inputs, context)
    kept_tokenizer.keep_tokenizer(whole, context.data, context.output)
    return rows


@timed(STAGE_MODULES["sft"])
def tune(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Tune the model in `inputs["model"]` on instructions, as a `TrainConfig` dump says."""
    from mm1_jax.training import instruction_tuning, kept_tokenizer

    keep_freed_memory()
    whole = TrainConfig.model_validate(config)
    rows = instruction_tuning.tune(whole, seed, context.data, inputs["model"], context)
    kept_tokenizer.keep_tokenizer(whole, context.data, context.output)
    return rows


@timed(STAGE_MODULES["encoder"])
def pretrain_encoder(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Train the encoder of an `EncoderStageConfig` dump on images and their captions."""
    from mm1_jax.training import encoder_pretraining

    keep_freed_memory()
    stage = EncoderStageConfig.model_validate(config)
    return encoder_pretraining.pretrain(stage, seed, context.data, context)


@timed(STAGE_MODULES["language_model"])
def pretrain_language_model(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Train the language model of a `LanguageModelStageConfig` dump on texts alone."""
    from mm1_jax.training import kept_tokenizer, language_model_pretraining

    keep_freed_memory()
    stage = LanguageModelStageConfig.model_validate(config)
    rows = language_model_pretraining.pretrain(stage, seed, context.data, context)
    kept_tokenizer.keep_tokenizer(stage, context.data, context.output)
    return rows


@timed(STAGE_MODULES["weights"])
def read_weights(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Read a part's weights from the folder that `config` names; draws nothing."""
    from mm1_jax.weights import weights_stage

    return weights_stage.read_weights(
        config["part"],
        Path(config["folder"]),
        content=config["content"],
        vocabulary=config["vocabulary"],
        context=context,
    )


@timed(STAGE_MODULES["evaluation"])
def evaluate(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Evaluate the checkpoint in `inputs["model"]` on one task (an `EvaluationStage` dump)."""
    from mm1_jax.evaluation import multimodal_evaluation

    keep_freed_memory()
    return multimodal_evaluation.evaluate(config, seed, inputs["model"], context)


@timed(STAGE_MODULES["encoder_evaluation"])
def evaluate_encoder(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Score the encoder's checkpoint in `inputs["model"]` by retrieval or by a linear probe."""
    from mm1_jax.evaluation import encoder_evaluation

    keep_freed_memory()
    return encoder_evaluation.evaluate(config, seed, inputs["model"], context)


@timed(STAGE_MODULES["language_model_evaluation"])
def evaluate_language_model(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Score the language model's checkpoint in `inputs["model"]` on held-out texts."""
    from mm1_jax.evaluation import language_model_evaluation

    keep_freed_memory()
    return language_model_evaluation.evaluate(config, inputs["model"], context)
