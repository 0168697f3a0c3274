"""Endless packed sequences of one source, by number, through all epochs.

An epoch goes through the source window by window (`data.batches.windows`): the documents of one are
shuffled and packed together.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ablations.errors import UserError
from mm1_jax.data.batches.known_windows import FILE
from mm1_jax.data.batches.packing import Budget, Packed, Pieces, cut, fill, pack
from mm1_jax.data.batches.windows import Windows
from mm1_jax.data.documents import DocumentTable, replaced
from mm1_jax.data.sources.prepared_packages import PreparedData

_KEPT_WINDOWS = 2


class Source(Protocol):
    """Documents in shards."""

    name: str

    @property
    def shard_documents(self) -> list[int]:
        """How many documents each shard has."""
        ...

    @property
    def text_tokens(self) -> int:
        """All documents' text tokens."""
        ...

    def window(self, shards: Sequence[int]) -> Any:
        """What packing reads of some shards; `outline` is their `DocumentTable` without texts."""
        ...

    def pack(self, window: Any, pieces: Pieces, chosen: np.ndarray, budget: Budget) -> Packed:
        """The chosen pieces of a window in one sequence."""
        ...


@dataclass(frozen=True)
class WholeTable:
    """The one window of an embedded source."""

    outline: DocumentTable


class EmbeddedSource:
    """Documents that every installation has, in one shard; a share `rich` of them rewritten."""

    def __init__(self, name: str, folder: Path, rich: float = 0.0):
        self.name = name
        prepared = PreparedData(folder)
        self._table = prepared.documents(name, "train")
        if rich:
            self._table = replaced(self._table, prepared.documents(f"rich_{name}", "train"), rich)

    @property
    def shard_documents(self) -> list[int]:
        """All in one."""
        return [len(self._table)]

    @property
    def text_tokens(self) -> int:
        """All documents' text tokens."""
        return len(self._table.tokens)

    def window(self, shards: Sequence[int]) -> WholeTable:
        """The whole table."""
        return WholeTable(self._table)

    def pack(
        self, window: WholeTable, pieces: Pieces, chosen: np.ndarray, budget: Budget
    ) -> Packed:
        """The chosen pieces in one sequence."""
        return pack(window.outline, pieces, chosen, budget, self.name)


@dataclass(frozen=True)
class PackedWindow:
    """Which pieces of a window are in which sequence."""

    window: Any
    pieces: Pieces
    order: np.ndarray  # int64 [pieces], sequence after sequence
    starts: np.ndarray  # int64 [sequences + 1], in `order`
    text: np.ndarray  # int32 [sequences], text tokens in use
    images: np.ndarray  # int32 [sequences], image slots in use

    def __len__(self) -> int:
        return len(self.starts) - 1

    def chosen(self, sequence: int) -> np.ndarray:
        """The pieces of one sequence."""
        return self.order[self.starts[sequence] : self.starts[sequence + 1]]


@dataclass(frozen=True)
class Use:
    """What a run of sequences holds."""

    sequences: int = 0
    text: int = 0  # tokens
    images: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(
            self.sequences + other.sequences, self.text + other.text, self.images + other.images
        )


class PackedSource:
    """Packed sequences of one source, by number.

    `known` is what `first_sequences` was of the same source before: its windows need no packing to
    find a sequence after them.
    """

    def __init__(self, source: Source, budget: Budget, seed: int, known: Sequence[int] = ()):
        self.source = source
        self._budget = budget
        self._windows = Windows(source.name, source.shard_documents, seed)
        # The number of each window's first sequence, as far as is known.
        self._first = list(known) or [0]
        self._kept: OrderedDict[int, PackedWindow] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Packed:
        """Sequence `index`, counted through all epochs."""
        window, inside = self._place(index)
        packed = self._window(window)
        chosen = packed.chosen(inside)
        return self.source.pack(packed.window, packed.pieces, chosen, self._budget)

    @property
    def first_sequences(self) -> list[int]:
        """The number of each window's first sequence, as far as is known."""
        with self._lock:
            return list(self._first)

    def first_epoch(self) -> int:
        """How many sequences the first epoch has; packs it."""
        with self._lock:
            self._know(self._windows.per_epoch)
        return self._first[self._windows.per_epoch]

    def epochs(self, sequences: int) -> float:
        """How many times the first so many sequences have gone through the source."""
        if sequences == 0:
            return 0.0
        window, inside = self._place(sequences - 1)
        return (window + (inside + 1) / len(self._window(window))) / self._windows.per_epoch

    def use(self, start: int, end: int) -> Use:
        """What the sequences from `start` to before `end` hold."""
        total = Use()
        while start < end:
            window, inside = self._place(start)
            packed = self._window(window)
            some = slice(inside, min(len(packed), inside + end - start))
            count = some.stop - some.start
            total += Use(count, int(packed.text[some].sum()), int(packed.images[some].sum()))
            start += count
        return total

    def _place(self, index: int) -> tuple[int, int]:
        """The window that a sequence is in, counted through all epochs, and its number there."""
        with self._lock:  # Grain reads ahead from other threads
            while index >= self._first[-1]:
                self._know(len(self._first))
        window = bisect.bisect_right(self._first, index) - 1
        return window, index - self._first[window]

    def _window(self, number: int) -> PackedWindow:
        with self._lock:
            return self._packed(number)

    def _know(self, windows: int) -> None:
        """Pack windows until the first sequence after so many of them is known."""
        while len(self._first) <= windows:
            self._first.append(self._first[-1] + len(self._packed(len(self._first) - 1)))

    def _packed(self, number: int) -> PackedWindow:
        if number not in self._kept:
            self._kept[number] = packed = self._pack_window(number)
            ends = self._first[number] + len(packed)
            if self._first[number + 1 : number + 2] not in ([], [ends]):
                raise UserError(
                    f"window {number} of {self.source.name} has {len(packed)} sequences and not "
                    f"those that {FILE} beside the checkpoint says; remove that file"
                )
            while len(self._kept) > _KEPT_WINDOWS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _pack_window(self, number: int) -> PackedWindow:
        window = self.source.window(self._windows.shards(number))
        pieces = cut(window.outline, self._budget)
        order = shuffled_pieces(pieces, self._windows.draws("order of documents", number))
        shuffled = pieces.take(order)
        filled = fill(shuffled, self._budget)
        starts = np.cumsum([0, *(len(chosen) for chosen in filled)])
        order = order[np.concatenate([np.zeros(0, np.int64), *filled])]

        def used(start: np.ndarray, end: np.ndarray) -> np.ndarray:
            total = np.concatenate([[0], np.cumsum((end - start)[order])])
            return np.diff(total[starts]).astype(np.int32)

        text = used(pieces.text_start, pieces.text_end)
        images = used(pieces.image_start, pieces.image_end)
        return PackedWindow(window, pieces, order, starts, text, images)


def shuffled_pieces(pieces: Pieces, draws: np.random.Generator) -> np.ndarray:
    """Piece numbers with the documents shuffled: int64 [pieces].

    Pieces of one document stay together and in order.
    """
    if not len(pieces):
        return np.zeros(0, np.int64)
    documents = int(pieces.document[-1]) + 1
    rank = draws.permutation(documents)
    return np.argsort(rank[pieces.document], kind="stable")
