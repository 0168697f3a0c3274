"""Looking at a folder of prepared own data: what is there, how long it is, whether it is whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ablations.errors import UserError
from mm1_jax.data.files.folder import Folder
from mm1_jax.data.own.manifest import (
    MANIFEST,
    PROVENANCE,
    SHARDS,
    FileFacts,
    Manifest,
    Shard,
    index_name,
    read_manifest,
    read_shards,
    sha256,
)

_MEGABYTE = 10**6
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def inspect_packages(folder: Path) -> list[dict[str, Any]]:
    """What each folder of package data says of itself, where `folder` holds such or is one."""
    places = [folder, *(sorted(folder.iterdir()) if folder.is_dir() else [])]
    found = []
    for place in places:
        try:
            said = json.loads((place / MANIFEST).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(said, dict) and "packages" in said:
            kept = ("fingerprint", "packages", "images", "documents", "records", "settings")
            found.append({"folder": str(place)} | {key: said[key] for key in kept if key in said})
    return found


def inspect(folder: str) -> dict[str, Any]:
    """What the manifest says: counts, what was dropped and why, settings. Reads no shard."""
    manifest = read_manifest(folder)
    files = Folder(folder)
    shards = read_shards(files, manifest)
    total = sum(facts.bytes for shard in shards for facts in shard.files.values())
    found: dict[str, Any] = {
        "folder": folder,
        "kind": manifest.kind,
        "fingerprint": manifest.fingerprint,
        "documents": manifest.documents,
        "images": manifest.images,
        "text_tokens": manifest.text_tokens,
        "shards": manifest.shards,
        "megabytes": round(total / _MEGABYTE, 1),
        "records_read": manifest.read,
        "documents_dropped": manifest.dropped,
        "images_dropped": manifest.dropped_images,
        "records_quarantined": manifest.quarantined,
        "images_quarantined": manifest.quarantined_images,
        "left_out": manifest.left_out,
        "tokenizer": manifest.tokenizer.model_dump(),
        "settings": manifest.settings,
    }
    if files.exists(PROVENANCE):
        found["provenance"] = json.loads(files.read(PROVENANCE))
    return found


def statistics(folder: str) -> dict[str, Any]:
    """Lengths and images of the documents, from the index of every shard."""
    manifest = read_manifest(folder)
    files = Folder(folder)
    text, images, sizes = [], [], []
    for shard in read_shards(files, manifest):
        table = pq.read_table(io.BytesIO(files.read(index_name(shard.name))))
        text.append(table.column("text_tokens").to_numpy())
        counts = [chunk.value_lengths().to_numpy() for chunk in table.column("image_at").chunks]
        images += counts
        sizes += [chunk.flatten().to_numpy() for chunk in table.column("image_bytes").chunks]
    per_document = _joined(images)
    values, counts = np.unique(per_document, return_counts=True)
    return {
        "documents": manifest.documents,
        "text_tokens_per_document": _spread(_joined(text)),
        "images_per_document": dict(zip(values.tolist(), counts.tolist(), strict=True)),
        "image_bytes": _spread(_joined(sizes)),
    }


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _spread(values: np.ndarray) -> dict[str, float]:
    """Mean and percentiles; nothing of nothing."""
    if not len(values):
        return {}
    found = np.percentile(values, _PERCENTILES)
    spread = {f"p{p}": round(float(x), 1) for p, x in zip(_PERCENTILES, found, strict=True)}
    return {"mean": round(float(values.mean()), 2), **spread}


@dataclass(frozen=True)
class Damage:
    """One file that is not as the manifest says."""

    file: str
    what: str


def validate(
    folder: str,
    tokenizer: bytes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Damage]:
    """Compare every file with its checksum, and counts with the manifest's.

    `tokenizer` is the file that training would use: its checksum must be the folder's. UserError
    where there is no manifest.
    """
    manifest, files = read_manifest(folder), Folder(folder)
    try:
        shards = read_shards(files, manifest)
    except UserError as error:
        return [Damage(SHARDS, str(error))]
    found = list(_wrong_totals(manifest, shards))
    own = manifest.tokenizer
    found += _wrong_file(files, own.file, FileFacts(bytes=-1, sha256=own.sha256))
    if tokenizer is not None and sha256(tokenizer) != own.sha256:
        found.append(
            Damage(own.file, "is not the tokenizer that training would use; prepare the data again")
        )
    for number, shard in enumerate(shards, start=1):
        for name, facts in shard.files.items():
            found += _wrong_file(files, name, facts)
        if progress:
            progress(number, len(shards))
    return found


def _wrong_file(files: Folder, name: str, facts: FileFacts) -> Iterator[Damage]:
    try:
        content = files.read(name)
    except UserError:
        yield Damage(name, "is missing")
        return
    if facts.bytes >= 0 and len(content) != facts.bytes:
        yield Damage(name, f"has {len(content)} bytes, the manifest says {facts.bytes}")
    elif sha256(content) != facts.sha256:
        yield Damage(name, "has another checksum than the manifest says")


def _wrong_totals(manifest: Manifest, shards: list[Shard]) -> Iterator[Damage]:
    for name in ("documents", "text_tokens", "images"):
        total, stated = sum(getattr(shard, name) for shard in shards), getattr(manifest, name)
        if total != stated:
            yield Damage(SHARDS, f"adds up to {total} {name}, the manifest says {stated}")
