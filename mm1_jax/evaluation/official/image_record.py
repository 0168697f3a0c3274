"""Which images an evaluation was shown, to the byte: beside its examples, for whoever looks later.

Annotations name the images of an official task, and only they enter an evaluation's identity: tens
of thousands of files would have to be read before anything is planned. What they held is written
down when they are read. No JAX here: it is looked at before a study runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mm1_jax.evaluation.official.task_folder import OfficialFolder

IMAGES_FILE = "images.parquet"  # columns name, bytes, sha256


@dataclass(frozen=True)
class ImageFacts:
    """Size and hash (64 hexadecimal digits) of an encoded image."""

    bytes: int
    sha256: str


def facts_of(content: bytes) -> ImageFacts:
    """Of the bytes of a file."""
    return ImageFacts(len(content), hashlib.sha256(content).hexdigest())


def digest(images: Mapping[str, ImageFacts]) -> str:
    """32 hexadecimal digits of all names and hashes, whatever their order."""
    lines = (f"{facts.sha256}  {name}\n" for name, facts in sorted(images.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def write_images(images: Mapping[str, ImageFacts], folder: Path) -> None:
    """Write `images.parquet` into the output folder of a stage."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"name": name, **vars(facts)} for name, facts in sorted(images.items())]
    parquet.write_table(pa.Table.from_pylist(rows), folder / IMAGES_FILE, compression="zstd")


def other_sizes(record: Path, folder: OfficialFolder) -> list[str]:
    """What differs between the images of a stage's output folder and the files that are there now.

    "NAME (then 812 bytes, now 790)" for each; of files that are not there nothing is said. Sizes
    alone: 40,000 images take a second or less, their contents minutes.
    """
    from pyarrow import parquet

    table = parquet.read_table(record / IMAGES_FILE, columns=["name", "bytes"])
    found = []
    for row in table.to_pylist():
        path = folder.image_file(row["name"])
        if path is not None and (now := path.stat().st_size) != row["bytes"]:
            found.append(f"{row['name']} (then {row['bytes']} bytes, now {now})")
    return found
