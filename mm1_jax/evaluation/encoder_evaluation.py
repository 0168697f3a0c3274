"""Scoring an encoder as its own pre-training left it: retrieval and a linear probe.

Both are asked about held-out concepts only; the probe is fitted on the training drawings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ablations.errors import UserError, nearest
from ablations.stage import Context, ResultRow
from ablations.timeline import doing
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.data.sources.drawing_captions import lay_out_captions, read_drawings
from mm1_jax.data.sources.prepared_packages import PreparedData, open_prepared
from mm1_jax.evaluation.by_name import task_module
from mm1_jax.evaluation.evaluation_stage import EvaluationStage, Example, rows_of, write_examples
from mm1_jax.evaluation.tasks import prompts
from mm1_jax.model.encoders import build_encoder
from mm1_jax.model.layers import layer_form
from mm1_jax.training.checkpoints import Tree, load_part, load_subtree
from mm1_jax.training.contrastive import ContrastiveModel
from mm1_jax.training.encoder_pretraining import first_model

RETRIEVAL, PROBE = "emoji_retrieval", "emoji_probe"
Compute = Callable[..., np.ndarray]


def evaluate(
    config: Mapping[str, Any], seed: int, model_folder: Path, context: Context
) -> list[ResultRow]:
    """Run one task on the checkpoint of an `encoder` stage and write `examples.parquet`.

    `seed` is that of the pre-training: the probe's control is the encoder it started from.
    UserError for another task, a form that it cannot have, or a checkpoint that lacks what the
    task needs.
    """
    stage = EvaluationStage.model_validate(dict(config))
    known = (RETRIEVAL, PROBE)
    if stage.task not in known:
        raise UserError(f"unknown task of an encoder {stage.task!r}{nearest(stage.task, known)}")
    if stage.shots or stage.condition != "intact":
        raise UserError(f"{stage.task} asks no questions: no images to shuffle, no demonstrations")
    trained, weights = load_subtree(model_folder, "encoder")
    if not isinstance(trained, EncoderStageConfig):
        raise UserError(f"{model_folder} holds no encoder of its own, but a whole model")
    prepared = open_prepared(trained.data, context.data)
    if stage.task == RETRIEVAL:
        examples, metrics = _retrieve(stage, trained, model_folder, prepared)
    else:
        examples, metrics = _probe(stage, trained, weights, seed, prepared)
    write_examples(examples, context.output)
    return rows_of(stage, metrics, step=trained.training.steps, n_items=len(examples))


def _retrieve(
    stage: EvaluationStage, config: EncoderStageConfig, folder: Path, prepared: PreparedData
) -> tuple[list[Example], dict[str, float]]:
    objective = config.objective
    if not objective.reads_captions:
        raise UserError(
            f"{stage.task} compares images with captions; objective {objective.kind} reads none"
        )
    emoji_retrieval = task_module(stage.task)
    load_subtree(folder, "text_tower")  # told where only the encoder's weights are there
    _, model = load_part(folder, EncoderStageConfig, ContrastiveModel)
    graphdef, state = nnx.split(model)
    items = emoji_retrieval.items(prepared, stage.items, stage.seed)
    texts = [item.references[0] for item in items]
    pixels = _pixels(prepared, np.array([item.image_id for item in items]), config)
    tokens = lay_out_captions(texts, prepared.tokenizer, config.text_tokens)
    images = _batched(functools.partial(_embed_images, graphdef, state), stage, pixels)
    captions = _batched(functools.partial(_embed_captions, graphdef, state), stage, *tokens)
    found = emoji_retrieval.score(images @ captions.T)
    examples = [
        Example(
            item_id=item.item_id,
            image_id=item.image_id,
            prompt="",
            prediction=texts[best],
            references=list(item.references),
            score=100.0 * (rank == 0),
        )
        for item, rank, best in zip(items, found.ranks, found.best, strict=True)
    ]
    return examples, found.metrics


def _probe(
    stage: EvaluationStage,
    config: EncoderStageConfig,
    weights: Tree,
    seed: int,
    prepared: PreparedData,
) -> tuple[list[Example], dict[str, float]]:
    emoji_probe = task_module(stage.task)
    seen = read_drawings(prepared, "train")
    asked = prompts.subset(read_drawings(prepared, "test"), stage.items, stage.seed, stage.task)
    labels = [drawing.category for drawing in seen]
    answers = [drawing.category for drawing in asked]
    graphdef, first = nnx.split(first_model(config, seed).encoder)
    _, trained = nnx.split(build_encoder(config.encoder))
    nnx.replace_by_pure_dict(trained, jax.tree.map(jnp.asarray, weights))
    form, dtype = layer_form(config.training), jnp.dtype(config.training.compute_dtype)

    def predict(state: nnx.State) -> list[str]:
        compute = functools.partial(_mean_features, graphdef, form, dtype.name, state)
        features = [
            _batched(compute, stage, _pixels(prepared, np.array(image_ids), config))
            for image_ids in ([d.image for d in seen], [d.image for d in asked])
        ]
        return emoji_probe.ridge_probe(features[0], labels, features[1])[0]

    def accuracy(predictions: list[str]) -> float:
        return 100 * float(np.mean([p == a for p, a in zip(predictions, answers, strict=True)]))

    predictions = predict(trained)
    metrics = {
        "accuracy": accuracy(predictions),
        "untrained_accuracy": accuracy(predict(first)),
        "majority_accuracy": accuracy([emoji_probe.most_frequent(labels)] * len(answers)),
    }
    examples = [
        Example(d.name, d.image, "", prediction, [d.category], 100.0 * (prediction == d.category))
        for d, prediction in zip(asked, predictions, strict=True)
    ]
    return examples, metrics


@doing("data")
def _pixels(
    prepared: PreparedData, image_ids: np.ndarray, config: EncoderStageConfig
) -> np.ndarray:
    return prepared.images.at_size(image_ids, config.encoder.image_size)


@doing("evaluation")
def _batched(compute: Compute, stage: EvaluationStage, *arrays: np.ndarray) -> np.ndarray:
    """compute over rows, a batch at a time; the last one is filled up so that shapes are static."""

    def parts() -> Iterator[np.ndarray]:
        count = len(arrays[0])
        for first in range(0, count, stage.batch_size):
            rows = np.arange(first, first + stage.batch_size) % count
            yield np.asarray(compute(*(array[rows] for array in arrays)))

    return np.concatenate(list(parts()))[: len(arrays[0])]


@functools.partial(jax.jit, static_argnums=(0,))
def _embed_images(graphdef: nnx.GraphDef, state: Any, images: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, state).embed_images(images)


@functools.partial(jax.jit, static_argnums=(0,))
def _embed_captions(
    graphdef: nnx.GraphDef, state: Any, tokens: jax.Array, lengths: jax.Array
) -> jax.Array:
    return nnx.merge(graphdef, state).embed_captions(tokens, lengths)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _mean_features(
    graphdef: nnx.GraphDef, form: Any, dtype: str, state: Any, images: jax.Array
) -> jax.Array:
    """Mean over the patches, float32 [B, width]."""
    features = nnx.merge(graphdef, state)(images, form, jnp.dtype(dtype))
    return features.astype(jnp.float32).mean(1)
