"""The held-out texts again, for a language model alone, beside an n-gram of the same training."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mm1_jax.data.batches.packing import Budget, Packed, cut
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.evaluation.ngrams import KneserNey, fit_ngrams
from mm1_jax.evaluation.tasks.held_out_text import TokenLosses

NAME = "pretrained_text"


@functools.lru_cache(maxsize=1)
def training_ngrams(folder: Path, text_tokens: int) -> KneserNey:
    """The n-gram model of the training texts, cut into the pieces that a language model sees.

    Of the prepared data in `folder`; kept, as the arms and seeds of a study ask for the same.
    """
    prepared = PreparedData(folder)
    table = prepared.documents("text", "train")
    pieces = cut(table, Budget(text_tokens, 0))
    texts = [
        table.tokens[start:end]
        for start, end in zip(pieces.text_start, pieces.text_end, strict=True)
    ]
    return fit_ngrams(texts, prepared.tokenizer.vocabulary)


def ngram_losses(model: KneserNey) -> TokenLosses:
    """Nats of each token given what precedes it in its piece, as a language model would see it."""

    def losses(sequences: Sequence[Packed]) -> np.ndarray:
        nats = np.zeros((len(sequences), len(sequences[0].tokens)))
        for row, sequence in zip(nats, sequences, strict=True):
            places = [
                np.flatnonzero(sequence.segments == segment)
                for segment in range(1, int(sequence.segments.max()) + 1)
            ]
            if places:
                texts = [sequence.tokens[own] for own in places]
                row[np.concatenate(places)] = np.concatenate(model.nats(texts))
        return nats

    return losses
