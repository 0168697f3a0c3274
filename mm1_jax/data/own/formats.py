"""The formats that are read, by name: their files, their columns, and reading any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

from ablations.errors import UserError, nearest
from mm1_jax.data.files import urls as files_behind
from mm1_jax.data.own.raw import BadRecord, RawDocument
from mm1_jax.data.own.readers import (
    array_record,
    json_lines,
    llava,
    mmc4,
    obelics,
    parquet,
    webdataset,
)

Format = Literal[
    "webdataset", "parquet", "obelics", "mmc4", "conversations", "jsonl", "array_record"
]


def _also_compressed(*suffixes: str) -> tuple[str, ...]:
    return (*suffixes, *(s + compression for s in suffixes for compression in _COMPRESSED))


_COMPRESSED = (".gz", ".bz2", ".zst", ".zip")
# What a folder of each format holds.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "webdataset": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.zst"),
    "parquet": (".parquet",),
    "obelics": (".parquet",),
    "mmc4": _also_compressed(".jsonl"),
    "conversations": _also_compressed(".json", ".jsonl"),
    "jsonl": _also_compressed(".jsonl"),
    "array_record": (".array_record", ".arrayrecord"),
}
# Those whose documents may say which of their texts are answers.
WITH_ANSWERS: tuple[Format, ...] = ("conversations", "array_record")
# The columns that a format lets one rename, with their usual names.
COLUMNS: dict[str, dict[str, str]] = {
    "webdataset": webdataset.COLUMNS,
    "parquet": parquet.COLUMNS,
    "obelics": obelics.COLUMNS,
    "jsonl": json_lines.COLUMNS,
}
# Those that null says there are none of.
_OPTIONAL = {
    "parquet": ("image", "text", "url"),
    "obelics": ("metadata", "general_metadata"),
    "jsonl": ("image",),
}


def files(format: Format, urls: str | Sequence[str]) -> list[str]:
    """The shards that `urls` mean, sorted: what several workers divide among themselves.

    Raises:
        UserError: the format is unknown, nothing is there, or a folder holds no such file.
    """
    if format not in SUFFIXES:
        raise UserError(f"format {format!r} is not known{nearest(format, get_args(Format))}")
    return files_behind.expand(urls, SUFFIXES[format], f"{format} files")


def read(
    format: Format,
    urls: str | Sequence[str],
    columns: Mapping[str, str | None] | None = None,
    image_folder: str | None = None,
    min_similarity: float = mmc4.MIN_SIMILARITY,
) -> Iterator[RawDocument | BadRecord]:
    """All records of all shards, in the order of (file, index), one shard at a time.

    columns         what a record's fields are called in the files, where they are not called as
                    usual (`COLUMNS`); the others keep their usual names, null = there is none
    image_folder    a folder or URL that relative image paths are below; None = the file's folder
    min_similarity  mmc4 only: images below are left out

    Raises:
        UserError: a shard cannot be read or is not of the format.
    """
    for file in files(format, urls):
        yield from read_file(format, file, columns, image_folder, min_similarity)


def read_file(
    format: Format,
    file: str,
    columns: Mapping[str, str | None] | None = None,
    image_folder: str | None = None,
    min_similarity: float = mmc4.MIN_SIMILARITY,
) -> Iterator[RawDocument | BadRecord]:
    """`read` of one shard."""
    named = _columns(format, columns)
    folder = files_behind.folder_of(files_behind.absolute(file))
    folder = folder if image_folder is None else image_folder
    match format:
        case "webdataset":
            return webdataset.read(file, named)
        case "parquet":
            return parquet.read(file, named, folder)
        case "obelics":
            return obelics.read(file, named, folder)
        case "mmc4":
            return mmc4.read(file, image_folder, min_similarity)
        case "conversations":
            return llava.read(file, folder)
        case "jsonl":
            return json_lines.read(file, named, folder)
        case "array_record":
            return array_record.read(file, folder)
    raise UserError(f"format {format!r} is not known{nearest(format, get_args(Format))}")


def _columns(format: str, columns: Mapping[str, str | None] | None) -> Mapping[str, str]:
    usual = COLUMNS.get(format, {})
    if columns is None:
        return usual
    if not usual:
        raise UserError(f"format {format} has no columns to name; found {', '.join(columns)}")
    optional = _OPTIONAL.get(format, ())
    for name, column in columns.items():
        if name not in usual:
            raise UserError(f"format {format} has no column {name!r}{nearest(name, usual)}")
        if column is None and name not in optional:
            raise UserError(
                f"columns.{name}: null is not valid, format {format} needs it"
                + (f"; null may be: {', '.join(optional)}" if optional else "")
            )
    named = {**usual, **columns}
    return {name: column for name, column in named.items() if column is not None}
