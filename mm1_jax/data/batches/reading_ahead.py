"""Batches that are ready before they are asked for, read by threads or by processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import grain
from absl import flags

from ablations.timeline import doing
from mm1_jax.data.batches.packing import Batch

_READ_THREADS = 8  # at most; they wait for files and decode side by side
_AHEAD = 4  # batches


@doing("data")
def read_ahead(
    batch: Callable[[int], Batch], steps: int, start: int, *, workers: int, files: bool
) -> Iterator[Batch]:
    """batch(start), batch(start + 1), … up to `steps` of them in all, in their order.

    In `workers` processes, else on threads of this one: several where `files` are read. What is in
    memory takes one thread.
    """
    batched = grain.MapDataset.range(steps).map(batch)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's processes ask absl, which nothing has started
            flags.FLAGS.mark_as_parsed()
        one = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
        processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=_AHEAD)
        return iter(batched[start:].to_iter_dataset(one).mp_prefetch(processes))
    threads = min(_READ_THREADS, len(os.sched_getaffinity(0))) if files else 1
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(_AHEAD, threads))
    return iter(batched[start:].to_iter_dataset(ahead))
