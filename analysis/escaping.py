"""Other people's text as text in Markdown, LaTeX and PDF: one function each.

Names, questions, labels, predictions and error texts are shown, never obeyed: not as a tag, not as
markup, not as a control character. For HTML and a terminal: `ablations.shown_text`.
"""

from __future__ import annotations

import re
import unicodedata

from ablations.shown_text import visible, without_secrets


def in_markdown(text: str) -> str:
    r"""Text for Markdown, on one line, also in a table's cell.

    Neither HTML (`&lt;`) nor markup (`\*`); an address and a word with underscores in it stay.
    """
    line = " ".join(_shown(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*|\[\]~$!])", r"\\\1", line)
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)  # between letters it is no emphasis
    line = re.sub(r"^(\s*)([#+=-])(?=\s|$|#|-|=)", r"\1\\\2", line)  # no heading, rule or list
    return re.sub(r"^(\s*\d+)([.)])(?=\s|$)", r"\1\\\2", line)


# fmt: off
_GREEK = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda",
    "mu", "nu", "xi", "omicron", "pi", "rho", "varsigma", "sigma", "tau", "upsilon", "phi", "chi",
    "psi", "omega",
)
# fmt: on
# What pdfLaTeX would take for something else, or has by another name.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after a line's end it would say how far away the next one is
    "*": "{*}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "→": r"\ensuremath{\to}",
    "←": r"\ensuremath{\leftarrow}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "≠": r"\ensuremath{\neq}",
    "≈": r"\ensuremath{\approx}",
    "∞": r"\ensuremath{\infty}",
    "✓": r"\ensuremath{\checkmark}",
    "✗": r"\ensuremath{\times}",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "‐": "-",
    "‑": "-",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\xa0": "~",
    **{
        chr(ord("α") + number): rf"\ensuremath{{\{name}}}"
        for number, name in enumerate(_GREEK)
        if name != "omicron"  # which is an o
    },
}
# Two of these in a row are one other sign in LaTeX's fonts.
_LIGATURES = re.compile("(?<=[-',!?])(?=[-',`])")
# Letters of Latin-1 and of Latin Extended-A that LaTeX's T1 fonts have.
_IN_LATEX = {*map(chr, range(0x20, 0x7F)), *map(chr, range(0xA1, 0x17F))} - set("ĦħĸĿŀŉŦŧſ\xad")
# What the fonts that come with typst have: Latin, Greek, Cyrillic, punctuation, arrows, signs.
_IN_PDF = re.compile(
    "[\n\t -~\xa0-\u024f\u0370-\u03ff\u0400-\u045f\u1e00-\u1eff\u2010-\u205e\u2070-\u20bf"
    "\u2100-\u22ff\u2713\u2717]"
)


def in_latex(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line; a letter it has no font for is `[U+4E2D]`."""
    return "".join(map(_latex, _apart(" ".join(_shown(text).split()))))


def listing_in_latex(line: str) -> str:
    """A line of a listing for LaTeX: its spaces stay."""
    plain = _apart(_shown(line).replace("\t", "    "))
    spaced = re.sub(" (?= )|^ ", "\xa0", plain)
    return "".join(map(_latex, spaced))


def _apart(text: str) -> str:
    return _LIGATURES.sub("\0", unicodedata.normalize("NFC", text))


def _latex(character: str) -> str:
    if character == "\0":
        return "{}"
    if character in _LATEX:
        return _LATEX[character]
    return character if character in _IN_LATEX else f"{{{_spelled(character)}}}"


def in_pdf(text: str) -> str:
    """Text for a PDF by typst, which is given it as data; what it has no font for is `[U+4E2D]`."""
    plain = unicodedata.normalize("NFC", _shown(text))
    return "".join(one if _IN_PDF.match(one) else _spelled(one) for one in plain)


def _spelled(character: str) -> str:
    return f"[U+{ord(character):04X}]"


def _shown(text: str) -> str:
    return visible(without_secrets(text))
