"""OBELICS Parquet: web pages as two lists of equal length, `images` and `texts`.

At each place exactly one of them is not null. Images are URLs as published, or bytes once fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields
from mm1_jax.data.own.readers.parquet import image
from mm1_jax.data.own.readers.parquet_rows import rows

COLUMNS = {
    "images": "images",
    "texts": "texts",
    "metadata": "metadata",
    "general_metadata": "general_metadata",
}


def read(
    file: str, columns: Mapping[str, str], image_folder: str
) -> Iterator[RawDocument | BadRecord]:
    """One document a row, in reading order.

    An image or text that is none is left out and told apart, the rest of its page is kept.

    Raises:
        UserError: the file cannot be read, is no Parquet file, or has no such column.
    """
    required = [columns.get(name, COLUMNS[name]) for name in ("images", "texts")]
    optional = [columns[name] for name in ("metadata", "general_metadata") if name in columns]
    stem = PurePosixPath(file).stem
    for index, row, schema in rows(file, required, optional):
        origin = Origin(file, index)
        kind = schema.field(required[0]).type
        try:
            if isinstance(row, RecordError):
                raise row
            images, texts = row[required[0]], row[required[1]]
            _check_places(images, texts)
            metadata = _metadata(row, columns, "metadata") or [None] * len(images)
            general = _metadata(row, columns, "general_metadata")
            if not isinstance(metadata, list) or len(metadata) != len(images):
                raise RecordError("malformed", "metadata has another length than images")
        except RecordError as error:
            yield BadRecord(origin, error.reason, error.detail)
            continue
        parts: list[str | RawImage] = []
        for place, (shown, written) in enumerate(zip(images, texts, strict=True)):
            try:
                if shown is None:
                    parts.append(fields.text(written, f"texts[{place}]"))
                else:
                    source = _source(metadata[place])
                    parts.append(
                        image(shown, _value_type(kind), f"images[{place}]", image_folder, source)
                    )
            except RecordError as error:
                yield BadRecord(origin, error.reason, error.detail, part=place)
        if not parts:
            yield BadRecord(origin, "empty_text", "nothing is left of the page")
            continue
        facts = {"url": general["url"]} if isinstance(general, dict) and "url" in general else {}
        yield RawDocument(f"{stem}/{index}", tuple(parts), origin, facts=facts)


def _check_places(images: Any, texts: Any) -> None:
    for name, values in (("images", images), ("texts", texts)):
        if values is None:
            raise RecordError("missing_field", f"{name} is null")
        if not isinstance(values, list):
            raise RecordError("malformed", f"{name} is no list")
    if len(images) != len(texts):
        raise RecordError("malformed", f"{len(images)} images, {len(texts)} texts")
    for place, (shown, written) in enumerate(zip(images, texts, strict=True)):
        if (shown is None) == (written is None):
            what = "neither image nor text" if shown is None else "both an image and a text"
            raise RecordError("malformed", f"{what} at place {place}")


def _source(about: Any) -> str:
    """The web address in an image's metadata."""
    source = about.get("src") if isinstance(about, dict) else None
    return source if isinstance(source, str) else ""


def _metadata(row: Mapping[str, Any], columns: Mapping[str, str], name: str) -> Any:
    value = row.get(columns.get(name, ""))
    return fields.parsed(value, name) if isinstance(value, bytes) else None


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
