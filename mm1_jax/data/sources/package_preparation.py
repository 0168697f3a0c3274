"""Raw packages → one folder of images, tokenised documents, records and a manifest.

<data root>/<fingerprint>/
    manifest.json                   versions, settings, counts, size and checksum of each file
    tokenizer.json                  or tokenizer.model (SentencePiece)
    images-64.npy, images-72.npy    uint8 [images, height, width, 3], one per native size
    images.parquet                  name, file and row of every image; its row number is the
                                    id that everything else uses
    documents/<source>-<split>.parquet     token ids and image places
    records/<name>-<split>.parquet         facts that evaluation asks for
    ATTRIBUTION.txt
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.config.embedded_sources import SOURCES, EmbeddedConfig
from mm1_jax.data import documents, tokenizer
from mm1_jax.data.sources import packages
from mm1_jax.data.sources.fingerprint import data_fingerprint, preparation_settings
from mm1_jax.data.sources.package_contents import Progress, read_packages


def prepare(config: DataConfig, data_root: Path, progress: Progress | None = None) -> Path:
    """Prepare what `config` reads, unless it is there, and return its folder.

    Safe to call from several processes: one prepares, the others wait. The folder appears at
    once and complete. `progress(what, done, total)` is called as the work goes on. UserError if a
    data package is missing or a prepared file is damaged.
    """
    folder = data_root / data_fingerprint(config)
    data_root.mkdir(parents=True, exist_ok=True)
    with _locked(data_root / f"{folder.name}.lock"):
        if not folder.exists():
            unfinished = data_root / f"{folder.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _write_all(config, unfinished, progress or (lambda what, done, total: None))
            unfinished.rename(folder)
        verify(folder)
    return folder


def is_prepared(config: DataConfig, data_root: Path) -> bool:
    """Whether `prepare` has nothing left to do; files are not compared."""
    return (data_root / data_fingerprint(config) / "manifest.json").is_file()


def verify(folder: Path) -> None:
    """Compare every file with the manifest. UserError names the first that differs."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file() or _describe(folder / name) != expected:
            raise UserError(
                f"prepared data is damaged: {folder / name} differs from the manifest; delete "
                f"{folder} and prepare again"
            )


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_all(config: DataConfig, folder: Path, progress: Progress) -> None:
    words = _tokenizer_from_elsewhere(config)
    for name in ("documents", "records"):
        (folder / name).mkdir(parents=True)

    contents = read_packages(config, progress)
    _write_images(contents.images, folder)
    modules = prepared_modules(config.embedded)
    tables: dict[str, list[documents.Document]] = {}
    for module in modules:
        tables |= module.documents(contents)
    progress("tokenizer", 0, 1)
    if words is None:
        words = tokenizer.train(_training_texts(tables), config.vocabulary, config.special_tokens)
    words.save(folder)
    progress("tokenizer", 1, 1)

    counts = {}
    for number, (name, listed) in enumerate(tables.items()):
        progress("documents", number, len(tables))
        table = documents.tokenize(listed, words)
        documents.write(table, folder / "documents" / f"{name}.parquet")
        counts[name] = {
            "documents": len(table),
            "tokens": len(table.tokens),
            "images": len(table.images),
        }
    progress("documents", len(tables), len(tables))
    records: dict[str, Sequence[BaseModel]] = {}
    for module in modules:
        records |= module.records(contents)
    for name, items in records.items():
        _write_records(items, folder / "records" / f"{name}.parquet")
    credits = "".join(f"{packages.PACKAGES[name].credit}\n" for name in packages.used(config))
    (folder / "ATTRIBUTION.txt").write_text(credits, encoding="utf-8")

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "fingerprint": data_fingerprint(config),
        "packages": packages.versions(config),
        "settings": preparation_settings(config),
        "images": len(contents.images),
        "documents": counts,
        "records": {name: len(items) for name, items in records.items()},
        "files": {str(path.relative_to(folder)): _describe(path) for path in files},
    }
    _write_durably(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def prepared_modules(embedded: EmbeddedConfig) -> list[ModuleType]:
    """The modules of the sources that are prepared, each once, in the order of the records.

    Each has two functions of the packages' contents: `documents`, tokenised as
    `<source>-<split>`, and `records`, what tasks ask.
    """
    names = dict.fromkeys(record.module for record in embedded.prepared.values())
    return [importlib.import_module(f"mm1_jax.data.sources.{name}") for name in names]


def _tokenizer_from_elsewhere(config: DataConfig) -> tokenizer.Tokenizer | None:
    if config.tokenizer is None:
        return None
    words = tokenizer.load(Path(config.tokenizer))
    tokenizer.check_vocabulary(words, config.vocabulary, config.tokenizer)
    return words


def _training_texts(tables: dict[str, list[documents.Document]]) -> Iterator[str]:
    # Of few sources alone, so that no template and no further source changes what the tokens are.
    for name, listed in tables.items():
        source, split = name.rsplit("-", 1)
        if split == "train" and source in SOURCES and SOURCES[source].gives_tokens:
            for document in listed:
                yield from (part for part in document.parts if isinstance(part, str))


def _write_images(images: Mapping[str, np.ndarray], folder: Path) -> None:
    by_size: dict[int, list[np.ndarray]] = {}
    files, rows = [], []
    for image in images.values():
        same = by_size.setdefault(image.shape[0], [])
        files.append(f"images-{image.shape[0]}.npy")
        rows.append(len(same))
        same.append(image)
    for size, same in by_size.items():
        np.save(folder / f"images-{size}.npy", np.stack(same))
    index = {"name": list(images), "file": files, "row": pa.array(rows, pa.int32())}
    pq.write_table(pa.table(index), folder / "images.parquet")


def _write_records(records: Sequence[BaseModel], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([record.model_dump() for record in records]), path)


def _write_durably(path: Path, content: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
