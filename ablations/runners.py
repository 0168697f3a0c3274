"""A runner of the user's own, `package.module:function`: what can be wrong with it, before it runs.

It is read and never imported: planning costs nothing, and what a module does when it is imported is
the worker's business.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from ablations import identity
from ablations.errors import UserError, nearest, shown
from ablations.source_facts import parsed

ARGUMENTS = ("config", "seed", "inputs", "context")  # in this order, `ablations.stage`
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_VALUES = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.JoinedStr)


def check_runner(run: str) -> None:
    """Whether a module has a function that a worker can call.

    Raises:
        UserError: no such module or function, a module that cannot be read or imports what
            its own files have not, or a function that takes other arguments. What is decorated, or
            comes from other packages, is believed.
    """
    module, _, name = run.partition(":")
    files = identity.closure(module)
    own = module.partition(".")[0]
    for one in files:
        if own != "mm1_jax" and identity.is_with(one.partition(".")[0], own):
            _check_imports(one, files[one], own)
    path, seen = files[module], set()
    while (module, name) not in seen:  # from where it is imported to where it is written
        seen.add((module, name))
        found = _statement(module, name, path)
        if not isinstance(found, ast.ImportFrom):
            break
        source = identity.imported_from(found, module, path)
        original = next(a.name for a in found.names if name in (a.asname, a.name))
        there = identity.source_file(source)
        if identity.source_file(f"{source}.{original}") is not None:
            _fail(f"{name} is a module", path, found)
        if there is None or not identity.is_with(source.partition(".")[0], own):
            return
        module, name, path = source, original, there
    if isinstance(found, ast.Import):
        _fail(f"{name} is a module", path, found)
    if isinstance(found, ast.Assign) and isinstance(found.targets[0], ast.Name):
        is_none = isinstance(found.value, ast.Constant) and found.value.value is None
        if isinstance(found.value, _VALUES) and not is_none:
            _fail(f"{name} is a value", path, found)
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) or found.decorator_list:
        return
    if (wrong := _uncallable(found)) is not None:
        called = f"a runner is called as {name}({', '.join(ARGUMENTS)}) and returns a list of rows"
        raise UserError(f"{name} {wrong}; {called}", file=str(path), line=found.lineno)


def _statement(module: str, name: str, path: Path) -> ast.stmt | None:
    """What gives a name its meaning in a module; None if that cannot be read there."""
    names = dict(_names(parsed(path).body))
    if name in names:
        return names[name]
    if "*" in names or "__getattr__" in names:
        return None
    raise UserError(f"{module} has no {shown(name)}{nearest(name, names)}", file=str(path))


def _fail(what: str, path: Path, at: ast.stmt) -> NoReturn:
    raise UserError(f"{what}, and a runner is a function", file=str(path), line=at.lineno)


def _check_imports(module: str, path: Path, own: str) -> None:
    """UserError where a module imports, whatever happens, what the trainer's own files have not."""
    for statement in parsed(path).body:
        if isinstance(statement, ast.ImportFrom):
            named = {identity.imported_from(statement, module, path): statement.names}
        elif isinstance(statement, ast.Import):
            named = {alias.name: [] for alias in statement.names}
        else:
            continue
        for source in named:
            if not identity.is_with(source.partition(".")[0], own):
                continue
            place = {"file": str(path), "line": statement.lineno}
            if not identity.is_there(source):
                raise UserError(f"imports {source}, which is not there", **place)
            file = identity.source_file(source)
            names = _all_names(file) if file is not None and file.suffix == ".py" else {"*"}
            for name in (
                () if "*" in names else (alias.name for alias in named[source] if alias.name != "*")
            ):
                if (
                    name not in names
                    and name[:2] != "__"
                    and not identity.is_there(f"{source}.{name}")
                ):
                    told = f"imports {shown(name)} from {source}, which has no such name"
                    raise UserError(f"{told}{nearest(name, names)}", **place)


def _all_names(path: Path) -> set[str]:
    """All that a module may give a name to, at any depth; `*` where it may be anything."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, _DEFINITIONS):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name):
            # What is written through these cannot be read.
            found.add("*" if node.id in ("globals", "setattr", "exec", "vars") else node.id)
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
            found.add("*")
    return found | ({"*"} if "__getattr__" in found else set())


def _names(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What a module's statements give names to; of several the last counts."""
    for statement in body:
        if isinstance(statement, _DEFINITIONS):
            yield statement.name, statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                yield alias.asname or alias.name.partition(".")[0], statement
        else:
            targets = [*getattr(statement, "targets", ()), getattr(statement, "target", None)]
            for node in (one for target in targets if target for one in ast.walk(target)):
                if isinstance(node, ast.Name):
                    yield node.id, statement
            for block in ("body", "orelse", "finalbody"):
                yield from _names(getattr(statement, block, ()))
            for handler in getattr(statement, "handlers", ()):
                yield from _names(handler.body)


def _uncallable(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """Why a worker cannot call a function; None if it can."""
    if isinstance(function, ast.AsyncFunctionDef):
        return "is asynchronous"
    given, asked = function.args, len(ARGUMENTS)
    positional = [*given.posonlyargs, *given.args]
    if len(positional) < asked and given.vararg is None:
        return f"takes {len(positional)} arguments"
    if len(positional) - len(given.defaults) > asked:
        return f"needs {len(positional) - len(given.defaults)} arguments"
    named = [argument.arg for argument in positional[:asked]]
    if named != [*ARGUMENTS] and sorted(named) == sorted(ARGUMENTS):
        return f"takes them as {', '.join(named)}"
    needed = [
        argument.arg
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        if default is None
    ]
    if needed:
        return f"needs the argument {needed[0]} by name"
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own(function)):
        return "is a generator"
    return None


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function, without what is in functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*_DEFINITIONS, ast.Lambda)):
            yield child
            yield from _own(child)
