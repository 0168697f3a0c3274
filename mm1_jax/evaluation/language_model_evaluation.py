"""Scoring a language model as its own pre-training left it: perplexity beside an n-gram's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ablations.errors import UserError, nearest
from ablations.stage import Context, ResultRow
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.training import MeshConfig
from mm1_jax.data.batches.packing import Packed, lay_out_texts
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.data.tokenizer import check_same
from mm1_jax.evaluation.by_name import official_scoring, task_module
from mm1_jax.evaluation.evaluated_model import EvaluatedModel
from mm1_jax.evaluation.evaluation_mesh import check_mesh, evaluation_mesh, mesh_of_checkpoint
from mm1_jax.evaluation.evaluation_stage import EvaluationStage, rows_of, write_examples
from mm1_jax.evaluation.tasks import held_out_text
from mm1_jax.model.language_model import LanguageModel, load_language_model
from mm1_jax.weights import weights_folder
from mm1_jax.weights.imported_tokenizer import ends_of, imported_tokenizer
from mm1_jax.weights.part_weights import filled, language_model_weights

PRETRAINED_TEXT = "pretrained_text"


def evaluate(config: Mapping[str, Any], model_folder: Path, context: Context) -> list[ResultRow]:
    """Run one task on the checkpoint of a `language_model` stage and write `examples.parquet`.

    An official task of text, or the held-out texts beside an n-gram: both then read the training
    texts in pieces of the checkpoint's `text_tokens`, and predict the same tokens of the held-out
    ones. UserError for another task, or a form that it cannot have.
    """
    stage = EvaluationStage.model_validate(dict(config))
    if stage.official is not None:
        asked, step = evaluated_language_model(model_folder, context.data, stage.mesh)
        examples, metrics, errors = official_scoring().evaluate_official(stage, asked, context)
        write_examples(examples, context.output)
        return rows_of(stage, metrics, step=step, n_items=len(examples), errors=errors)
    known = (PRETRAINED_TEXT,)
    if stage.task not in known:
        raise UserError(
            f"unknown task of a language model {stage.task!r}{nearest(stage.task, known)}"
        )
    if stage.shots or stage.condition != "intact":
        raise UserError(f"{stage.task} asks no questions: no images to shuffle, no demonstrations")
    mesh = mesh_of_checkpoint(model_folder, stage.mesh)
    trained, module = load_language_model(model_folder, mesh)
    prepared = open_prepared(trained.data, context.data)
    model = EvaluatedModel(module, prepared.tokenizer, mesh=mesh)

    def losses(sequences: Sequence[Packed]) -> np.ndarray:
        return model.token_losses(dict(lay_out_texts(sequences)))

    score = functools.partial(
        held_out_text.score,
        prepared=prepared,
        text_tokens=trained.text_tokens,
        items=stage.items,
        seed=stage.seed,
        batch_size=stage.batch_size,
        task=stage.task,
    )
    scores = score(losses)
    pretrained_text = task_module(stage.task)
    counted = pretrained_text.training_ngrams(prepared.folder, trained.text_tokens)
    beside = held_out_text.metrics(score(pretrained_text.ngram_losses(counted)))
    metrics = held_out_text.metrics(scores)
    metrics |= {f"ngram_{name}": value for name, value in beside.items()}
    write_examples(held_out_text.examples(scores), context.output)
    return rows_of(stage, metrics, step=trained.training.steps, n_items=len(scores))


def evaluated_language_model(
    folder: Path, data_root: Path, stated: MeshConfig | None = None
) -> tuple[EvaluatedModel, int]:
    """A language model with its tokenizer, and the last step of its training (0: not here).

    A checkpoint of ours, one that was imported, or a folder of Hugging Face's; over the mesh that
    is `stated`, see `evaluation_mesh`. UserError where there is no tokenizer for it.
    """
    if not weights_folder.is_imported(folder):
        mesh = mesh_of_checkpoint(folder, stated)
        trained, model = load_language_model(folder, mesh)
        words = open_prepared(trained.data, data_root).tokenizer
        check_same(words, folder)
        return EvaluatedModel(model, words, ends=(words.end,), mesh=mesh), trained.training.steps
    found = language_model_weights(folder)
    check_mesh(stated, found.config, found.vocabulary)
    count = sum(leaf.size for leaf in jax.tree.leaves(found.tree))
    mesh = evaluation_mesh(stated, MeshConfig(), count)
    shape = LanguageModelStageConfig(language_model=found.config, vocabulary=found.vocabulary)
    model = filled(LanguageModel(shape), {"language_model": found.tree}, mesh)
    words = imported_tokenizer(folder, found.vocabulary)
    return EvaluatedModel(model, words, ends=ends_of(folder) or (words.end,), mesh=mesh), 0
