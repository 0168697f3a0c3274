"""The part of a Python source that decides what it does: the input of code fingerprints."""

from __future__ import annotations

import tokenize
from functools import cache


@cache
def canonical_source(source: str) -> str:
    """Drop comments, docstrings, blank lines and formatting within lines.

    One logical line per row, its tokens separated by single spaces, indentation as depth. Built
    on tokens, because `ast.dump` differs between Python versions. `source` is valid Python.
    """
    rows: list[str] = []
    row: list[str] = []
    depth = 0
    only_strings = True
    # The interpreter's own tokenizer: the tokens of `generate_tokens` in a third of the time.
    tokens = getattr(tokenize, "_generate_tokens_from_c_tokenizer")  # noqa: B009
    for token in tokens(source):
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
