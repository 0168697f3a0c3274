"""Perplexity on Wikipedia leads whose titles were held out of training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm1_jax.config import TrainConfig
from mm1_jax.data.draws import generator
from mm1_jax.data.packing import Budget, cut, fill, lay_out, pack
from mm1_jax.data.prepared import PreparedData
from mm1_jax.errors import UserError
from mm1_jax.model import MultimodalModel

NAME = "held_out_text"


@dataclass(frozen=True)
class TextScore:
    """Negative log-likelihood of one document."""

    name: str
    text: str
    nats: float
    tokens: int  # that were predicted: all but the first of each piece, and `<|end|>`
    text_bytes: int  # UTF-8 bytes of the predicted tokens


def score(
    config: TrainConfig,
    model: MultimodalModel,
    prepared: PreparedData,
    items: int | None,
    seed: int,
    batch_size: int,
) -> list[TextScore]:
    """Score every held-out text, or a fixed random subset of `items`, in pieces as in training.

    A text longer than `data.text_tokens` is cut as training cuts it, so an arm with longer
    sequences sees more context. UserError if there are not that many texts.
    """
    table = prepared.documents("text", "test")
    budget = Budget(config.data.text_tokens, 1)  # the model takes at least one image slot
    pieces = cut(table, budget)
    if items is not None:
        if items > len(table):
            raise UserError(f"items: {items} of {NAME}: the test split has {len(table)}")
        chosen = np.sort(generator(seed, "subset", NAME).permutation(len(table))[:items])
        pieces = pieces.take(np.flatnonzero(np.isin(pieces.document, chosen)))
    filled = fill(pieces, budget)
    length_in_bytes = prepared.tokenizer.bytes_of_tokens()
    nats, counts, text_bytes = np.zeros((3, len(table)))
    graphdef, state = nnx.split(model)
    empty = pack(table, pieces, np.arange(0), budget)
    for first in range(0, len(filled), batch_size):
        rows = filled[first : first + batch_size]
        sequences = [pack(table, pieces, chosen, budget) for chosen in rows]
        sequences += [empty] * (batch_size - len(sequences))
        batch = lay_out(sequences, config.image_tokens)
        size = config.encoder.image_size
        batch["images"] = np.zeros((batch_size, budget.images, size, size, 3), np.uint8)
        losses = np.asarray(_token_losses(graphdef, state, batch), np.float64)
        for row, chosen in enumerate(rows):
            segments = sequences[row].segments
            for segment, piece in enumerate(chosen, start=1):
                predicted = (segments == segment) & (batch["loss_weights"][row] > 0)
                document = pieces.document[piece]
                nats[document] += losses[row, predicted].sum()
                counts[document] += predicted.sum()
                text_bytes[document] += length_in_bytes[batch["tokens"][row, predicted]].sum()
    return [
        TextScore(
            name=table.names[document],
            text=prepared.tokenizer.decode(table.tokens_of(document)),
            nats=float(nats[document]),
            tokens=int(counts[document]),
            text_bytes=int(text_bytes[document]),
        )
        for document in np.unique(pieces.document)
    ]


@functools.partial(jax.jit, static_argnums=0)
def _token_losses(graphdef: nnx.GraphDef, state: Any, batch: Mapping[str, Any]) -> jax.Array:
    """Cross-entropy in nats of each text token, float32 [B, T]."""
    logits = nnx.merge(graphdef, state)(batch).astype(jnp.float32)
    label = jnp.take_along_axis(logits, batch["tokens"][..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - label
