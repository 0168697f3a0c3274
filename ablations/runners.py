"""A runner of the user's own, `package.module:function`: what can be wrong with it, before it runs.

It is read and never imported: planning costs nothing, and what a module does when it is imported is
the worker's business.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from ablations import identity
from mm1_jax.errors import UserError, nearest, shown

ARGUMENTS = ("config", "seed", "inputs", "context")  # in this order, `mm1_jax.stage`
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def check_runner(run: str) -> None:
    """Whether a module has a function that a worker can call.

    Raises:
        UserError: no such module or function, a module that cannot be read, or a function that
            takes other arguments. What is imported or decorated is believed.
    """
    module, _, name = run.partition(":")
    path = identity.closure(module)[module]
    names = dict(_names(identity.parsed(path).body))
    if "*" in names or "__getattr__" in names:
        return  # other names may be there too
    if name not in names:
        raise UserError(f"{module} has no {shown(name)}{nearest(name, names)}", file=str(path))
    found = names[name]
    if not isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) or found.decorator_list:
        return
    if (wrong := _uncallable(found)) is not None:
        called = f"a runner is called as {name}({', '.join(ARGUMENTS)}) and returns a list of rows"
        raise UserError(f"{name} {wrong}; {called}", file=str(path), line=found.lineno)


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
