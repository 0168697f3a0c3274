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
_MOST_KEPT = 4_000  # sources, the newest; what is there is read at once
_new: list[str] = []  # keys of what was found out here and is not kept yet


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
    kept = _kept()
    if key not in kept:
        tree = _tree(source, path)
        decides = not says_it_decides_nothing(tree)
        found = SourceFacts(fingerprint(canonical_source(source)), decides, _imports(tree))
        kept[key] = json.dumps(found)
        _new.append(key)
    does, decides, imports = json.loads(kept[key])
    each = [(name, level, names and tuple(names)) for name, level, names in imports]
    return SourceFacts(does, decides, tuple(Import(*one) for one in each))


def keep() -> None:
    """Write what was found out since the last time into the user's cache, in one go."""
    if not _new:
        return
    rows = [(key, _kept()[key]) for key in _new]
    with user_cache.table(*_TABLE) as table:
        if table is not None:
            table.executemany("insert or replace into sources values (?, ?)", rows)
            oldest = "(select max(rowid) from sources) - ?"
            table.execute(f"delete from sources where rowid <= {oldest}", (_MOST_KEPT,))
    _new.clear()


@cache
def _kept() -> dict[str, str]:
    """Key of a source → its facts as JSON: of the user's cache, and found out here."""
    rows = []
    with user_cache.table(*_TABLE) as table:
        if table is not None:
            rows = table.execute("select key, facts from sources").fetchall()
    return dict(rows)


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
