"""What every reader of a format yields: a document in reading order, or why a record is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# Why a record is not used. `unreadable` is bytes that no decoder takes; `truncated` an image whose
# end is missing; `bomb` what would fill the memory; `unknown_range` an image of numbers of which
# nobody says which are black and white; `encoding` text that is not UTF-8; `malformed` what is not
# of the format (JSON that does not parse, an image without its text); `not_a_number` a NaN where a
# text or a score is due; `outside` an image's path that leaves the images' folder; `unavailable` an
# image or a shard that could not be fetched; `no_sample` a member of a tar that is part of no
# record, which no quota counts.
Reason = Literal[
    "unreadable",
    "truncated",
    "bomb",
    "unknown_range",
    "missing_field",
    "encoding",
    "malformed",
    "empty_text",
    "not_a_number",
    "outside",
    "unavailable",
    "no_sample",
]


_MOST_TOLD = 400  # characters


@dataclass(frozen=True, order=True)
class Origin:
    """Where a record was read: a path or URL, and its number in that file, from 0."""

    file: str
    index: int


@dataclass(frozen=True)
class RawImage:
    """An encoded image. Without `content` its bytes are at `url`.

    content  JPEG, PNG, WebP … as published
    url      where it is or came from: a local path or a URL; "" if nobody said
    """

    content: bytes | None = None
    url: str = ""


@dataclass(frozen=True)
class RawDocument:
    """Text and images in reading order, as published.

    answers  one value per text part, in their order: whether it bears loss; None = all do
    facts    what the format says besides: size, similarity, language …
    """

    name: str
    parts: tuple[str | RawImage, ...]
    origin: Origin
    answers: tuple[bool, ...] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> tuple[RawImage, ...]:
        """The images alone, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, RawImage))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts alone, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class BadRecord:
    """A record, or one image of it, that is not used.

    detail  what was expected and found, on one line
    part    the place of the image in its document's parts; None = the whole record
    """

    origin: Origin
    reason: Reason
    detail: str
    part: int | None = None


class RecordError(Exception):
    """A record or an image cannot be used; whoever reads goes on with the next."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(detail)
        self.reason: Reason = reason
        told = " ".join(detail.split())
        self.detail = told if len(told) <= _MOST_TOLD else f"{told[:_MOST_TOLD]} …"
