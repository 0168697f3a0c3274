"""WebDataset tars in the layout of img2dataset: `000000010.jpg`, `.txt`, `.json`.

Members with the same name up to the first dot of the file name form a sample; they are adjacent.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, cast

from mm1_jax.data.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.readers import fields
from mm1_jax.data.urls import DAMAGED, opened
from mm1_jax.errors import UserError
from mm1_jax.pictures import SUFFIXES

# `image` without a name is the first member of a known image type. `text` is a member, or a key
# of the JSON member (`json.caption`); without a name it is `txt`, else `json.caption`.
COLUMNS = {"image": "", "text": ""}
_BLOCK_BYTES = 1 << 16  # tarfile copies the rest of a block at every read
IMAGE_TYPES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
# What is kept of the JSON beside the picture.
_FACTS = ("key", "width", "height", "original_width", "original_height", "sha256", "url")


def read(file: str, columns: Mapping[str, str]) -> Iterator[RawDocument | BadRecord]:
    """One document a sample: the image, then its caption. A sample's index is its place in the tar.

    Raises:
        UserError: the file cannot be read, is no tar, or its first sample is of another layout.
    """
    index = 0
    with opened(file) as stream:
        try:
            for key, members in _samples(stream):
                _check_layout(file, index, members, columns)
                origin = Origin(file, index)
                index += 1
                try:
                    yield _document(key, members, columns, origin)
                except RecordError as error:
                    yield BadRecord(origin, error.reason, f"{key}: {error.detail}")
        except (tarfile.TarError, *DAMAGED) as error:
            if not index:
                raise UserError(f"{file}: expected a tar archive, found none: {error}") from None
            told = f"the tar cannot be read on, what follows is lost: {error}"
            yield BadRecord(Origin(file, index), "truncated", told)


class _Watched:
    """A stream that remembers its last two blocks."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._blocks = (b"", b"")
        self._position = 0

    def read(self, count: int) -> bytes:
        block = self._stream.read(count)
        self._blocks = (self._blocks[1], block)
        self._position += len(block)
        return block

    def is_zero_from(self, position: int) -> bool:
        """Whether a block and all that follows it is zeros, as at the end of a tar."""
        kept = b"".join(self._blocks)
        rest = kept[position - (self._position - len(kept)) :]
        if len(rest) < tarfile.BLOCKSIZE:
            return False
        while rest and not rest.strip(b"\0"):
            rest = self.read(_BLOCK_BYTES)
        return not rest


def _samples(stream: Any) -> Iterator[tuple[str, dict[str, bytes]]]:
    key, members = None, {}
    watched = _Watched(stream)
    with tarfile.open(fileobj=cast(Any, watched), mode="r|", bufsize=_BLOCK_BYTES) as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, slash, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if folder + slash + stem != key:
                if key is not None:
                    yield key, members
                key, members = folder + slash + stem, {}
            content = archive.extractfile(member)
            assert content is not None  # it is a file
            members[extension.lower()] = content.read()
        # tarfile takes whatever is no header for the end.
        if not watched.is_zero_from(archive.offset):
            raise tarfile.ReadError(f"neither a header nor the end at byte {archive.offset}")
    if key is not None:
        yield key, members


def _check_layout(
    file: str, index: int, members: Mapping[str, bytes], columns: Mapping[str, str]
) -> None:
    wanted = {columns.get("image", ""), columns.get("text", "").partition(".")[0]} - {""}
    if index == 0 and not members.keys() & (wanted or {*IMAGE_TYPES, "txt", "json"}):
        names = wanted or {"jpg", "png", "webp", "txt", "json"}
        raise UserError(
            f"{file}: expected samples of {_listed(names)} (webdataset), found {_listed(members)}"
        )


def _listed(extensions: Any) -> str:
    return ", ".join(f".{extension}" for extension in sorted(extensions))


def _document(
    key: str, members: Mapping[str, bytes], columns: Mapping[str, str], origin: Origin
) -> RawDocument:
    said: Any = fields.parsed(members["json"], "json") if "json" in members else {}
    if not isinstance(said, dict):
        raise RecordError("malformed", "json is no object")
    named = columns.get("image", "")
    extension = next((x for x in ([named] if named else IMAGE_TYPES) if x in members), None)
    if extension is None:
        raise RecordError(
            "missing_field", f"no {named or 'image'} among {_listed(members) or 'nothing'}"
        )
    url = said.get("url")
    image = RawImage(members[extension], url if isinstance(url, str) else "")
    facts = {name: said[name] for name in _FACTS if name in said}
    return RawDocument(key, (image, _text(members, said, columns)), origin, facts=facts)


def _text(members: Mapping[str, bytes], said: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    named = columns.get("text", "")
    if not named:
        named = "txt" if "txt" in members else "json.caption"
        if named == "json.caption" and "caption" not in said:
            raise RecordError(
                "missing_field", f"neither .txt nor json.caption among {_listed(members)}"
            )
    member, _, key = named.partition(".")
    if member == "json" and key:
        return fields.text(fields.entry(said, key), named)
    if member not in members:
        raise RecordError("missing_field", f"no .{member} among {_listed(members)}")
    return fields.text(members[member], f".{member}")
