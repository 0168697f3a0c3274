"""Scoring a language model as its own pre-training left it: perplexity beside an n-gram's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mm1_jax.data.packing import Packed, lay_out_texts
from mm1_jax.data.prepared import open_prepared
from mm1_jax.errors import UserError, nearest
from mm1_jax.evaluation_stage import EvaluationStage, rows_of, write_examples
from mm1_jax.language_model import load_language_model
from mm1_jax.stage import Context, ResultRow
from mm1_jax.tasks import held_out_text, pretrained_text


def evaluate(config: Mapping[str, Any], model_folder: Path, context: Context) -> list[ResultRow]:
    """Run one task on the checkpoint of a `language_model` stage and write `examples.parquet`.

    Both models read the training texts in pieces of the checkpoint's `text_tokens`, and predict
    the same tokens of the held-out ones. UserError for another task, or a form that it cannot have.
    """
    stage = EvaluationStage.model_validate(dict(config))
    known = (pretrained_text.NAME,)
    if stage.task not in known:
        raise UserError(
            f"unknown task of a language model {stage.task!r}{nearest(stage.task, known)}"
        )
    if stage.shots or stage.condition != "intact":
        raise UserError(f"{stage.task} asks no questions: no images to shuffle, no demonstrations")
    trained, model = load_language_model(model_folder)
    prepared = open_prepared(trained.data, context.data)
    graphdef, state = nnx.split(model)

    def losses(sequences: Sequence[Packed]) -> np.ndarray:
        return np.asarray(_token_losses(graphdef, state, lay_out_texts(sequences)))

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
    counted = pretrained_text.training_ngrams(prepared.folder, trained.text_tokens)
    beside = held_out_text.metrics(score(pretrained_text.ngram_losses(counted)))
    metrics = held_out_text.metrics(scores)
    metrics |= {f"ngram_{name}": value for name, value in beside.items()}
    write_examples(held_out_text.examples(scores), context.output)
    return rows_of(stage, metrics, step=trained.training.steps, n_items=len(scores))


@functools.partial(jax.jit, static_argnums=0)
def _token_losses(graphdef: nnx.GraphDef, state: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Cross-entropy in nats of each token, float32 [B, T]."""
    return nnx.merge(graphdef, state).token_losses(batch)
