"""What people write beside a study: notes and tags. Nothing is decided by them.

notes/<study>/<time>-<id>.json    one note each; written once, never changed
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Literal
from urllib.parse import quote

from ablations.errors import UserError
from ablations.schema import Config
from sweeps.objects import Objects
from sweeps.records import SCHEMA_VERSION, UnreadableError, read_record, sealed
from sweeps.store import utc_now

LONGEST = 10_000  # characters of a note
LONGEST_TAG = 40

Kind = Literal["note", "tag", "untag"]


class Note(Config):
    """A note about a study, a tag that it was given, or one that was taken away."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    text: str
    by: str  # user@host
    at: str  # UTC, ISO 8601


def write(objects: Objects, study: str, kind: Kind, text: str, by: str) -> Note:
    """Keep a note. Raises `UserError` where it is empty, or longer than one may be."""
    most = LONGEST if kind == "note" else LONGEST_TAG
    text = text.strip()
    if not text or len(text) > most:
        raise UserError(f"a {kind} has 1 to {most:,} characters, this one has {len(text):,}")
    note = Note(kind=kind, text=text, by=by, at=utc_now())
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
    objects.create(f"{_folder(study)}/{name}", sealed(note))
    return note


def notes_of(objects: Objects, study: str) -> tuple[list[Note], list[str]]:
    """What was written of a study, oldest first, and a line for each record that is unreadable."""
    found, lines = [], []
    for name in objects.children(_folder(study)):
        try:
            found.append(read_record(objects, f"{_folder(study)}/{name}", Note))
        except FileNotFoundError:  # removed meanwhile
            continue
        except UnreadableError as error:
            lines.append(str(error))
    return found, lines


def how_many(objects: Objects, study: str) -> int:
    """How many notes and tags were written of a study; none of them is read."""
    return len(objects.children(_folder(study)))


def tags_of(notes: Iterable[Note]) -> list[str]:
    """The tags that a study has after some notes, in the order in which it was given them."""
    tags: dict[str, None] = {}
    for note in notes:
        if note.kind == "tag":
            tags[note.text] = None
        elif note.kind == "untag":
            tags.pop(note.text, None)
    return list(tags)


def _folder(study: str) -> str:
    return f"notes/{quote(study, safe='')}"
