"""What of a Python file decides identities, kept in the user's cache: most files stay as they are.

Reading it out of a hundred files takes half of the time that a small study is planned in.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from ablations import fingerprints, source_code, user_cache
from ablations.errors import UserError
from ablations.fingerprints import fingerprint
from ablations.source_code import canonical_source, says_it_decides_nothing

_TABLE = ("sources", "key text primary key, facts text")
_new: dict[str, str] = {}  # found out here and not kept yet, by key


class Import(NamedTuple):
    """An import statement. `names` is None for `import module`."""

    module: str | None
    level: int
    names: tuple[str, ...] | None


class SourceFacts(NamedTuple):
    """What is known of a source."""

    does: str  # fingerprint of its canonical source
    decides: bool  # it does not say that it decides nothing
    imports: tuple[Import, ...]  # but for type checkers' sake


@cache
def source_facts(path: Path) -> SourceFacts:
    """Facts of a Python file. Raises `UserError` for a mistake in it."""
    source = source_text(path)
    key = hashlib.sha256(f"{_reader()} {source}".encode()).hexdigest()
    if (known := _kept(key)) is not None:
        return known
    tree = _tree(source, path)
    decides = not says_it_decides_nothing(tree)
    found = SourceFacts(fingerprint(canonical_source(source)), decides, _imports(tree))
    _new[key] = json.dumps(found)
    return found


def keep() -> None:
    """Write what was found out since the last time into the user's cache, in one go."""
    if not _new:
        return
    with user_cache.table(*_TABLE) as table:
        if table is not None:
            table.executemany("insert or replace into sources values (?, ?)", [*_new.items()])
    _new.clear()


def _kept(key: str) -> SourceFacts | None:
    row = None
    with user_cache.table(*_TABLE) as table:
        if table is not None:
            row = table.execute("select facts from sources where key = ?", (key,)).fetchone()
    if row is None:
        return None
    does, decides, imports = json.loads(row[0])
    return SourceFacts(
        does,
        decides,
        tuple(
            Import(module, level, None if names is None else tuple(names))
            for module, level, names in imports
        ),
    )


@cache
def _reader() -> str:
    """What reads the facts out: kept facts are of this code and this Python."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    for file in (fingerprints.__file__, source_code.__file__, __file__):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def source_text(path: Path) -> str:
    """The text of a Python file. Raises `UserError` where it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError("not UTF-8 text", file=str(path), line=line) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=str(path)) from None


@lru_cache(maxsize=8)  # a tree takes ten times the memory of its source
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file. Raises `UserError` for a mistake in it."""
    return _tree(source_text(path), path)


def _tree(source: str, path: Path) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        said = f"not valid Python: {error.msg}"
        raise UserError(said, file=str(path), line=error.lineno) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"not valid Python: {error}", file=str(path)) from None


def _imports(tree: ast.Module) -> tuple[Import, ...]:
    found: list[Import] = []
    waiting: list[ast.stmt | ast.excepthandler | ast.match_case] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found += [Import(alias.name, 0, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(Import(node.module, node.level, tuple(one.name for one in node.names)))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:  # whatever holds statements; expressions hold none
            for block in ("body", "orelse", "handlers", "finalbody", "cases"):
                waiting += getattr(node, block, [])
    return tuple(found)
