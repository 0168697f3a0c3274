"""The part of a Python source that decides what it does: the input of code fingerprints."""

from __future__ import annotations

import io
import tokenize
from functools import cache


@cache
def canonical_source(source: str) -> str:
    """Drop comments, docstrings, blank lines and formatting within lines.

    One logical line per row, its tokens separated by single spaces, indentation as depth. Built
    on `tokenize`, because `ast.dump` differs between Python versions.
    """
    rows: list[str] = []
    row: list[str] = []
    depth = 0
    only_strings = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            if row and not only_strings:  # a statement of nothing but a string does nothing
                rows.append(" " * depth + " ".join(row))
            row, only_strings = [], True
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            row.append(token.string)
            only_strings &= token.type == tokenize.STRING
    return "\n".join(rows) + "\n"
