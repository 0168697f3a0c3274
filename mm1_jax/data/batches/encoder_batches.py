"""Batches of single images, with their captions or alone, for the encoder's own pre-training.

Batch number n follows from (data seed, n) and the data alone: resuming at a step gives the batches
that would have followed, and so does reading with other threads, processes or hosts.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm1_jax.config.encoder_pretraining import AimObjective, EncoderStageConfig
from mm1_jax.data.batches.image_sources import Caption, Drawings, ImageSource, OwnImages
from mm1_jax.data.batches.mixture import mixture_of
from mm1_jax.data.batches.packing import Batch
from mm1_jax.data.batches.reading_ahead import read_ahead
from mm1_jax.data.draws import generator
from mm1_jax.data.own.own_source import opened_source
from mm1_jax.data.sources.drawing_captions import lay_out_captions
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.images.sub_images import ImageViews


class EncoderBatches:
    """Batches by number, as the objective's module reads them; of each only `rows`, if given.

    UserError if the data is not prepared, or own captions have other token ids.
    """

    def __init__(
        self, config: EncoderStageConfig, data_root: Path, seed: int, rows: range | None = None
    ):
        self._arguments = (config, data_root, seed, rows)
        self._config, self._seed = config, config.seeds.for_data_order(seed)
        self._size = config.training.batch_size
        self._rows = rows or range(self._size)
        self._prefixes = isinstance(config.objective, AimObjective)
        self._prepared = open_prepared(config.data, data_root)
        self.sources = {name: self._opened(name) for name in sorted(config.data.read)}
        self._mixture = mixture_of(
            config.data,
            self._size,
            sizes=dict.fromkeys(self.sources, 0),
            tokens_per_sequence={},
            epochs={},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return EncoderBatches, self._arguments

    def __call__(self, number: int) -> Batch:
        """`images` and what the objective reads beside them.

        Each drawing comes with one of its wordings, drawn by (seed, batch). `matches` is True
        wherever a caption of the batch is true of an image: two may have the same.
        """
        first = number * self._size
        places = [self._mixture.place(first + row) for row in range(self._size)]
        own = self._of_sources(places, self._rows)
        pixels = np.zeros((len(self._rows), *[self._config.encoder.image_size] * 2, 3), np.uint8)
        for source, (rows, numbers) in own.items():
            pixels[np.array(rows) - self._rows.start] = self.sources[source].pixels(numbers)
        images = {"images": self._shifted(pixels, number)}
        if self._prefixes:
            draws = generator(self._seed, "prefixes", number)
            prefixes = draws.integers(1, self._config.encoder.patches, self._size)
            return {**images, "prefixes": prefixes[self._rows].astype(np.int32)}
        captions = self._captions(places, number)
        words, length = self._prepared.tokenizer, self._config.text_tokens
        ours = [captions[row].text for row in self._rows]
        tokens, lengths = lay_out_captions(ours, words, length)
        matches = true_of(captions)[self._rows]
        return {**images, "tokens": tokens, "lengths": lengths, "matches": matches}

    def measured(self, after_step: int, step: int) -> dict[str, float]:
        """How many times each source has been gone through so far."""
        counts = self._mixture.counts(step * self._size)
        return {f"epochs.{name}": one.epochs(counts[name]) for name, one in self.sources.items()}

    def _opened(self, name: str) -> ImageSource:
        config, data = self._config, self._config.data
        if name not in data.sources:
            size = config.encoder.image_size
            return Drawings(self._prepared, config.styles, self._seed, size)
        words = None if self._prefixes else self._prepared.tokenizer
        own = opened_source(name, data, None if words is None else self._prepared.folder)
        tower = config.encoder.first if config.encoder.kind == "fused" else config.encoder
        size, background = config.encoder.image_size, data.background
        seen = ImageViews(size, data.fit, pixels=tower.pixels, background=background)
        return OwnImages(own, self._seed, seen, words)

    def _of_sources(
        self, places: Sequence[tuple[str, int]], rows: range
    ) -> dict[str, tuple[list[int], list[int]]]:
        """Source → which of the rows are of it, and the images' numbers there."""
        found: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for row in rows:
            source, inside = places[row]
            found[source][0].append(row)
            found[source][1].append(inside)
        return found

    def _captions(self, places: Sequence[tuple[str, int]], number: int) -> list[Caption]:
        """Of the whole batch: another host's captions are wrong ones for our images."""
        shares = generator(self._seed, "wordings", number).random(self._size)
        captions: dict[int, Caption] = {}
        for source, (rows, numbers) in self._of_sources(places, range(self._size)).items():
            read = self.sources[source].captions(numbers, shares[rows].tolist())
            captions |= dict(zip(rows, read, strict=True))
        return [captions[row] for row in range(self._size)]

    def _shifted(self, images: np.ndarray, number: int) -> np.ndarray:
        shift = self._config.shift
        draws = generator(self._seed, "shifts", number)
        corners = draws.integers(0, 2 * shift + 1, (self._size, 2))[self._rows]
        return shifted(images, shift, corners)


def encoder_batches(batches: EncoderBatches, config: EncoderStageConfig, start: int) -> Iterator:
    """Endless batches from step `start` + 1 on, read ahead."""
    data = config.data
    return read_ahead(batches, sys.maxsize, start, workers=data.workers, files=bool(data.own))


def true_of(captions: Sequence[Caption]) -> np.ndarray:
    """Which captions of a batch are true of which image: bool [images, captions]."""
    columns: dict[str, list[int]] = defaultdict(list)
    for column, caption in enumerate(captions):
        columns[caption.text].append(column)
    matches = np.zeros((len(captions), len(captions)), bool)
    for row, caption in enumerate(captions):
        for text in caption.true:
            matches[row, columns.get(text, [])] = True
    return matches


def shifted(images: np.ndarray, shift: int, corners: np.ndarray) -> np.ndarray:
    """Each image moved by up to `shift` pixels either way: uint8 [n, side, side, 3].

    `corners`, int [n, 2] from 0 to 2 · shift, say where; what comes in repeats the edge.
    """
    side = images.shape[1]
    around = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="edge")
    return np.stack(
        [
            image[y : y + side, x : x + side]
            for image, (y, x) in zip(around, corners.tolist(), strict=True)
        ]
    )
