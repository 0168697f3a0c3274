"""A report as one Markdown file: tables, and pictures as addresses that are defined at its end.

They are PNG, which every viewer that draws such addresses takes.
"""

from __future__ import annotations

import base64
import re
from functools import singledispatchmethod

from ablations.shown_text import visible, without_secrets
from analysis.compare import Table
from analysis.escaping import in_markdown
from analysis.report import carried
from analysis.report.document import (
    Block,
    Bullets,
    Card,
    Document,
    Examples,
    Figure,
    Grid,
    Heading,
    Image,
    Listing,
    Text,
)
from analysis.report.pdf import picture


def markdown(document: Document) -> str:
    """The text."""
    return _Page().of(document)


class _Page:
    """Blocks as Markdown; their pictures are collected and defined at the end."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}  # name → what stands for it

    def of(self, document: Document) -> str:
        """The whole page."""
        parts = [
            f"# {in_markdown(document.question) or in_markdown(document.study)}",
            f"{document.kind} **{in_markdown(document.study)}**. {in_markdown(document.facts)}",
            *(f"> **Note:** {in_markdown(text)}" for text in document.notices),
        ]
        for section in document.sections:
            parts.append(f"## {in_markdown(section.title)}")
            parts += map(self.shown, section.blocks)
        self.addresses[carried.NAME] = carried.as_address(document.carried)
        parts.append(
            "The definitions below hold the pictures, and what this report carries: the study in "
            "resolved form and every number, as gzipped JSON."
        )
        parts.append("\n".join(f"[{name}]: {held}" for name, held in self.addresses.items()))
        return "\n\n".join(parts) + "\n"

    @singledispatchmethod
    def shown(self, block: Block) -> str:
        """A block as Markdown."""
        raise TypeError(f"no form for {type(block).__name__}")

    @shown.register
    def _(self, block: Text) -> str:
        told = in_markdown(block.text)
        return f"> **Note:** {told}" if block.kind == "notice" else told

    @shown.register
    def _(self, block: Heading) -> str:
        return f"{'####' if block.minor else '###'} {in_markdown(block.text)}"

    @shown.register
    def _(self, block: Bullets) -> str:
        return "\n".join(f"- {in_markdown(text)}" for text in block.items)

    @shown.register
    def _(self, block: Listing) -> str:
        text = visible(without_secrets(block.text)).rstrip("\n")
        longest = max(map(len, re.findall("`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}text\n{text}\n{fence}"

    @shown.register
    def _(self, block: Card) -> str:
        notes = "\n".join(f"  - {in_markdown(note)}" for note in block.notes)
        return (
            f"- **{block.symbol} {block.verdict.capitalize()}**: {in_markdown(block.sentence)}\n"
            f"  - {in_markdown(block.name)}: {in_markdown(block.claim)}\n{notes}"
        )

    @shown.register
    def _(self, block: Figure) -> str:
        held = f"data:image/png;base64,{base64.b64encode(picture(block.svg, 'png')).decode()}"
        parts = [self._picture(block.name, block.alt, held)]
        parts += [f"*{in_markdown(block.caption)}*"] if block.caption else []
        parts += [_table(block.numbers)] if block.numbers is not None else []
        return "\n\n".join(parts)

    def _picture(self, name: str, alt: str, held: str) -> str:
        own = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "picture"
        while self.addresses.get(own, held) != held:
            own += "-more"
        self.addresses[own] = held
        return f"![{in_markdown(alt)}][{own}]"

    @shown.register
    def _(self, block: Grid) -> str:
        note = f"\n\n{in_markdown(block.left_out)}" if block.left_out else ""
        return _table(block.table) + note

    @shown.register
    def _(self, block: Examples) -> str:
        lines = []
        for one in block.items:
            picture = self._image(one.image) if one.image else ""
            lines.append(
                f"- {picture}**{in_markdown(one.prompt) or '(no words)'}** "
                f"reference: {in_markdown(one.reference)}"
            )
            for given in one.answers:
                answer = in_markdown(given.text) or "*(nothing)*"
                named = given.given_by(in_markdown)
                lines.append(f"  - {in_markdown(given.mark)} {answer} ({named})")
        return "\n".join(lines)

    def _image(self, image: Image) -> str:
        held = f"data:image/{image.kind};base64,{base64.b64encode(image.content).decode()}"
        return self._picture(image.name, image.alt, held) + " "


def _table(table: Table) -> str:
    rule = [":--" if c in table.text_columns else "--:" for c in range(len(table.header))]
    header, *rows = (list(map(in_markdown, row)) for row in (table.header, *table.rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))
