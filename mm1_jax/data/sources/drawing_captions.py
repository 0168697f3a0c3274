"""Captions as the encoder's own pre-training reads them, and the drawings that have some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mm1_jax.config.embedded_sources import Style
from mm1_jax.data.sources.emoji import Emoji, Split
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.data.tokenizer import PAD, Tokenizer


class CaptionedDrawings:
    """The training drawings and all wordings that are true of each."""

    def __init__(self, prepared: PreparedData, styles: Sequence[Style] = ("twemoji",)):
        drawings = [
            drawing for style in styles for drawing in read_drawings(prepared, "train", style)
        ]
        self.image_ids = np.array([drawing.image for drawing in drawings])
        self.wordings = [tuple(drawing.captions) for drawing in drawings]

    def __len__(self) -> int:
        return len(self.image_ids)


def read_drawings(prepared: PreparedData, split: Split, style: Style = "twemoji") -> list[Emoji]:
    """The drawings of a split, in the order of their code points."""
    name = "emoji" if style == "twemoji" else style
    return [Emoji.model_validate(record) for record in prepared.records(name, split)]


def lay_out_captions(
    texts: Sequence[str], tokenizer: Tokenizer, text_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Texts → tokens int32 [texts, text_tokens], lengths int32 [texts] with `<|end|>`.

    A text that is too long loses its last tokens, never its end.
    """
    tokens = np.full((len(texts), text_tokens), PAD, np.int32)
    lengths = np.zeros(len(texts), np.int32)
    for row, ids in enumerate(tokenizer.encode_batch(list(texts))):
        kept = [*ids[: text_tokens - 1], tokenizer.end]
        tokens[row, : len(kept)] = kept
        lengths[row] = len(kept)
    return tokens, lengths
