"""The part of a Python source that decides results: the input of code fingerprints.

What can change no result is left out:

    comments, docstrings, blank lines, formatting
    sentences of errors       in `raise PictureError("bomb", f"{side} pixels are too many")` the
                              second; one word, which a program may ask for, is kept
    sentences of a log        in `_logger.warning("%d items are asked again", count)`
    descriptions of fields    `Field(4, description="…")`, a docstring of its kind
    what is being done        `with doing("data"):` around statements and `@doing("data")` above a
                              function (`ablations.timeline`), with the line that imports it
    functions that say so     `@decides_no_result`, as formulas of what a model costs do
    modules that say so       `DECIDES_NO_RESULT = "why"`; `ablations.identity` passes them by
"""

from __future__ import annotations

import ast
import itertools
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from tokenize import TokenInfo
from typing import TypeVar

Marked = TypeVar("Marked")
MODULE_MARK = "DECIDES_NO_RESULT"
_LOGGERS = ("_logger", "logger", "logging")
_DOING_IMPORT = "from ablations . timeline import doing"
_DOING = re.compile(r'(with|@) doing \( "[a-z]+" \)( :)?')


def decides_no_result(function: Marked) -> Marked:
    """Mark what a stage's result never depends on: it is no part of the stage's code.

    To stand above all other decorators. What is marked must not be called by what decides a
    result, or an edit of it would change results under an old identity.
    """
    return function


@cache
def canonical_source(source: str, *, prints: bool = False) -> str:
    """What is left of a source: a row for each logical line, indented by its depth.

    Tokens are separated by single spaces. Built on tokens, because `ast.dump` differs between
    Python versions. `source` is valid Python. With `prints`, what it prints may be its results, and
    a log is kept.
    """
    rows = _without_marked(_without_doing(_rows(source, prints)))
    return "".join(f"{' ' * depth}{row}\n" for depth, row in rows)


def says_it_decides_nothing(module: ast.Module) -> bool:
    """Whether a module, or a package by its `__init__`, has `DECIDES_NO_RESULT = "why"`."""
    return any(
        isinstance(target, ast.Name) and target.id == MODULE_MARK
        for statement in module.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    )


def _rows(source: str, prints: bool) -> Iterator[tuple[int, str]]:
    """Depth and text of each logical line."""
    tokens: list[TokenInfo] = []
    row: list[str] = []  # their strings
    depth = 0
    # The interpreter's own tokenizer: the tokens of `generate_tokens` in a third of the time.
    read = getattr(tokenize, "_generate_tokens_from_c_tokenizer")  # noqa: B009
    for token in read(source):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.NEWLINE:
            # A statement of nothing but a string does nothing.
            if any(one.type != tokenize.STRING for one in tokens):
                if "raise" in row:
                    tokens = _without_told(tokens, row.index("raise"))
                elif row[0] in _LOGGERS and not prints:
                    tokens = _without_sentences(tokens, 0)
                if "description" in row:
                    tokens = _without_descriptions(tokens)
                yield depth, " ".join([one.string for one in tokens])
            tokens, row = [], []
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            tokens.append(token)
            row.append(token.string)


def _without_doing(rows: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The rows as if nothing said what it is doing; what stands in such a block moves out of it."""
    imported = False
    blocks: list[int] = []  # depths of those around
    for depth, row in rows:
        while blocks and depth <= blocks[-1]:
            blocks.pop()
        if row == _DOING_IMPORT:
            imported = True
        elif imported and _DOING.fullmatch(row):
            if row.startswith("with"):
                blocks.append(depth)
        else:
            yield depth - len(blocks), row


def _without_marked(rows: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The rows but for functions that are marked, with their other decorators."""
    within: int | None = None  # depth of a marked definition
    begun = False  # its `def` has been passed
    for depth, row in rows:
        if within is not None:
            if not begun or depth > within:
                begun = begun or row.startswith(("def ", "async def "))
                continue
            within = None
        if row == f"@ {decides_no_result.__name__}":
            within, begun = depth, False
            continue
        yield depth, row


def _without_told(tokens: list[TokenInfo], place: int) -> list[TokenInfo]:
    """A logical line's tokens without the sentences of an error that it raises at `place`."""
    name = ""
    for token in tokens[place + 1 :]:
        if token.type != tokenize.NAME and token.string != ".":
            break
        name = token.string
    return _without_sentences(tokens, place) if name.endswith(("Error", "Stopped")) else tokens


def _without_sentences(tokens: list[TokenInfo], place: int) -> list[TokenInfo]:
    """Tokens without strings of several words from `place` on."""
    kept = tokens[:place]
    for strings, run in itertools.groupby(
        tokens[place:], lambda token: token.type == tokenize.STRING
    ):
        side_by_side = list(run)
        if not (strings and any(" " in one.string for one in side_by_side)):
            kept += side_by_side
    return kept if len(kept) == len(tokens) else _without_last_commas(kept)


def _without_descriptions(tokens: list[TokenInfo]) -> list[TokenInfo]:
    """A logical line's tokens without the descriptions of pydantic's fields."""
    kept: list[TokenInfo] = []
    around: list[str] = []  # what each open bracket stands behind
    waiting = iter(enumerate(tokens))
    for place, token in waiting:
        if token.string in "([{":
            around.append(tokens[place - 1].string if place else "")
        elif token.string in ")]}" and around:
            around.pop()
        elif token.string == "description" and around[-1:] == ["Field"]:
            end = _end_of_strings(tokens, place + 1)
            if end is not None:
                if tokens[end].string == ")":
                    around.pop()
                    kept = kept[:-1] if kept[-1].string == "," else kept
                    kept.append(tokens[end])
                elif tokens[end + 1].string == ")" and kept[-1].string == ",":
                    kept.pop()
                for _ in range(end - place):
                    next(waiting)
                continue
        kept.append(token)
    return kept


def _end_of_strings(tokens: list[TokenInfo], place: int) -> int | None:
    """Where an argument ends that is `=` and strings alone; None where it is another."""
    if tokens[place].string != "=":
        return None
    end = place + 1
    while tokens[end].type == tokenize.STRING:
        end += 1
    return end if tokens[end].string in (",", ")") else None


def _without_last_commas(tokens: list[TokenInfo]) -> list[TokenInfo]:
    """Without commas before a closing bracket, which what was left out may have left behind."""
    return [
        token
        for token, after in zip(tokens, [*tokens[1:], None], strict=True)
        if not (token.string == "," and after is not None and after.string == ")")
    ]
