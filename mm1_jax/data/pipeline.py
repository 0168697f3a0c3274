"""The stream of training batches: shuffled, packed, mixed, laid out, with images.

Batch number n depends on (data seed, source, epoch) and the packing only, and can be computed
without its predecessors' arrays: resuming at a step gives the batches that would have followed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import grain
import numpy as np

from mm1_jax.config import DataConfig, TrainConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.data.documents import DocumentTable
from mm1_jax.data.draws import generator
from mm1_jax.data.images import image_views
from mm1_jax.data.packing import (
    Batch,
    Budget,
    Packed,
    Pieces,
    budget_of,
    cut,
    fill,
    lay_out,
    lay_out_texts,
    pack,
)
from mm1_jax.data.prepared import PreparedData, open_prepared
from mm1_jax.sub_images import views_of


class PackedSource:
    """Endless packed sequences of one source, by number: a Grain random-access source."""

    def __init__(self, folder: Path, source: str, budget: Budget, seed: int):
        self._source = source
        self._budget = budget
        self._seed = seed
        self._table, self._pieces = _cut_documents(folder, source, budget)
        self._sequences: list[np.ndarray] = []  # piece numbers of each, of all epochs so far
        self._epochs = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Packed:
        """Sequence `index`, counted through all epochs."""
        with self._lock:  # Grain reads ahead from other threads
            while index >= len(self._sequences):
                order = shuffled_pieces(self._pieces, self._seed, self._source, self._epochs)
                filled = fill(self._pieces.take(order), self._budget)
                self._sequences += [order[chosen] for chosen in filled]
                self._epochs += 1
        return pack(self._table, self._pieces, self._sequences[index], self._budget, self._source)


def shuffled_pieces(pieces: Pieces, seed: int, source: str, epoch: int) -> np.ndarray:
    """Piece numbers with the documents shuffled by (seed, source, epoch): int64 [pieces].

    Pieces of one document stay together and in order.
    """
    documents = int(pieces.document[-1]) + 1
    rank = generator(seed, "order of documents", source, epoch).permutation(documents)
    return np.argsort(rank[pieces.document], kind="stable")


@lru_cache(maxsize=16)
def _cut_documents(folder: Path, source: str, budget: Budget) -> tuple[DocumentTable, Pieces]:
    table = PreparedData(folder).documents(source, "train")
    return table, cut(table, budget)


def sequences(config: TrainConfig, data_root: Path, seed: int) -> grain.MapDataset[Packed]:
    """Packed sequences of all sources, mixed by the weights, by number.

    UserError if the data is not prepared.
    """
    order = config.seeds.for_data_order(seed)
    return mixed_sequences(config.data, budget_of(config), data_root, order)


def mixed_sequences(
    data: DataConfig, budget: Budget, data_root: Path, order: int
) -> grain.MapDataset[Packed]:
    """Packed sequences of the data's sources, mixed by the weights, by number; `order` is a seed.

    The mixture follows a fixed pattern (Grain's): after n sequences each source has had its share
    of n, up to rounding. UserError if the data is not prepared.
    """
    folder = open_prepared(data, data_root).folder
    weights = data.mixture.weights
    sources = [
        grain.MapDataset.source(PackedSource(folder, name, budget, order)) for name in weights
    ]
    return grain.MapDataset.mix(sources, list(weights.values()))


def batches(
    config: TrainConfig, data_root: Path, seed: int, start_step: int = 0
) -> Iterator[Batch]:
    """Endless batches as `lay_out` describes, with `images` uint8 [B, I, H, W, 3], from a step on.

    The order of documents comes from `seeds.data_order`, or else from `seed`; encoder, connector
    and language model do not change it. Images are brought to the encoder's size; I counts their
    views.
    """
    images, seen = open_prepared(config.data, data_root).images, views_of(config)

    def assemble(packed: Sequence[Packed]) -> Batch:
        rows = [images.in_views(one, seen, config.image_slots) for one in packed]
        batch = lay_out(rows, config.view_tokens, config.sequence_length)
        return {"images": images.views(*image_views(rows), seen), **batch}

    stream = sequences(config, data_root, seed)
    return _batched(stream, config.training.batch_size, assemble, start_step)


def text_batches(
    config: LanguageModelStageConfig, data_root: Path, seed: int, start_step: int = 0
) -> Iterator[Batch]:
    """Endless batches of texts alone, laid out without images, from a step on."""
    order = config.seeds.for_data_order(seed)
    budget = Budget(config.text_tokens, images=0)
    stream = mixed_sequences(config.data, budget, data_root, order)
    return _batched(stream, config.training.batch_size, lay_out_texts, start_step)


def _batched(
    stream: grain.MapDataset[Packed],
    batch_size: int,
    assemble: Callable[[Sequence[Packed]], Batch],
    start_step: int,
) -> Iterator[Batch]:
    batched = stream.batch(batch_size, drop_remainder=True, batch_fn=assemble)
    # One thread stays a few batches ahead, so that the step never waits.
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(batched[start_step:].to_iter_dataset(ahead))
