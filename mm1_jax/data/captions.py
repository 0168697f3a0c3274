"""Batches of single drawings with their captions, for the encoder's own pre-training.

Only the training split is read. Batch number n follows from (data seed, n) alone: resuming at a
step gives the batches that would have followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from mm1_jax.config import DataConfig
from mm1_jax.config.data import Style
from mm1_jax.data.draws import generator
from mm1_jax.data.emoji import Emoji, Split
from mm1_jax.data.packing import Batch
from mm1_jax.data.prepared import PreparedData, open_prepared
from mm1_jax.data.tokenizer import PAD, Tokenizer


class CaptionedDrawings:
    """The training drawings, their wordings, and which wording is true of which drawing."""

    def __init__(self, prepared: PreparedData, styles: Sequence[Style] = ("twemoji",)):
        drawings = [
            drawing for style in styles for drawing in read_drawings(prepared, "train", style)
        ]
        self.image_ids = np.array([drawing.image for drawing in drawings])
        numbers: dict[str, int] = {}
        self.wordings = [
            [numbers.setdefault(text, len(numbers)) for text in drawing.captions]
            for drawing in drawings
        ]
        self.captions = list(numbers)
        self.true_of = np.zeros((len(self.captions), len(drawings)), bool)
        for number, wordings in enumerate(self.wordings):
            self.true_of[wordings, number] = True

    def __len__(self) -> int:
        return len(self.image_ids)


def read_drawings(prepared: PreparedData, split: Split, style: Style = "twemoji") -> list[Emoji]:
    """The drawings of a split, in the order of their code points."""
    name = "emoji" if style == "twemoji" else style
    return [Emoji.model_validate(record) for record in prepared.records(name, split)]


@lru_cache(maxsize=4)
def _captioned(folder: Path, styles: tuple[Style, ...]) -> CaptionedDrawings:
    return CaptionedDrawings(PreparedData(folder), styles)


def drawn(count: int, seed: int, start: int, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Endless (number of the batch, drawings int64 [batch_size]) from batch `start` on.

    Every epoch goes through all `count` drawings once, shuffled by (seed, epoch); a batch may reach
    into the next epoch.
    """
    for number in range(start, 10**12):
        places = np.arange(number * batch_size, (number + 1) * batch_size)
        epochs = places // count
        orders = {
            epoch: generator(seed, "order of drawings", epoch).permutation(count)
            for epoch in np.unique(epochs).tolist()
        }
        yield (
            number,
            np.array([orders[e][p % count] for e, p in zip(epochs.tolist(), places, strict=True)]),
        )


def caption_batches(
    data: DataConfig,
    data_root: Path,
    *,
    seed: int,
    start: int,
    batch_size: int,
    image_size: int,
    styles: tuple[Style, ...] = ("twemoji",),
    shift: int = 0,
) -> Iterator[Batch]:
    """Endless batches of images and captions, from batch `start` on, as `ContrastiveModel` reads.

    Each drawing comes with one of its wordings, drawn by (seed, batch). `matches` is True wherever
    a caption of the batch is one of a drawing's wordings: two drawings may share a name.
    """
    prepared = open_prepared(data, data_root)
    pairs = _captioned(prepared.folder, styles)
    tokens, lengths = lay_out_captions(pairs.captions, prepared.tokenizer, data.text_tokens)
    for number, drawings in drawn(len(pairs), seed, start, batch_size):
        shares = generator(seed, "wordings", number).random(batch_size)
        wordings = [pairs.wordings[drawing] for drawing in drawings]
        chosen = np.array([w[int(s * len(w))] for w, s in zip(wordings, shares, strict=True)])
        images = prepared.images.at_size(pairs.image_ids[drawings], image_size)
        yield {
            "images": shifted(images, shift, generator(seed, "shifts", number)),
            "tokens": tokens[chosen],
            "lengths": lengths[chosen],
            "matches": pairs.true_of[np.ix_(chosen, drawings)].T,
        }


def prefix_batches(
    data: DataConfig,
    data_root: Path,
    *,
    seed: int,
    start: int,
    batch_size: int,
    image_size: int,
    patches: int,
    styles: tuple[Style, ...] = ("twemoji",),
    shift: int = 0,
) -> Iterator[Batch]:
    """Endless batches of the same images, with a prefix of 1 … patches - 1 drawn for each."""
    prepared = open_prepared(data, data_root)
    pairs = _captioned(prepared.folder, styles)
    for number, drawings in drawn(len(pairs), seed, start, batch_size):
        prefixes = generator(seed, "prefixes", number).integers(1, patches, batch_size)
        images = prepared.images.at_size(pairs.image_ids[drawings], image_size)
        yield {
            "images": shifted(images, shift, generator(seed, "shifts", number)),
            "prefixes": prefixes.astype(np.int32),
        }


def shifted(images: np.ndarray, shift: int, draws: np.random.Generator) -> np.ndarray:
    """Each image moved by up to `shift` pixels either way: uint8 [n, side, side, 3].

    What comes in repeats the edge.
    """
    side = images.shape[1]
    around = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    corners = draws.integers(0, 2 * shift + 1, (len(images), 2)).tolist()
    return np.stack(
        [image[y : y + side, x : x + side] for image, (y, x) in zip(around, corners, strict=True)]
    )


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
