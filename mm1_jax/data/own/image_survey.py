"""The first pass over raw data: every image decoded once, and what cleaning asks about it.

Filters and duplicates are decided from the resulting table, for all shards at once; the second
pass then drops what was decided. Shards are surveyed apart, by as many workers as there are.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from ablations.errors import UserError
from mm1_jax.data.files import urls
from mm1_jax.data.own.quarantine import Quarantine
from mm1_jax.data.own.raw import BadRecord, RawDocument, RawImage, RecordError
from mm1_jax.images.pictures import LIMIT_BYTES, SUFFIXES, WHITE, PictureError, on_colour, upright

PerceptualHash = Literal["dhash", "phash"]

_IMAGE_TRIES = 3
_THREADS = 16
_DOCUMENTS_AHEAD = 64
_ROWS_AT_A_TIME = 10_000

# One row an image. `part` is its place in the document's parts, `bad` why it is none.
SCHEMA = pa.schema(
    [
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("index", pa.int64()),
        ("part", pa.int32()),
        ("url", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.binary(32)),
        ("perceptual", pa.uint64()),
        ("bad", pa.string()),
    ]
)


@dataclass(frozen=True)
class ImageFacts:
    """What cleaning asks about an image. Width and height are upright, in pixels."""

    bytes: int
    width: int
    height: int
    sha256: bytes
    perceptual: int


def examine(content: bytes, perceptual: PerceptualHash = "dhash") -> ImageFacts:
    """Decode an image to its last pixel.

    Raises:
        RecordError: it cannot be shown (see `pictures`).
    """
    try:
        picture = upright(content)
    except PictureError as error:
        raise RecordError(error.reason, error.detail) from None
    looks = perceptual_hash(picture, perceptual)
    return ImageFacts(len(content), *picture.size, hashlib.sha256(content).digest(), looks)


def perceptual_hash(image: Image.Image, kind: PerceptualHash = "dhash") -> int:
    """64 bits that change little where the picture (RGB or RGBA) does; it is seen on white.

    `dhash` compares neighbours of a 9 × 8 reduction, `phash` the low frequencies of a cosine
    transform with their median (imagehash).
    """
    import imagehash

    grey = on_colour(image, WHITE).convert("L")
    found = {"dhash": imagehash.dhash, "phash": imagehash.phash}[kind](grey)
    return int.from_bytes(np.packbits(found.hash.reshape(-1)).tobytes())


def fetched(
    documents: Iterable[RawDocument], tries: int = _IMAGE_TRIES
) -> Iterator[tuple[RawDocument, dict[int, RecordError]]]:
    """The documents in their order with the bytes of all images, and which could not be had.

    Images that are paths or URLs are read by threads, some documents ahead. Keys are places in the
    document's parts; an image that could not be had is left as it was.
    """
    threads = ThreadPoolExecutor(_THREADS)
    try:
        waiting: deque[tuple[RawDocument, dict[int, Future[bytes]]]] = deque()
        for document in documents:
            asked = {
                place: threads.submit(urls.read_bytes, part.url, LIMIT_BYTES, tries)
                for place, part in enumerate(document.parts)
                if isinstance(part, RawImage) and part.content is None
            }
            waiting.append((document, asked))
            while waiting and (len(waiting) > _DOCUMENTS_AHEAD or not waiting[0][1]):
                yield _arrived(*waiting.popleft())
        while waiting:
            yield _arrived(*waiting.popleft())
    finally:  # whoever stops, at a quota say, does not wait for what nobody will look at
        threads.shutdown(cancel_futures=True)


def _arrived(
    document: RawDocument, asked: dict[int, Future[bytes]]
) -> tuple[RawDocument, dict[int, RecordError]]:
    parts, missing = list(document.parts), {}
    for place, future in asked.items():
        try:
            image = parts[place]
            assert isinstance(image, RawImage)
            parts[place] = with_fields(image, content=future.result())
        except UserError as error:
            missing[place] = RecordError("unavailable", str(error))
    return (with_fields(document, parts=tuple(parts)) if asked else document), missing


def survey(
    documents: Iterable[RawDocument],
    quarantine: Quarantine,
    perceptual: PerceptualHash = "dhash",
) -> pa.Table:
    """One row for every image of the documents (`SCHEMA`), bad ones too; these are put away.

    Raises:
        UserError: the quarantine's quota is passed.
    """
    rows: list[dict[str, Any]] = []
    tables: list[pa.Table] = []
    for document, missing in fetched(documents):
        if len(rows) >= _ROWS_AT_A_TIME:  # a tenth of the memory as a table
            tables.append(pa.Table.from_pylist(rows, SCHEMA))
            rows = []
        for place, part in enumerate(document.parts):
            if isinstance(part, str):
                continue
            origin = document.origin
            row: dict[str, Any] = {
                "file": origin.file,
                "index": origin.index,
                "part": place,
                "url": part.url,
            }
            try:
                if place in missing:
                    raise missing[place]
                row.update(examine(part.content or b"", perceptual).__dict__)
            except RecordError as error:
                quarantine.add(BadRecord(origin, error.reason, error.detail, place))
                row["bad"] = error.reason
            rows.append(row)
    tables.append(pa.Table.from_pylist(rows, SCHEMA))
    return pa.concat_tables(tables).unify_dictionaries()


def survey_images(
    urls_of_images: str | Sequence[str], perceptual: PerceptualHash = "dhash"
) -> pa.Table:
    """The same table of the images of an evaluation: folders, files, or .txt lists of paths.

    A relative path in a list is below the list's folder.

    Raises:
        UserError: nothing is there, or an image cannot be read; names it.
    """
    rows = []
    for url in images_named(urls_of_images):
        try:
            facts = examine(urls.read_bytes(url, LIMIT_BYTES), perceptual)
        except RecordError as error:
            raise UserError(f"{url}: {error.detail}") from None
        rows.append({"file": url, "index": 0, "part": 0, "url": url, **facts.__dict__})
    return pa.Table.from_pylist(rows, SCHEMA)


def images_named(urls_of_images: str | Sequence[str]) -> list[str]:
    """The images that are meant: of folders, files, and .txt lists of paths, sorted and each once.

    A relative path in a list is below the list's folder. UserError if nothing is there, or a list
    is no text.
    """
    images: list[str] = []
    for name in [urls_of_images] if isinstance(urls_of_images, str) else urls_of_images:
        if not name.endswith(".txt") or urls.is_folder(name):
            images.append(name)
            continue
        for written in urls.expand(name, (".txt",), "lists of images"):
            images += _listed(written)
    return urls.expand(images, SUFFIXES, "images")


def _listed(path: str) -> list[str]:
    with urls.opened(path) as file:
        content = file.read()
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: a list of images is not UTF-8: byte {error.start}") from None
    folder = urls.folder_of(path)
    names = [line.strip() for line in lines if line.strip()]
    return [
        name if urls.is_url(name) or name.startswith("/") else urls.below(folder, name)
        for name in names
    ]
