"""Endless images of one source, by number, each with what is said of it: for the encoder alone.

Every epoch shows each image once, in another order. Which image a number is follows from the seed
and the data, without the images before it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ablations.errors import UserError
from mm1_jax.config.embedded_sources import Style
from mm1_jax.data.batches.windows import Windows
from mm1_jax.data.draws import generator
from mm1_jax.data.own.own_source import OwnSource, Window
from mm1_jax.data.sources.drawing_captions import CaptionedDrawings
from mm1_jax.data.sources.prepared_packages import PreparedData
from mm1_jax.data.tokenizer import Tokenizer
from mm1_jax.images.sub_images import ImageViews

_KEPT_WINDOWS = 2


@dataclass(frozen=True)
class Caption:
    """What an image comes with, and all texts that are true of it."""

    text: str
    true: tuple[str, ...]


class ImageSource(Protocol):
    """See the module."""

    def pixels(self, numbers: Sequence[int]) -> np.ndarray:
        """uint8 [numbers, size, size, 3]."""
        ...

    def captions(self, numbers: Sequence[int], shares: Sequence[float]) -> list[Caption]:
        """What each comes with; its share, from 0 to 1, chooses where there are several."""
        ...

    def epochs(self, images: int) -> float:
        """How many times the first so many images have gone through the source."""
        ...


class Drawings:
    """The embedded drawings of the training split, with their wordings."""

    def __init__(self, prepared: PreparedData, styles: tuple[Style, ...], seed: int, size: int):
        self._pairs, self._seed, self._size = _captioned(prepared.folder, styles), seed, size
        self._table = prepared.images

    def pixels(self, numbers: Sequence[int]) -> np.ndarray:
        """As of `ImageSource`."""
        drawings = drawings_at(len(self._pairs), self._seed, numbers)
        return self._table.at_size(self._pairs.image_ids[drawings], self._size)

    def captions(self, numbers: Sequence[int], shares: Sequence[float]) -> list[Caption]:
        """As of `ImageSource`."""
        drawings = drawings_at(len(self._pairs), self._seed, numbers)
        wordings = [self._pairs.wordings[drawing] for drawing in drawings.tolist()]
        return [
            Caption(true[int(share * len(true))], true)
            for true, share in zip(wordings, shares, strict=True)
        ]

    def epochs(self, images: int) -> float:
        """As of `ImageSource`."""
        return images / len(self._pairs)


@lru_cache(maxsize=4)
def _captioned(folder: Path, styles: tuple[Style, ...]) -> CaptionedDrawings:
    return CaptionedDrawings(PreparedData(folder), styles)


def drawings_at(count: int, seed: int, numbers: Sequence[int]) -> np.ndarray:
    """Which of `count` drawings stand at these places of the endless order: int64 [numbers].

    Every epoch goes through all of them once, shuffled by (seed, epoch).
    """
    places = np.asarray(numbers, np.int64)
    epochs = places // count
    orders = {
        epoch: generator(seed, "order of drawings", epoch).permutation(count)
        for epoch in np.unique(epochs).tolist()
    }
    return np.array(
        [orders[e][p % count] for e, p in zip(epochs.tolist(), places, strict=True)], np.int64
    )


class OwnImages:
    """The images of one's own prepared documents, each with what its document says.

    Only the window of shards that is read is in memory; how many images the others have stands in
    the folder's list of shards, so any number is found at once. UserError if there are no images.
    """

    def __init__(self, source: OwnSource, seed: int, seen: ImageViews, words: Tokenizer | None):
        self._source, self._seen, self._words = source, seen, words
        self._sizes = np.array(source.shard_images, np.int64)
        self.per_epoch = int(self._sizes.sum())
        if not self.per_epoch:
            raise UserError(f"data.sources.{source.name}: {source.folder.url} holds no images")
        self._windows = Windows(source.name, source.shard_images, seed)
        self._before: dict[int, np.ndarray] = {}
        self._kept: OrderedDict[int, tuple[Window, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def pixels(self, numbers: Sequence[int]) -> np.ndarray:
        """As of `ImageSource`. Files are fetched side by side."""
        found = [self._image(number) for number in numbers]
        files = [window.image_file(image, document) for window, image, document in found]
        views = self._source.images(files, self._seen)
        return np.stack([one[0] for one in views])

    def captions(self, numbers: Sequence[int], shares: Sequence[float]) -> list[Caption]:
        """As of `ImageSource`; there is one each."""
        assert self._words is not None
        found = [self._image(number) for number in numbers]
        texts: list[str] = [""] * len(found)
        for window in {id(window): window for window, _, _ in found}.values():
            rows = [row for row, (own, _, _) in enumerate(found) if own is window]
            answers = self._source.answers(window, [found[row][2] for row in rows])
            for row, answer in zip(rows, answers, strict=True):
                texts[row] = self._words.decode(answer).strip()
        return [Caption(text, (text,)) for text in texts]

    def epochs(self, images: int) -> float:
        """As of `ImageSource`."""
        return images / self.per_epoch

    def _image(self, number: int) -> tuple[Window, int, int]:
        """The window that an image is in, and its number and its document's there."""
        epoch, inside = divmod(number, self.per_epoch)
        counts = self._counts(epoch)
        place = int(np.searchsorted(counts, inside, side="right")) - 1
        window, order = self._window(epoch * self._windows.per_epoch + place)
        image = int(order[inside - counts[place]])
        document = int(np.searchsorted(window.outline.image_starts, image, side="right")) - 1
        return window, image, document

    def _counts(self, epoch: int) -> np.ndarray:
        """Images before each window of an epoch: int64 [windows + 1]."""
        if epoch not in self._before:
            windows = range(epoch * self._windows.per_epoch, (epoch + 1) * self._windows.per_epoch)
            held = [self._sizes[self._windows.shards(window)].sum() for window in windows]
            self._before[epoch] = np.cumsum([0, *held])
        return self._before[epoch]

    def _window(self, number: int) -> tuple[Window, np.ndarray]:
        with self._lock:  # batches are read ahead by several threads
            if number not in self._kept:
                window = self._source.window(self._windows.shards(number))
                order = self._windows.draws("order of images", number)
                self._kept[number] = window, order.permutation(len(window.images))
                while len(self._kept) > _KEPT_WINDOWS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
            return self._kept[number]
