"""JSONL of texts (`text`), or of images with captions (`image` and `caption`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from mm1_jax.data.own.raw import BadRecord, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields
from mm1_jax.data.own.readers.lines import objects

# Without a name for `image`, records that have none are texts. Without one for `text`, it is
# `caption` where a record has an image and `text` elsewhere.
COLUMNS = {"image": "", "text": ""}


def read(
    file: str, columns: Mapping[str, str], image_folder: str
) -> Iterator[RawDocument | BadRecord]:
    """One document a line: the image if there is one, then the text.

    Raises:
        UserError: the file cannot be read, or its first object has none of the fields.
    """
    named_image, named = columns.get("image"), columns["text"]
    image = "" if named_image is None else named_image or "image"
    expected = (image, named) if named else ("text", image, "caption")
    stem = PurePosixPath(file).name.partition(".")[0]
    for item in objects(file, tuple(filter(None, expected)), "JSON lines"):
        if isinstance(item, BadRecord):
            yield item
            continue
        origin, record = item
        # Images are part of the format wherever their column was named on purpose.
        with_image = bool(named_image) or (bool(image) and image in record)
        text = named or ("caption" if with_image else "text")
        try:
            parts: list[str | RawImage] = []
            if with_image:
                parts.append(fields.located(fields.entry(record, image), image, image_folder))
            parts.append(fields.text(fields.entry(record, text), text))
            yield RawDocument(f"{stem}/{origin.index}", tuple(parts), origin)
        except RecordError as error:
            yield BadRecord(origin, error.reason, error.detail)
