"""WebDataset tars in the layout of img2dataset: `000000010.jpg`, `.txt`, `.json`.

Members with the same name up to the first dot of the file name form a sample; they are adjacent.
The ending, in lower case, says what a member is. As webdataset splits them, `a.b.jpg` is the
`b.jpg` of `a`; what begins with a dot (`._a.jpg` of macOS) or has none is part of no sample.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ablations.errors import UserError
from mm1_jax.data.files.urls import DAMAGED, opened
from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields
from mm1_jax.images.pictures import LIMIT_BYTES, SUFFIXES

# `image` without a name is the member of a known image type. `text` is a member, or a key of the
# JSON member (`json.caption`); without a name it is `txt`, else `json.caption`.
COLUMNS = {"image": "", "text": ""}
_BLOCK_BYTES = 1 << 16  # tarfile copies the rest of a block at every read
IMAGE_TYPES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
_LIMIT_TEXT_BYTES = 16 << 20
_LIMIT_MEMBERS = 1000  # of a sample
_LIMIT_HEADER_BYTES = 1 << 20
# What is kept of the JSON beside the picture.
_FACTS = ("key", "width", "height", "original_width", "original_height", "sha256", "url")
_SHOWN = 8  # endings in a message
_OF_WEBDATASET = re.compile(r"__[^/]*__($|/)")


def read(file: str, columns: Mapping[str, str]) -> Iterator[RawDocument | BadRecord]:
    """One document a sample: the image, then its caption. A sample's index is its place in the tar.

    A member that is there twice in a sample is a bad record, the first of them is used. Members
    that are part of no sample are `no_sample`, with the index of the sample that follows.

    Raises:
        UserError: the file cannot be read, is no tar, holds no sample, or its first one is of
            another layout.
    """
    columns = {name: _in_lower_case(column) for name, column in columns.items()}
    index, first_left_out = 0, ""
    with opened(file) as stream:
        try:
            for sample in _samples(stream):
                origin = Origin(file, index)
                if isinstance(sample, RecordError):
                    first_left_out = first_left_out or sample.detail
                    yield BadRecord(origin, sample.reason, sample.detail)
                    continue
                _check_layout(file, index, sample.members, columns)
                index += 1
                try:
                    yield _document(sample, columns, origin)
                except RecordError as error:
                    yield BadRecord(origin, error.reason, f"{sample.key}: {error.detail}")
                if sample.again:
                    told = f"{sample.key}: there again, the first is used: {_cut(sample.again)}"
                    yield BadRecord(origin, "malformed", told)
        except (tarfile.TarError, *DAMAGED) as error:
            if not index and not first_left_out:
                raise UserError(f"{file}: expected a tar archive, found none: {error}") from None
            told = f"the tar cannot be read on, what follows is lost: {error}"
            yield BadRecord(Origin(file, index), "truncated", told)
    if not index and first_left_out:
        raise UserError(f"{file}: no member of the tar is part of a sample: {first_left_out}")


def _in_lower_case(column: str) -> str:
    """As endings are compared; the keys of a JSON stay as they are."""
    member, dot, key = column.partition(".")
    return f"json.{key}" if dot and member.lower() == "json" else column.lower()


@dataclass
class _Sample:
    """What a sample is made of: its members by their endings, and those that are there again."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    size: int = 0
    too_large: str = ""

    def add(self, extension: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        if extension in self.members:
            self.again.append(member.name)
            return
        image = extension.rpartition(".")[2] in IMAGE_TYPES
        limit = LIMIT_BYTES if image else _LIMIT_TEXT_BYTES
        self.size += member.size
        if member.size > limit or self.size > 2 * LIMIT_BYTES:
            self.too_large = self.too_large or f"{member.name} has {member.size:,} bytes"
        elif len(self.members) >= _LIMIT_MEMBERS:
            self.too_large = (
                self.too_large or f"more than {_LIMIT_MEMBERS:,} members are called {self.key}"
            )
        content = None if self.too_large else archive.extractfile(member)
        self.members[extension] = b"" if content is None else content.read()


class _Header(tarfile.TarInfo):
    """A member's header. Further ones before it (long names, pax) are read whole: to a limit."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0 or (self.size > _LIMIT_HEADER_BYTES and self.type in _BESIDE):
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        return cast(Any, super())._proc_member(archive)


_BESIDE = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


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


def _samples(stream: Any) -> Iterator[_Sample | RecordError]:
    sample: _Sample | None = None
    watched = _Watched(stream)
    with tarfile.open(
        fileobj=cast(Any, watched), mode="r|", bufsize=_BLOCK_BYTES, tarinfo=_Header
    ) as archive:
        for member in archive:
            cast(Any, archive).members = []  # it would keep them all
            if member.isdir():
                continue
            named = _key_and_extension(member)
            if isinstance(named, RecordError):
                yield named
                continue
            key, extension = named
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            sample.add(extension, member, archive)
        # tarfile takes whatever is no header for the end.
        if not watched.is_zero_from(archive.offset):
            raise tarfile.ReadError(f"neither a header nor the end at byte {archive.offset}")
    if sample is not None:
        yield sample


def _key_and_extension(member: tarfile.TarInfo) -> tuple[str, str] | RecordError:
    folder, slash, name = member.name.rpartition("/")
    stem, _, extension = name.partition(".")
    if not member.isfile():
        linked = f", a link to {member.linkname}" if member.linkname else ""
        return RecordError("no_sample", f"{member.name} is no file{linked}")
    if _OF_WEBDATASET.match(member.name):
        return RecordError("no_sample", f"{member.name} is about the tar itself")
    if not stem or not extension:
        what = "begins with a dot" if not stem else "has no ending"
        return RecordError("no_sample", f"{member.name} {what}")
    return folder + slash + stem, extension.lower()


def _check_layout(
    file: str, index: int, members: Mapping[str, bytes], columns: Mapping[str, str]
) -> None:
    wanted = {columns.get("image", ""), columns.get("text", "").partition(".")[0]} - {""}
    if index == 0 and not members.keys() & (wanted or {*IMAGE_TYPES, "txt", "json"}):
        names = wanted or {"jpg", "png", "webp", "txt", "json"}
        dotted = any("." in extension for extension in members)
        raise UserError(
            f"{file}: expected samples of {_listed(names)} (webdataset), found {_listed(members)}"
            + ("; a member's ending begins at the first dot of its name" if dotted else "")
        )


def _listed(extensions: Any) -> str:
    return _cut(sorted(f".{extension}" for extension in extensions))


def _cut(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _document(sample: _Sample, columns: Mapping[str, str], origin: Origin) -> RawDocument:
    key, members = sample.key, sample.members
    if sample.too_large:
        raise RecordError("bomb", sample.too_large)
    fields.check_characters(key, "the name")
    said: Any = fields.parsed(members["json"], "json") if "json" in members else {}
    if not isinstance(said, dict):
        raise RecordError("malformed", "json is no object")
    named = columns.get("image", "")
    found = [x for x in ([named] if named else IMAGE_TYPES) if x in members]
    if not found:
        raise RecordError(
            "missing_field", f"no {named or 'image'} among {_listed(members) or 'nothing'}"
        )
    if len(found) > 1:
        told = f"{len(found)} images ({_listed(found)})"
        raise RecordError("malformed", f"{told}; `columns: {{image: {found[0]}}}` says which")
    extension = found[0]
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
