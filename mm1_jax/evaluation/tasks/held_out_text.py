"""Perplexity on Wikipedia leads whose titles were held out of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.errors import UserError
from mm1_jax.data.batches.packing import Budget, Packed, cut, fill, lay_out_texts, pack
from mm1_jax.data.draws import generator
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.evaluation_stage import Example
from mm1_jax.evaluation.metrics.likelihood import bits_per_byte, perplexity

NAME = "held_out_text"
_ROWS = 32  # packed texts at once; more is no faster, and their logits are large

# Packed texts → negative log-likelihood in nats of each token, [texts, T]; an unpredicted one's
# is not read.
TokenLosses = Callable[[Sequence[Packed]], np.ndarray]


@dataclass(frozen=True)
class TextScore:
    """Negative log-likelihood of one document."""

    name: str
    text: str
    nats: float
    tokens: int  # that were predicted: all but the first of each piece, and `<|end|>`
    text_bytes: int  # UTF-8 bytes of the predicted tokens


def score(
    token_losses: TokenLosses,
    prepared: PreparedData,
    text_tokens: int,
    items: int | None,
    seed: int,
    batch_size: int,
    task: str = NAME,
) -> list[TextScore]:
    """Score the held-out texts in pieces as in training; `token_losses` gets full batches.

    A text longer than `text_tokens` is cut as training cuts it, so an arm with longer sequences
    sees more context. UserError if there are not `items` texts.
    """
    budget = Budget(text_tokens, 1)  # the whole model takes at least one image slot
    table = prepared.documents("text", "test")
    pieces = cut(table, budget)
    if items is not None:
        if items > len(table):
            raise UserError(f"items: {items} of {task}: the test split has {len(table)}")
        chosen = np.sort(generator(seed, "subset", NAME).permutation(len(table))[:items])
        pieces = pieces.take(np.flatnonzero(np.isin(pieces.document, chosen)))
    filled = fill(pieces, budget)
    length_in_bytes = prepared.tokenizer.bytes_of_tokens()
    nats, counts, text_bytes = np.zeros((3, len(table)))
    empty = pack(table, pieces, np.arange(0), budget)
    batch_size = min(batch_size, _ROWS)
    for first in range(0, len(filled), batch_size):
        rows = filled[first : first + batch_size]
        sequences = [pack(table, pieces, chosen, budget) for chosen in rows]
        sequences += [empty] * (batch_size - len(sequences))
        losses = np.asarray(token_losses(sequences), np.float64)
        batch = lay_out_texts(sequences)
        for row, chosen in enumerate(rows):
            for segment, piece in enumerate(chosen, start=1):
                predicted = (batch["segments"][row] == segment) & (batch["loss_weights"][row] > 0)
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


def metrics(scores: Sequence[TextScore]) -> dict[str, float]:
    """Perplexity per predicted token, and bits per byte of them."""
    nats = sum(score.nats for score in scores)
    return {
        "perplexity": perplexity(nats, sum(score.tokens for score in scores)),
        "bits_per_byte": bits_per_byte(nats, sum(score.text_bytes for score in scores)),
    }


def examples(scores: Sequence[TextScore]) -> list[Example]:
    """One a text: its nats per token, weighted by its tokens."""
    return [
        Example(s.name, -1, "", "", [s.text], score=s.nats / s.tokens, weight=s.tokens)
        for s in scores
    ]
