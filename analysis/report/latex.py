"""A report as a LaTeX article: booktabs tables, and its figures as PDF files in a folder beside it.

It compiles with pdfLaTeX, LuaLaTeX or XeLaTeX and the packages of `PREAMBLE`, all of them in TeX
Live's `latex-recommended` and `latex-extra`. Examples are without their images.
"""

from __future__ import annotations

import re
from functools import singledispatchmethod

from analysis.compare import Table
from analysis.escaping import in_latex, listing_in_latex
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
    Listing,
    Text,
)

PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage{iftex}
\ifpdftex\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{textcomp}\fi
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{amssymb,graphicx,array,booktabs,tabularx,float}
\usepackage[margin=2.2cm]{geometry}
\usepackage[hidelinks]{hyperref}
\setlength{\parindent}{0pt}\setlength{\parskip}{4pt plus 2pt}
\setlength{\emergencystretch}{3em}
\hyphenpenalty=10000
\newcolumntype{L}{>{\raggedright\arraybackslash}X}
\newcommand{\note}[1]{{\small\raggedright #1\par}}
\begin{document}
"""


def latex(document: Document, folder: str) -> tuple[str, dict[str, str]]:
    """The text, and the pictures that it takes from `folder`: file without its ending → SVG."""
    page = _Page(folder)
    return page.of(document), page.pictures


class _Page:
    """Blocks as LaTeX; its pictures are collected."""

    def __init__(self, folder: str):
        self.folder = folder
        self.pictures: dict[str, str] = {}

    def of(self, document: Document) -> str:
        """The whole document."""
        parts = [
            f"% study {in_latex(document.study)}; needs the folder {in_latex(self.folder)}",
            PREAMBLE,
            rf"{{\Large\bfseries\raggedright {_breaking(document.question)}\par}}",
            rf"\note{{{document.kind} \textbf{{{_breaking(document.study)}}}. "
            rf"{_breaking(document.facts)}}}",
            *(rf"\note{{\textbf{{Note:}} {_breaking(text)}}}" for text in document.notices),
        ]
        for section in document.sections:
            parts.append(rf"\section*{{{in_latex(section.title)}}}")
            parts += map(self.shown, section.blocks)
        parts.append(r"\end{document}")
        parts.append("% What this report carries: the study and every number, as gzipped JSON.")
        parts.append(carried.as_comments(document.carried))
        return "\n\n".join(parts) + "\n"

    @singledispatchmethod
    def shown(self, block: Block) -> str:
        """A block as LaTeX."""
        raise TypeError(f"no form for {type(block).__name__}")

    @shown.register
    def _(self, block: Text) -> str:
        told = _breaking(block.text)
        if block.kind == "notice":
            return rf"\note{{\textbf{{Note:}} {told}}}"
        return rf"\note{{{told}}}" if block.kind == "note" else told

    @shown.register
    def _(self, block: Heading) -> str:
        command = "paragraph" if block.minor else "subsection"
        return rf"\{command}*{{{_breaking(block.text)}}}"

    @shown.register
    def _(self, block: Bullets) -> str:
        items = [rf"\item {_breaking(text)}" for text in block.items]
        return "\n".join([r"\begin{itemize}\raggedright", *items, r"\end{itemize}"])

    @shown.register
    def _(self, block: Listing) -> str:
        lines = r"\\".join(listing_in_latex(line) or r"\mbox{}" for line in block.text.split("\n"))
        return rf"{{\ttfamily\footnotesize\raggedright {lines}\par}}"

    @shown.register
    def _(self, block: Card) -> str:
        notes = "".join(rf"\newline {_breaking(note)}" for note in block.notes)
        outcome = rf"\textbf{{{in_latex(block.symbol)} {block.verdict.capitalize()}.}}"
        claim = rf"{_breaking(block.name)}: \texttt{{{_breaking(block.claim)}}}"
        return f"{outcome} {_breaking(block.sentence)}\\par\n\\note{{{claim}{notes}}}"

    @shown.register
    def _(self, block: Figure) -> str:
        self.pictures[block.name] = block.svg
        lines = [
            r"\begin{figure}[H]",
            r"\centering",
            rf"\includegraphics[width=\linewidth]{{{self.folder}/{block.name}.pdf}}",
            rf"\caption{{{_breaking(f'{block.alt}. {block.caption}'.strip())}}}",
            r"\end{figure}",
        ]
        if block.numbers is not None:
            lines += ["", _table(block.numbers)]
        return "\n".join(lines)

    @shown.register
    def _(self, block: Grid) -> str:
        return _table(block.table, block.left_out)

    @shown.register
    def _(self, block: Examples) -> str:
        lines = []
        for one in block.items:
            prompt = _breaking(one.prompt) or "(no words)"
            lines.append(rf"\item \textbf{{{prompt}}} reference: {_breaking(one.reference)}")
            for given in one.answers:
                answer = _breaking(given.text) or r"\emph{(nothing)}"
                named = given.given_by(_breaking)
                lines.append(rf"\newline {in_latex(given.mark)} {answer} ({named})")
        return "\n".join([r"\begin{itemize}\raggedright\small", *lines, r"\end{itemize}"])


# Not before a space, where it breaks anyway, nor within a number.
_BREAKS = re.compile(r"(\\_|[/=,]|\.(?!\d)|\]\})(?! |$)")


def _breaking(text: str) -> str:
    """Text whose long names may break after what joins their parts."""
    line = in_latex(text)
    return _BREAKS.sub(r"\g<0>\\allowbreak{}", line).replace(r" \%", r"~\%")


def _table(table: Table, left_out: str = "") -> str:
    """As wide as the page; texts wrap, numbers do not."""
    columns = "".join("L" if c in table.text_columns else "r" for c in range(len(table.header)))
    notes = [*table.notes, *([left_out] if left_out else [])]
    size = r"\small" if len(table.header) < 6 else r"\footnotesize\setlength{\tabcolsep}{3pt}"
    return "\n".join(
        [
            r"\begin{table}[H]",
            rf"\centering{size}",
            rf"\caption{{{_breaking(table.title)}.}}",
            rf"\begin{{tabularx}}{{\linewidth}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            " & ".join(
                _heading(cell, c in table.text_columns) for c, cell in enumerate(table.header)
            )
            + r" \\",
            r"\midrule",
            *(
                " & ".join(
                    (_breaking if c in table.text_columns else in_latex)(cell)
                    for c, cell in enumerate(row)
                )
                + r" \\"
                for row in table.rows
            ),
            r"\bottomrule",
            r"\end{tabularx}",
            *(rf"\par\smallskip\raggedright {_breaking(note)}" for note in notes),
            r"\end{table}",
        ]
    )


def _heading(cell: str, is_text: bool) -> str:
    """The heading of a column of numbers in lines, so that it is no wider than they are."""
    if is_text:
        return _breaking(cell)
    lines = cell.replace(".", ".\n", 1).replace(" (", "\n(").replace(" interval, ", " interval,\n")
    told = r"\\".join(in_latex(line) for line in lines.split("\n"))
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{told}\end{{tabular}}"
