"""One shard of prepared own data: its tar, its index and its token ids."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ablations.shown_text import shown_url
from mm1_jax.data.documents import Document, DocumentTable, tokenize
from mm1_jax.data.files.folder import Folder
from mm1_jax.data.own.manifest import (
    FileFacts,
    Shard,
    index_name,
    sha256,
    tar_name,
    token_type,
    tokens_name,
)
from mm1_jax.data.own.raw import RawDocument, RawImage
from mm1_jax.data.tokenizer import Marker, Tokenizer
from mm1_jax.images.pictures import header, upright

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg"}  # others are called as Pillow calls them


@dataclass(frozen=True)
class Rendered:
    """A document as training reads it, beside its images' bytes and where it came from."""

    document: Document  # its images are numbered from 0
    images: tuple[bytes, ...]
    raw: RawDocument

    @property
    def size_bytes(self) -> int:
        """About as many as it takes in the tar."""
        return sum(map(len, self.images)) + sum(map(len, self.raw.texts))


def write_shard(
    folder: Folder, name: str, rendered: Sequence[Rendered], tokenizer: Tokenizer, read: int
) -> Shard:
    """Write the three files of a shard; `read` is how many documents of its input are done."""
    table = tokenize([one.document for one in rendered], tokenizer)
    with tempfile.TemporaryDirectory(prefix="mm1-prepare-") as scratch:
        tar = Path(scratch) / "shard.tar"
        places = _write_tar(tar, rendered)
        index, tokens = io.BytesIO(), _token_bytes(table, tokenizer.vocabulary)
        pq.write_table(_index(table, rendered, places), index)
        files = {
            tar_name(name): _facts(tar.read_bytes()),
            index_name(name): _facts(index.getvalue()),
            tokens_name(name): _facts(tokens),
        }
        folder.take(tar, tar_name(name))
    folder.write(index_name(name), index.getvalue())
    folder.write(tokens_name(name), tokens)
    return Shard(
        name=name,
        documents=len(table),
        text_tokens=len(table.tokens),
        images=len(table.images),
        read=read,
        files=files,
    )


def _write_tar(path: Path, rendered: Sequence[Rendered]) -> list[tuple[int, int, int, int]]:
    """WebDataset layout; of each image where its bytes begin, how many, its width and height."""
    places: list[tuple[int, int, int, int]] = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(member: str, content: bytes) -> int:
            info = tarfile.TarInfo(member)  # without owner and time: equal data, equal bytes
            info.size = len(content)
            start = tar.offset + len(info.tobuf(tar.format))
            tar.addfile(info, io.BytesIO(content))
            return start

        for number, one in enumerate(rendered):
            key = f"{number:06d}"
            headers = [_header(content) for content in one.images]
            members = [f"{key}.{place}.{kind}" for place, (kind, _, _) in enumerate(headers)]
            add(f"{key}.json", json.dumps(_description(one, members)).encode())
            for member, content, header in zip(members, one.images, headers, strict=True):
                places.append((add(member, content), len(content), *header[1:]))
    return places


def _header(content: bytes) -> tuple[str, int, int]:
    """What a file with such an image ends in, and the upright image's width and height."""
    kind, width, height = header(content)
    return _SUFFIXES.get(kind, kind.lower()), width, height


def _description(one: Rendered, members: Sequence[str]) -> dict[str, Any]:
    """What the json of a document says: its parts in reading order, and where it came from."""
    document, parts, text = one.document, [], 0
    for part in document.parts:
        if isinstance(part, int):
            parts.append({"image": members[part]})
            continue
        loss = document.answers is None or document.answers[text]
        kind = "marker" if isinstance(part, Marker) else "text"
        parts.append({kind: part.name if isinstance(part, Marker) else part, "loss": loss})
        text += 1
    origin = one.raw.origin
    # The file's name alone: where it lay is no part of the data.
    came_from = {"file": PurePosixPath(shown_url(origin.file)).name, "index": origin.index}
    return {"name": one.raw.name, "parts": parts, "origin": came_from}


def _token_bytes(table: DocumentTable, vocabulary: int) -> bytes:
    return table.tokens.astype(np.dtype(token_type(vocabulary)).newbyteorder("<")).tobytes()


def _index(
    table: DocumentTable,
    rendered: Sequence[Rendered],
    places: Sequence[tuple[int, int, int, int]],
) -> pa.Table:
    """One row a document. `given` are the places in its text where loss goes off and on again."""

    def lists(values: Any, starts: np.ndarray) -> pa.ListArray:
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)

    def of_images(column: int, kind: pa.DataType) -> pa.ListArray:
        return lists(pa.array([place[column] for place in places], kind), table.image_starts)

    toggles, toggle_starts = [], [0]
    for start, end in zip(table.token_starts[:-1], table.token_starts[1:], strict=True):
        off = np.concatenate([[False], table.given[start:end]])
        toggles += np.flatnonzero(off[1:] != off[:-1]).tolist()
        toggle_starts.append(len(toggles))
    return pa.table(
        {
            "name": pa.array([one.raw.name for one in rendered], pa.string()),
            "text_tokens": pa.array(np.diff(table.token_starts), pa.int32()),
            "image_at": lists(pa.array(table.image_at, pa.int32()), table.image_starts),
            "image_offset": of_images(0, pa.int64()),
            "image_bytes": of_images(1, pa.int32()),
            "image_width": of_images(2, pa.int32()),
            "image_height": of_images(3, pa.int32()),
            "given": lists(pa.array(toggles, pa.int32()), np.array(toggle_starts)),
        }
    )


def _facts(content: bytes) -> FileFacts:
    return FileFacts(bytes=len(content), sha256=sha256(content))


def images_of(
    raw: RawDocument,
    longest_side: int | None = None,
    stored: Literal["encoded", "pixels"] = "encoded",
) -> tuple[bytes, ...]:
    """The bytes of a document's images, which have been fetched, in reading order.

    Those with a longer side (in pixels) are made smaller, to a JPEG of quality 95 or, with
    transparency, a PNG. As `pixels` all are uncompressed: PPM, or PNG with transparency.
    """
    contents = (part.content or b"" for part in raw.parts if isinstance(part, RawImage))
    return tuple(_stored(content, longest_side, stored == "pixels") for content in contents)


def _stored(content: bytes, longest_side: int | None, pixels: bool) -> bytes:
    larger = longest_side is not None and max(header(content)[1:]) > longest_side
    if not larger and not pixels:
        return content
    picture, file = upright(content), io.BytesIO()
    if larger:
        picture.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
    if picture.mode == "RGBA":
        picture.save(file, "PNG", compress_level=0 if pixels else 6)
    elif pixels:
        picture.save(file, "PPM")
    else:
        picture.save(file, "JPEG", quality=95)
    return file.getvalue()
