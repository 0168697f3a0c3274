"""Parquet with a caption and an image, or a text alone, in each row; columns of any name.

The image is bytes, a path or URL, or the pair of both that Hugging Face's `Image` writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeGuard

import pyarrow as pa

from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields
from mm1_jax.data.own.readers.parquet_rows import is_text, rows

# Without `image` (null), rows are text alone. `url` says where the image came from.
COLUMNS = {"image": "image", "text": "caption", "url": "url"}
_HINT = "; `columns` names it, null says that there is none (`image: null`: texts alone)"


def read(
    file: str, columns: Mapping[str, str], image_folder: str
) -> Iterator[RawDocument | BadRecord]:
    """One document a row: the image if there is one, then the text.

    Raises:
        UserError: the file cannot be read, is no Parquet file, or has no such column.
    """
    required = [columns[name] for name in ("image", "text") if name in columns]
    optional = [columns["url"]] if "url" in columns else []
    stem = PurePosixPath(file).stem
    for index, row, schema in rows(file, required, optional, _HINT):
        origin = Origin(file, index)
        try:
            if isinstance(row, RecordError):
                raise row
            parts: list[str | RawImage] = []
            if "image" in columns:
                kind = schema.field(columns["image"]).type
                from_where = row.get(columns.get("url", ""))
                from_where = from_where.decode(errors="replace") if _is_bytes(from_where) else ""
                parts.append(image(row[columns["image"]], kind, "image", image_folder, from_where))
            if "text" in columns:
                parts.append(fields.text(row[columns["text"]], columns["text"]))
            yield RawDocument(f"{stem}/{index}", tuple(parts), origin)
        except RecordError as error:
            yield BadRecord(origin, error.reason, error.detail)


def _is_bytes(value: Any) -> TypeGuard[bytes]:
    return isinstance(value, bytes)


def image(
    value: Any, kind: pa.DataType, field: str, image_folder: str, from_where: str = ""
) -> RawImage:
    """The image of a cell whose column has type `kind`; `from_where` is its web address, if any.

    Raises:
        RecordError: the cell is null or is no image.
    """
    if value is None:
        raise RecordError("missing_field", f"{field} is null")
    if isinstance(value, dict):
        path, content = value.get("path"), value.get("bytes")
        if content is not None:
            if not isinstance(content, bytes):
                raise RecordError("malformed", f"{field}.bytes is of another type than bytes")
            name = path.decode(errors="replace") if isinstance(path, bytes) else ""
            return RawImage(content, from_where or name)
        return fields.located(path, f"{field}.path", image_folder)
    if is_text(kind):
        return fields.located(value, field, image_folder)
    if isinstance(value, bytes):
        return RawImage(value, from_where)
    raise RecordError("malformed", f"{field} is of type {kind}, expected bytes or a path")
