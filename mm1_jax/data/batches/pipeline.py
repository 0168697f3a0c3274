"""The stream of training batches: shuffled, packed, mixed, laid out, with images.

Batch number n depends on (data seed, source, epoch), the data and the packing only, and can be
computed without its predecessors' arrays: resuming at a step gives the batches that would have
followed, and so does reading with other threads, processes or hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ablations.timeline import doing
from mm1_jax.config.data import DataConfig
from mm1_jax.config.language_model_pretraining import LanguageModelStageConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.images import image_views
from mm1_jax.data.batches.known_windows import packing_key, read_known, write_known
from mm1_jax.data.batches.mixture import Mixture, mixture_of
from mm1_jax.data.batches.packed_source import EmbeddedSource, PackedSource, Source, Use
from mm1_jax.data.batches.packing import (
    Batch,
    Budget,
    Packed,
    budget_of,
    lay_out,
    lay_out_texts,
    with_views,
)
from mm1_jax.data.batches.reading_ahead import read_ahead
from mm1_jax.data.own.own_source import OwnSource, opened_source
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.images.sub_images import views_of


class SequenceStream:
    """Packed sequences of all sources, mixed, by number: a Grain random-access source.

    `order` is a seed. What `keep` has written into the folder `beside` spares packing what was
    packed before. UserError if the data is not prepared, or own data has other token ids.
    """

    def __init__(
        self,
        data: DataConfig,
        budget: Budget,
        data_root: Path,
        order: int,
        batch_size: int,
        beside: Path | None = None,
    ):
        self._arguments = (data, budget, data_root, order, batch_size, beside)
        self._beside, self._key = beside, packing_key(data, budget, order)
        known = {} if beside is None else read_known(beside, self._key)
        self.budget, self._batch_size = budget, batch_size
        prepared = open_prepared(data, data_root)
        self.sources = {
            name: PackedSource(
                _opened(name, data, prepared.folder), budget, order, known.get(name, ())
            )
            for name in data.source_names
            if name in data.read
        }
        self.mixture = self._mixture(data)

    def __reduce__(self) -> tuple[Any, ...]:
        return SequenceStream, self._arguments

    def keep(self) -> None:
        """Write what is known of the windows into the folder `beside`."""
        assert self._beside is not None
        known = {name: source.first_sequences for name, source in self.sources.items()}
        write_known(self._beside, self._key, known)

    def _mixture(self, data: DataConfig) -> Mixture:
        sources = self.sources
        lengths: dict[str, float] = {}
        if data.mixture_unit == "text_tokens":
            for name, source in sources.items():
                lengths[name] = source.source.text_tokens / source.first_epoch()
        limited = [name for name in sources if data.exhausted.get(name, "repeat") != "repeat"]
        return mixture_of(
            data,
            self._batch_size,
            sizes={name: source.source.text_tokens for name, source in sources.items()},
            tokens_per_sequence=lengths,
            epochs={name: sources[name].first_epoch() for name in limited},
        )

    def __len__(self) -> int:
        return self.mixture.length

    def __getitem__(self, index: int) -> Packed:
        """Sequence number `index` of the training."""
        source, inside = self.mixture.place(index)
        return self.sources[source][inside]

    @property
    def steps(self) -> int:
        """How many whole batches there are before a source ends that is not to be repeated."""
        return self.mixture.length // self._batch_size

    def measured(self, after_step: int, step: int) -> dict[str, float]:
        """What the batches after one step up to another hold, and epochs of each source so far.

        `text_occupancy` and `image_occupancy` are the shares of positions and slots in use.
        """
        before = self.mixture.counts(after_step * self._batch_size)
        until = self.mixture.counts(step * self._batch_size)
        use = sum(
            (source.use(before[name], until[name]) for name, source in self.sources.items()), Use()
        )
        numbers = {"text_occupancy": use.text / max(1, use.sequences * self.budget.text)}
        if self.budget.images:
            slots = use.sequences * self.budget.images
            numbers["image_occupancy"] = use.images / max(1, slots)
        for name, source in self.sources.items():
            numbers[f"epochs.{name}"] = source.epochs(until[name])
        return numbers


@lru_cache(maxsize=16)
def _embedded(name: str, folder: Path, rich: float) -> EmbeddedSource:
    return EmbeddedSource(name, folder, rich)


def _opened(name: str, data: DataConfig, folder: Path) -> Source:
    """A source of the mixture. UserError as `opened_source`."""
    if name not in data.sources:
        rich = data.embedded.captions.rich if name == "captions" else 0.0
        return _embedded(name, folder, rich)
    return opened_source(name, data, folder)


@doing("data")
def stream_of(
    config: TrainConfig, data_root: Path, seed: int, beside: Path | None = None
) -> SequenceStream:
    """The packed sequences of a training, by number. UserError if the data is not prepared.

    The order of documents comes from `seeds.data_order`, or else from `seed`; encoder, connector
    and language model do not change it.
    """
    order = config.seeds.for_data_order(seed)
    size = config.training.batch_size
    return SequenceStream(config.data, budget_of(config), data_root, order, size, beside)


class Images:
    """What the encoder is shown of packed sequences, whatever source they are of."""

    def __init__(self, stream: SequenceStream, config: TrainConfig, data_root: Path):
        self._arguments = (stream, config, data_root)
        self._own = {
            name: source.source
            for name, source in stream.sources.items()
            if isinstance(source.source, OwnSource)
        }
        self._table = open_prepared(config.data, data_root).images
        self._seen, self._slots = views_of(config), config.image_slots

    def __reduce__(self) -> tuple[Any, ...]:
        return Images, self._arguments

    def in_views(self, sequence: Packed) -> Packed:
        """A sequence whose images stand as all their views."""
        if sequence.source not in self._own:
            return self._table.in_views(sequence, self._seen, self._slots)
        if self._seen.most == 1:
            return sequence
        counts = [self._seen.count(file.width, file.height) for file in sequence.image_files]
        return with_views(sequence, counts, self._slots)

    def pixels(self, sequences: Sequence[Packed]) -> np.ndarray:
        """Of sequences in views, empty slots black: uint8 [sequences, slots, size, size, 3]."""
        ids, views = image_views(sequences)
        own = np.array([sequence.source in self._own for sequence in sequences])
        if not own.any():
            return self._table.views(ids, views, self._seen)
        pixels = np.zeros((*ids.shape, self._seen.size, self._seen.size, 3), np.uint8)
        pixels[~own] = self._table.views(ids[~own], views[~own], self._seen)
        for row in np.flatnonzero(own).tolist():
            sequence = sequences[row]
            source = self._own[sequence.source]
            shown = source.images(sequence.image_files, self._seen)
            for slot in np.flatnonzero(ids[row] >= 0).tolist():
                pixels[row, slot] = shown[ids[row, slot]][views[row, slot]]
        return pixels


def batches(
    config: TrainConfig,
    data_root: Path,
    seed: int,
    start_step: int = 0,
    stream: SequenceStream | None = None,
    rows: range | None = None,
) -> Iterator[Batch]:
    """Batches as `lay_out` describes, with `images` uint8 [B, I, H, W, 3], from a step on.

    Endless, unless a source ends that is not to be repeated. Images are brought to the encoder's
    size; I counts their views. `stream` spares opening it again; of each batch only `rows` are
    read, if given.
    """
    stream = stream or stream_of(config, data_root, seed)
    images = Images(stream, config, data_root)
    sources = config.data.source_names

    def assemble(packed: Sequence[Packed]) -> Batch:
        shown = [images.in_views(one) for one in packed]
        batch = lay_out(shown, config.view_tokens, config.sequence_length, sources)
        return {"images": images.pixels(shown), **batch}

    rows = rows or range(config.training.batch_size)
    return _batched(stream, config.data, config.training.batch_size, rows, assemble, start_step)


@doing("data")
def text_stream(
    config: LanguageModelStageConfig, data_root: Path, seed: int, beside: Path | None = None
) -> SequenceStream:
    """The packed texts of a training, by number. UserError if the data is not prepared."""
    order = config.seeds.for_data_order(seed)
    budget = Budget(config.text_tokens, images=0)
    size = config.training.batch_size
    return SequenceStream(config.data, budget, data_root, order, size, beside)


def text_batches(
    config: LanguageModelStageConfig,
    data_root: Path,
    seed: int,
    start_step: int = 0,
    stream: SequenceStream | None = None,
    rows: range | None = None,
) -> Iterator[Batch]:
    """Endless batches of texts alone, laid out without images, from a step on."""
    stream = stream or text_stream(config, data_root, seed)
    size = config.training.batch_size
    return _batched(stream, config.data, size, rows or range(size), lay_out_texts, start_step)


def _batched(
    stream: SequenceStream,
    data: DataConfig,
    batch_size: int,
    rows: range,
    assemble: Callable[[Sequence[Packed]], Batch],
    start_step: int,
) -> Iterator[Batch]:
    def batch(step: int) -> Batch:
        return assemble([stream[step * batch_size + row] for row in rows])

    return read_ahead(batch, stream.steps, start_step, workers=data.workers, files=bool(data.own))
