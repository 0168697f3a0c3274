"""Reading, examining and de-duplicating raw data: CPU seconds of one process, on this machine.

    .venv/bin/python benchmarks/raw_data.py [--pairs 2000] [--hashes 100000 1000000]

The pictures are made here (512 × 384 JPEG of smooth noise, about 30 kB), the hashes are random with
clusters, since time depends on neither beyond size.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mm1_jax.data.own.duplicates import near_pairs
from mm1_jax.data.own.formats import Format, read
from mm1_jax.data.own.image_survey import survey
from mm1_jax.data.own.quarantine import Quarantine


def picture(seed: int) -> bytes:
    """A JPEG like a web image in size."""
    tiles = np.random.default_rng(seed).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(tiles).resize((512, 384), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def measured(what: str, count: int, unit: str, work: Callable[[], object]) -> None:
    """Run once and print the rate by CPU time, which other processes disturb little."""
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    print(f"{what:34} {seconds:8.2f} CPU s {count / seconds:12,.0f} {unit}/s", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--hashes", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = [picture(n % 200) for n in range(arguments.pairs)]
        with tarfile.open(folder / "a.tar", "w") as archive:
            for number, content in enumerate(pictures):
                for extension, data in (("jpg", content), ("txt", b"a caption of a few words")):
                    info = tarfile.TarInfo(f"{number:09d}.{extension}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        captions = ["a caption of a few words"] * len(pictures)
        pq.write_table(pa.table({"image": pictures, "caption": captions}), folder / "a.parquet")
        shards: tuple[tuple[Format, str], ...] = (
            ("webdataset", str(folder / "a.tar")),
            ("parquet", str(folder / "a.parquet")),
        )
        for format, shard in shards:
            measured(
                f"read {format}", arguments.pairs, "pairs", lambda f=format, s=shard: [*read(f, s)]
            )

        def examine() -> None:
            with Quarantine(folder / "bad.jsonl") as quarantine:
                survey(quarantine.kept(read(*shards[0])), quarantine)

        measured("read, decode, hash (webdataset)", arguments.pairs, "pairs", examine)

    for count in arguments.hashes:
        draws = np.random.default_rng(0)
        hashes = draws.choice(draws.integers(0, 2**64, count * 9 // 10, np.uint64), count)
        for _ in range(3):
            hashes ^= np.uint64(1) << draws.integers(0, 64, count).astype(np.uint64)
        hashes = np.unique(hashes)
        measured(f"near pairs of {count:,}", count, "hashes", lambda h=hashes: near_pairs(h, 4))


if __name__ == "__main__":
    main()
