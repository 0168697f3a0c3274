"""A report, or a picture of one, as PDF by typst: from memory, with the fonts that come with it.

Texts are handed over as data (`template.typ` reads `document.json`), so none of them is read as
markup. No font of this machine is used and no time is written, so the bytes are the same anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from functools import singledispatchmethod
from pathlib import Path
from typing import Any, Literal

from ablations.errors import UserError
from analysis.compare import Table
from analysis.escaping import in_pdf
from analysis.figures import FONT
from analysis.report import carried
from analysis.report.document import (
    Block,
    Bullets,
    Card,
    Document,
    Example,
    Examples,
    Figure,
    Grid,
    Heading,
    Image,
    Listing,
    Text,
)

TEMPLATE = Path(__file__).with_name("template.typ")
PICTURE = """
#set page(width: 17cm, height: auto, margin: 0pt)
#image("picture.svg", width: 100%)
"""


def pdf(document: Document) -> bytes:
    """The report."""
    with tempfile.TemporaryDirectory(prefix="mm1-report-") as folder:
        page = _Page(Path(folder))
        (page.folder / "document.json").write_text(json.dumps(page.of(document)), encoding="utf-8")
        (page.folder / carried.FILE).write_bytes(document.carried)
        (page.folder / "main.typ").write_bytes(TEMPLATE.read_bytes())
        return _compiled(page.folder)


def picture(svg: str, form: Literal["pdf", "png"] = "pdf") -> bytes:
    """A drawing as a PDF of one page, as large as it is, or as PNG."""
    with tempfile.TemporaryDirectory(prefix="mm1-picture-") as folder:
        (Path(folder) / "picture.svg").write_text(_for_typst(svg), encoding="utf-8")
        (Path(folder) / "main.typ").write_text(PICTURE, encoding="utf-8")
        return _compiled(Path(folder), form, standard="1.5")  # pdfLaTeX takes no newer one in


def _compiled(
    folder: Path,
    form: Literal["pdf", "png", "svg"] = "pdf",
    standard: Literal["1.5", "1.7"] = "1.7",
) -> bytes:
    try:
        import typst
    except ImportError:
        raise UserError("PDF and pictures need the package typst: pip install typst") from None
    compiler = typst.Compiler(root=str(folder), ignore_system_fonts=True)
    made = compiler.compile(
        str(folder / "main.typ"), format=form, timestamp=0, pdf_standards=standard
    )
    assert isinstance(made, bytes)  # where no output file is named
    return made


def _say(text: str) -> str:
    """Text for a PDF, its percent signs tied to their numbers."""
    return in_pdf(text).replace(" %", "\xa0%")


def _for_typst(svg: str) -> str:
    """A drawing whose texts are set in a font that is there."""
    found = in_pdf(svg).replace(FONT, "Libertinus Serif")
    return found.replace('font-size="13"', 'font-size="15"', 1)  # its letters are narrower


class _Page:
    """Blocks as what the template takes; pictures are files of its folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = 0

    def of(self, document: Document) -> dict[str, Any]:
        """The whole report."""
        return {
            "kind": document.kind,
            "study": _say(document.study),
            "title": _say(document.question or document.study),
            "facts": _say(document.facts),
            "notices": [_say(one) for one in document.notices],
            "sections": [
                {"title": _say(one.title), "blocks": [self.shown(block) for block in one.blocks]}
                for one in document.sections
            ],
            "attached": carried.FILE,
        }

    @singledispatchmethod
    def shown(self, block: Block) -> dict[str, Any]:
        """A block for the template."""
        raise TypeError(f"no form for {type(block).__name__}")

    @shown.register
    def _(self, block: Text) -> dict[str, Any]:
        return {"kind": "text", "way": block.kind, "text": _say(block.text)}

    @shown.register
    def _(self, block: Heading) -> dict[str, Any]:
        return {"kind": "heading", "text": _say(block.text), "minor": block.minor}

    @shown.register
    def _(self, block: Bullets) -> dict[str, Any]:
        return {"kind": "bullets", "items": [_say(one) for one in block.items]}

    @shown.register
    def _(self, block: Listing) -> dict[str, Any]:
        return {"kind": "listing", "text": _say(block.text)}

    @shown.register
    def _(self, block: Card) -> dict[str, Any]:
        return {
            "kind": "card",
            "verdict": block.verdict,
            "outcome": f"{block.symbol} {block.verdict.capitalize()}",
            "sentence": _say(block.sentence),
            "name": _say(block.name),
            "claim": _say(block.claim),
            "notes": [_say(one) for one in block.notes],
        }

    @shown.register
    def _(self, block: Figure) -> dict[str, Any]:
        file = self._file("svg")
        (self.folder / file).write_text(_for_typst(block.svg), encoding="utf-8")
        return {
            "kind": "figure",
            "file": file,
            "alt": _say(block.alt),
            "caption": _say(block.caption),
        }

    @shown.register
    def _(self, block: Grid) -> dict[str, Any]:
        return _table(block.table, block.left_out)

    @shown.register
    def _(self, block: Examples) -> dict[str, Any]:
        return {"kind": "examples", "items": [self._example(one) for one in block.items]}

    def _example(self, one: Example) -> dict[str, Any]:
        file = None if one.image is None else self._drawn(one.image)
        return {
            "image": file,
            "alt": _say(one.image.alt) if one.image else "",
            "has_image": one.has_image,
            "prompt": _say(one.prompt),
            "reference": _say(one.reference),
            "answers": [
                {
                    **dataclasses.asdict(given),
                    "mark": _say(given.mark),
                    "text": _say(given.text),
                    "arms": given.given_by(_say),
                }
                for given in one.answers
            ],
        }

    def _drawn(self, image: Image) -> str | None:
        """The file of an image; None where it cannot be drawn, which would end the report."""
        import typst

        file = self._file(image.kind)
        (self.folder / file).write_bytes(image.content)
        (self.folder / "main.typ").write_text(f'#image("{file}", width: 10pt)', encoding="utf-8")
        try:
            _compiled(self.folder, "svg")
        except typst.TypstError:
            return None
        return file

    def _file(self, kind: str) -> str:
        self.files += 1
        return f"{self.files}.{kind}"


def _table(table: Table, left_out: str) -> dict[str, Any]:
    return {
        "kind": "grid",
        "title": _say(table.title),
        "header": [_say(one).replace(" (", "\n(") for one in table.header],
        "rows": [[_say(cell) for cell in row] for row in table.rows],
        "texts": sorted(table.text_columns),
        "left": _say(left_out),
    }
