"""What runs our stages, by import path: `mm1_jax.stage_kinds` says which runs what.

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
from mm1_jax.config.weights import WeightsStageConfig
from mm1_jax.scale.freed_memory import keep_freed_memory
from mm1_jax.scale.processes import alone
from mm1_jax.scale.stage_times import timed
from mm1_jax.stage_kinds import KINDS


@timed(KINDS["multimodal"].code)
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


@timed(KINDS["sft"].code)
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


@timed(KINDS["encoder"].code)
def pretrain_encoder(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Train the encoder of an `EncoderStageConfig` dump on images and their captions."""
    from mm1_jax.training import encoder_pretraining

    keep_freed_memory()
    stage = EncoderStageConfig.model_validate(config)
    return encoder_pretraining.pretrain(stage, seed, context.data, context)


@timed(KINDS["language_model"].code)
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


@timed(KINDS["weights"].code)
def read_weights(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Read a part's weights from the folder of a `WeightsStageConfig` dump; draws nothing."""
    from mm1_jax.weights import weights_stage

    alone(context)
    stage = WeightsStageConfig.model_validate(config)
    return weights_stage.read_weights(
        stage.part,
        Path(stage.folder),
        content=stage.content,
        vocabulary=stage.vocabulary,
        context=context,
    )


@timed(KINDS["evaluation"].code)
def evaluate(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Evaluate the checkpoint in `inputs["model"]` on one task (an `EvaluationStage` dump)."""
    from mm1_jax.evaluation import multimodal_evaluation

    alone(context)
    keep_freed_memory()
    return multimodal_evaluation.evaluate(config, seed, inputs["model"], context)


@timed(KINDS["encoder_evaluation"].code)
def evaluate_encoder(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Score the encoder's checkpoint in `inputs["model"]` by retrieval or by a linear probe."""
    from mm1_jax.evaluation import encoder_evaluation

    alone(context)
    keep_freed_memory()
    return encoder_evaluation.evaluate(config, seed, inputs["model"], context)


@timed(KINDS["language_model_evaluation"].code)
def evaluate_language_model(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """Score the language model's checkpoint in `inputs["model"]` on held-out texts."""
    from mm1_jax.evaluation import language_model_evaluation

    alone(context)
    keep_freed_memory()
    return language_model_evaluation.evaluate(config, inputs["model"], context)


def evaluate_folder(
    config: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], context: Context
) -> list[ResultRow]:
    """As the runner of an evaluation, of the weights in a folder instead of those of a stage.

    `config` is that runner's, and `model`: {"kind": of the evaluation, "folder": …, "content": …}.
    """
    model = config["model"]
    asked = {key: value for key, value in config.items() if key != "model"}
    run = globals()[KINDS[model["kind"]].run.partition(":")[2]]
    return run(asked, seed, {"model": Path(model["folder"])}, context)
