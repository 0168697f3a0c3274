"""Scoring the whole model: one checkpoint, one task, one number of shots, one condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablations.errors import UserError
from ablations.stage import Context, ResultRow
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.packing import Packed, lay_out
from mm1_jax.data.sources.prepared_packages import PreparedData, open_prepared
from mm1_jax.data.templates import answer_ends
from mm1_jax.data.tokenizer import check_same
from mm1_jax.evaluation.asking import ask
from mm1_jax.evaluation.by_name import official_scoring, task_module
from mm1_jax.evaluation.evaluated_model import Batch, EvaluatedModel
from mm1_jax.evaluation.evaluation_mesh import mesh_of_checkpoint
from mm1_jax.evaluation.evaluation_stage import EvaluationStage, Example, rows_of, write_examples
from mm1_jax.evaluation.imported_model import evaluated_import
from mm1_jax.evaluation.metrics.standard_error import standard_error
from mm1_jax.evaluation.tasks import prompts
from mm1_jax.evaluation.tasks.generation_task import GenerationTask
from mm1_jax.images.sub_images import views_of
from mm1_jax.model.multimodal import load_model
from mm1_jax.weights.weights_folder import is_imported

HELD_OUT_TEXT = "held_out_text"


def evaluate(
    config: Mapping[str, Any], seed: int, model_folder: Path, context: Context
) -> list[ResultRow]:
    """Run one task on the checkpoint of a training stage and write `examples.parquet`.

    The trial's seed decides nothing here: draws come from `config.seed`, equal in all arms and
    seeds. UserError on an unknown task, or on a condition that the task cannot have.
    """
    stage = EvaluationStage.model_validate(dict(config))
    if is_imported(model_folder):
        return _evaluate_import(stage, model_folder, context)
    mesh = mesh_of_checkpoint(model_folder, stage.mesh)
    train_config, model = load_model(model_folder, mesh)
    prepared = open_prepared(train_config.data, context.data)
    check_same(prepared.tokenizer, model_folder)
    evaluated = EvaluatedModel(
        model,
        prepared.tokenizer,
        ends=answer_ends(train_config.data.template, prepared.tokenizer),
        template=train_config.data.template,
        view_tokens=train_config.view_tokens,
        views=views_of(train_config),
        sharp_images=stage.sharp_images,
        mesh=mesh,
    )
    errors: Mapping[str, float | None] = {}
    if stage.official is not None:
        examples, metrics, errors = official_scoring().evaluate_official(stage, evaluated, context)
    elif stage.task == HELD_OUT_TEXT:
        examples, metrics = _evaluate_text(stage, train_config, evaluated, prepared)
    else:
        examples, metrics = _evaluate_generation(stage, evaluated, prepared, context)
        shown = [e.image_id if e.image_id >= 0 else e.item_id for e in examples]
        errors = {next(iter(metrics)): standard_error([e.score for e in examples], shown)}
    write_examples(examples, context.output)
    step, n_items = train_config.training.steps, len(examples)
    return rows_of(stage, metrics, step=step, n_items=n_items, errors=errors)


def _evaluate_import(
    stage: EvaluationStage, model_folder: Path, context: Context
) -> list[ResultRow]:
    if stage.official is None:
        raise UserError(
            f"{stage.task} is asked in the data that a model was trained on, and the one in "
            f"{model_folder} was trained elsewhere; valid: official tasks"
        )
    model = evaluated_import(model_folder, stage.mesh, stage.sharp_images)
    examples, metrics, errors = official_scoring().evaluate_official(stage, model, context)
    write_examples(examples, context.output)
    return rows_of(stage, metrics, step=0, n_items=len(examples), errors=errors)


def _evaluate_text(
    stage: EvaluationStage, config: TrainConfig, model: EvaluatedModel, prepared: PreparedData
) -> tuple[list[Example], dict[str, float]]:
    if stage.shots or stage.condition != "intact":
        raise UserError(f"{stage.task} has no images to shuffle and takes no demonstrations")
    size = config.encoder.image_size

    def losses(sequences: Sequence[Packed]) -> np.ndarray:
        batch: Batch = dict(lay_out(sequences, config.view_tokens))
        batch["images"] = np.zeros((len(sequences), 1, size, size, 3), np.uint8)
        return model.token_losses(batch)

    held_out_text = task_module(stage.task)
    scores = held_out_text.score(
        losses, prepared, config.data.text_tokens, stage.items, stage.seed, stage.batch_size
    )
    return held_out_text.examples(scores), held_out_text.metrics(scores)


def _evaluate_generation(
    stage: EvaluationStage,
    model: EvaluatedModel,
    prepared: PreparedData,
    context: Context,
) -> tuple[list[Example], dict[str, float]]:
    task: GenerationTask = task_module(stage.task).TASK
    all_items = task.items(prepared)
    pool = task.demonstrations(prepared)
    kinds = prompts.by_kind(pool)
    items = prompts.subset(all_items, stage.items, stage.seed, task.name)
    shown = [item.image_id for item in items]
    if stage.condition == "shuffled":
        other = prompts.derangement(shown, stage.seed, task.name)
        shown = [other[image_id] for image_id in shown]
    asked = [
        prompts.build(
            item,
            image_id,
            prompts.draw_demonstrations(
                kinds,
                stage.shots,
                stage.seed,
                task.name,
                item,
                wrong=stage.condition == "wrong_demonstrations",
            ),
            model.template,
        )
        for item, image_id in zip(items, shown, strict=True)
    ]
    if stage.condition == "no_image":
        asked = [prompts.without_images(prompt) for prompt in asked]
        shown = [-1] * len(items)
    # No answer is longer than the longest one seen in training; one more token for `<|end|>`.
    responses = prepared.tokenizer.encode_batch(list({example.response for example in pool}))
    predictions = ask(
        model,
        asked,
        pictures=prepared.images,
        longest=max(len(response) for response in responses) + 1,
        batch_size=stage.batch_size,
        context=context,
    )
    score = task.score(items, predictions, all_items, pool)
    examples = [
        Example(
            item_id=item.item_id,
            image_id=image_id,
            prompt=prompts.as_text(prompt),
            prediction=prediction,
            references=list(item.references),
            score=value,
        )
        for item, image_id, prompt, prediction, value in zip(
            items, shown, asked, predictions, score.items, strict=True
        )
    ]
    return examples, score.metrics
