"""Conversations of LLaVA and ShareGPT4V: a JSON list (or JSON lines) of turns, often one image."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from ablations.errors import UserError
from mm1_jax.data.files.urls import DAMAGED, opened
from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields
from mm1_jax.data.own.readers.lines import objects

PLACEHOLDER = "<image>"
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}
_CHUNK_BYTES = 1 << 20
_LIMIT_CHARACTERS = 64 << 20  # of one conversation


def read(file: str, image_folder: str) -> Iterator[RawDocument | BadRecord]:
    """One document a conversation; loss on the turns of `gpt` alone.

    An image stands where `<image>` stood. `facts["roles"]` has the role of each text part: human,
    gpt or system.

    Raises:
        UserError: the file cannot be read or is of another format.
    """
    stem = PurePosixPath(file).stem
    for item in _entries(file):
        if isinstance(item, BadRecord):
            yield item
            continue
        origin, record = item
        try:
            yield _document(stem, record, origin, image_folder)
        except RecordError as error:
            yield BadRecord(origin, error.reason, error.detail)


def _entries(file: str) -> Iterator[tuple[Origin, dict[str, Any]] | BadRecord]:
    expected = ("conversations",)
    if _first_character(file) != "[":
        yield from objects(file, expected, "conversations")
        return
    for index, value in enumerate(_items(file)):
        origin = Origin(file, index)
        if isinstance(value, RecordError):
            yield BadRecord(origin, value.reason, value.detail)
        elif not isinstance(value, dict):
            yield BadRecord(origin, "malformed", "the entry is no JSON object")
        elif index == 0 and "conversations" not in value:
            raise UserError(
                f"{file}: expected conversations, found entries with {', '.join(value)}"
            )
        else:
            yield origin, value


def _first_character(file: str) -> str:
    beginning = b""
    with opened(file) as stream:
        try:
            while not beginning and (chunk := stream.read(4096)):
                beginning = chunk.removeprefix(codecs.BOM_UTF8).lstrip()
        except DAMAGED as error:
            raise UserError(f"{file} cannot be decompressed: {error}") from None
    if beginning[:1] not in (b"[", b"{"):
        raise UserError(f"{file}: expected a JSON list of conversations, found {beginning[:20]!r}")
    return beginning[:1].decode()


def _items(file: str) -> Iterator[Any]:
    """The values of a JSON list, one at a time: published files have more than a gigabyte."""
    with opened(file) as stream:
        try:
            yield from _values(stream)
        except DAMAGED as error:
            yield RecordError("truncated", f"cannot be read on, what follows is lost: {error}")


def _values(stream: BinaryIO) -> Iterator[Any]:
    twice: list[str] = []

    def noted(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend(filter(None, [fields.key_twice(pairs)]))
        return dict(pairs)

    decoder = json.JSONDecoder(object_pairs_hook=noted)
    # A byte that is not UTF-8 becomes half a surrogate pair, which `fields.text` refuses.
    text = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    buffer, place, ended = "", 0, False

    def more(count: int) -> None:
        nonlocal buffer, place, ended
        chunk = stream.read(count)
        ended = not chunk
        buffer, place = buffer[place:] + text.decode(chunk, final=ended), 0

    while not ended and "[" not in buffer:
        place = len(buffer)  # only white space is before it
        more(_CHUNK_BYTES)
    place = buffer.index("[") + 1
    while True:
        while place < len(buffer) and buffer[place] in " \t\r\n,":
            place += 1
        if place == len(buffer) and not ended:
            more(_CHUNK_BYTES)
            continue
        if buffer[place : place + 1] == "]":
            place += 1
            while not buffer[place:].strip() and not ended:
                place = len(buffer)
                more(_CHUNK_BYTES)
            if rest := buffer[place:].strip():
                told = f"{rest[:40]!r} stands behind the end of the list; all from there is lost"
                yield RecordError("truncated", told)
            return
        twice.clear()
        try:
            value, end = decoder.raw_decode(buffer, place)
        except (ValueError, RecursionError) as error:
            if ended or len(buffer) - place > _LIMIT_CHARACTERS:
                told = f"the list cannot be read on, what follows is lost: {error}"
                yield RecordError("truncated" if ended else "malformed", told)
                return
            more(max(_CHUNK_BYTES, len(buffer) - place))
            continue
        place = end
        yield RecordError("malformed", f"the entry has {twice[0]}") if twice else value


def _document(
    stem: str, record: Mapping[str, Any], origin: Origin, image_folder: str
) -> RawDocument:
    turns = fields.entry(record, "conversations")
    if not isinstance(turns, list):
        raise RecordError("malformed", "conversations is no list")
    images = _images(record, image_folder)
    shown = iter(images)
    parts: list[str | RawImage] = []
    roles: list[str] = []
    placeholders = 0
    for number, turn in enumerate(turns):
        what = f"conversations[{number}]"
        if not isinstance(turn, dict):
            raise RecordError("malformed", f"{what} is no object")
        said_by = fields.entry(turn, "from")
        if not isinstance(said_by, str) or said_by not in _ROLES:
            shown = repr(said_by)[:40]
            raise RecordError("malformed", f"{what} is from {shown}, expected human or gpt")
        words = fields.text(fields.entry(turn, "value"), f"{what}.value")
        role = _ROLES[said_by]
        # Whoever answers shows no images: there the word stands for itself.
        pieces = words.split(PLACEHOLDER) if role == "human" else [words]
        placeholders += len(pieces) - 1
        for piece_number, piece in enumerate(pieces):
            if piece_number:
                image = next(shown, None)
                parts += [image] if image else []
            # The line break that parts an image from the words is no part of them.
            piece = piece.strip("\n") if len(pieces) > 1 else piece
            if piece.strip():
                parts.append(piece)
                roles.append(role)
    if placeholders != len(images):
        raise RecordError(
            "malformed", f"{len(images)} images, {placeholders} {PLACEHOLDER} for them"
        )
    if "gpt" not in roles:
        raise RecordError("missing_field", "no turn is from gpt: nothing to learn")
    return RawDocument(
        fields.name(record.get("id"), f"{stem}/{origin.index}"),
        tuple(parts),
        origin,
        answers=tuple(role == "gpt" for role in roles),
        facts={"roles": tuple(roles)},
    )


def _images(record: Mapping[str, Any], image_folder: str) -> list[RawImage]:
    named = record.get("image")
    if named is None:
        return []
    listed = named if isinstance(named, list) else [named]
    return [fields.located(path, "image", image_folder) for path in listed]
