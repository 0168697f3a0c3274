"""Other people's text as text in Markdown and LaTeX: one function each.

Names, questions, labels, predictions and error texts are shown, never obeyed: not as a tag, not as
markup, not as a control character. For HTML and a terminal: `ablations.shown_text`.
"""

from __future__ import annotations

import re

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
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "−": r"\ensuremath{-}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "→": r"\ensuremath{\to}",
    "✓": r"\ensuremath{\checkmark}",
    "✗": r"\ensuremath{\times}",
    "…": r"\ldots{}",
    "–": "--",
}


def in_latex(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line."""
    line = " ".join(_shown(text).split())
    return "".join(_LATEX.get(character, character) for character in line)


def _shown(text: str) -> str:
    return visible(without_secrets(text))
