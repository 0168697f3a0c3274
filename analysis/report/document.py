"""What a report consists of, before it has a form: plain texts, tables and pictures in order.

No text in here is escaped, and none is markup: each form shows them in its own way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from analysis.compare import Table


@dataclass(frozen=True)
class Text:
    """A paragraph: of the text, a note beside it, or a notice that changes how all is read."""

    text: str
    kind: Literal["plain", "note", "notice"] = "plain"


@dataclass(frozen=True)
class Heading:
    """The title of what follows within a section; `minor` below another one."""

    text: str
    minor: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """Text that is to be typed or read as it stands, line by line."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table, and the rows that a form with pages leaves out of it, with where they are."""

    table: Table
    rest: tuple[tuple[str, ...], ...] = ()
    left_out: str = ""  # what `rest` is, and where it can be had


@dataclass(frozen=True)
class Figure:
    """A picture as SVG; `name` is that of a file, `alt` what it shows in words.

    `numbers` are what it shows: beside it where a form has room, in its place where it has none.
    """

    name: str
    svg: str
    alt: str
    caption: str = ""
    numbers: Table | None = None


@dataclass(frozen=True)
class Card:
    """A claim and its verdict."""

    verdict: str  # supported, refuted, undecided, interim
    symbol: str
    sentence: str
    name: str
    claim: str  # as in the study's file
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """A picture of an example."""

    name: str
    kind: str  # png, jpeg, gif, webp
    content: bytes
    alt: str


@dataclass(frozen=True)
class Given:
    """An answer to an example, and the arms that gave it."""

    mark: str  # ✓, ✗, or a score
    verdict: Literal["right", "wrong", ""]
    text: str
    arms: tuple[str, ...]
    more_arms: int = 0  # that gave it too and are not named

    def given_by(self, shown: Callable[[str], str]) -> str:
        """The arms as a list, each name as a form shows it."""
        named = ", ".join(map(shown, self.arms))
        return named + (f" and {self.more_arms} more" if self.more_arms else "")


@dataclass(frozen=True)
class Example:
    """One item of a task: what was asked, what would have been right, and what was answered."""

    prompt: str
    reference: str
    image: Image | None
    has_image: bool  # although it may not be here to be shown
    answers: tuple[Given, ...]


@dataclass(frozen=True)
class Examples:
    """Examples side by side."""

    items: tuple[Example, ...]


Block = Text | Heading | Bullets | Listing | Grid | Figure | Card | Examples


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A whole report. `carried` is what `mm1 reproduce` reads of it (`analysis.report.carried`)."""

    kind: str  # what it is of: an ablation study, a table
    study: str
    question: str
    facts: str  # the line below the title
    notices: tuple[str, ...]
    sections: tuple[Section, ...]
    carried: bytes
