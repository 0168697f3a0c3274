"""Our packages beside somebody's own of the same name: `analysis` is in half of all repositories.

Python's search path decides what `import analysis` means, and the working directory comes first.
Where a folder of yours comes before ours, the name is yours: before `import mm1`, after it, and in
your runners. While a function or command of mm1 runs, it is ours, found by its own location. Where
nothing is in the way, nothing is done.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

HOME = Path(__file__).resolve().parent.parent
NAMES = ("ablations", "analysis", "mm1_jax", "sweeps")


class OwnPackages:
    """A context in which the names mean our packages; it may be entered within itself."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._ours: dict[str, dict[str, ModuleType]] = {}  # name in the way → our modules
        self._yours: dict[str, ModuleType] = {}  # put aside while ours are in place

    def __enter__(self) -> None:
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                for name in NAMES:
                    if _is_taken(name):
                        self._ours.setdefault(name, {})
                for name, modules in self._ours.items():
                    self._yours |= _taken_out(name)
                    sys.modules.update(modules)
                if self._ours and self not in sys.meta_path:
                    sys.meta_path.insert(0, self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                for name in self._ours:
                    self._ours[name] = _taken_out(name)
                sys.modules.update(self._yours)
                self._yours = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of a name that is in the way, ours inside and yours outside (`sys.meta_path`)."""
        if name not in self._ours:
            return None
        if self._depth:
            return PathFinder.find_spec(name, [str(HOME)])
        return PathFinder.find_spec(name, _before_ours())  # also a folder without __init__.py


own_packages = OwnPackages()


def among_our_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, run where the names mean our packages."""

    @functools.wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        with own_packages:
            return function(*args, **options)

    return run


def _before_ours() -> list[str]:
    """Where Python looks before it comes to our packages."""
    found = []
    for entry in sys.path:
        if Path(entry or ".").resolve() == HOME:
            break
        found.append(entry or str(Path.cwd()))
    return found


def _is_taken(name: str) -> bool:
    """Whether a name of ours means something else here, or would if it were imported now."""
    module = sys.modules.get(name)
    spec = PathFinder.find_spec(name, _before_ours()) if module is None else module.__spec__
    if spec is None:
        # Not before ours; where ours is not on the path at all, it is anywhere or nowhere.
        return module is not None or importlib.util.find_spec(name) is None
    places = [spec.origin, *(spec.submodule_search_locations or [])]
    return not any(place and Path(place).resolve().is_relative_to(HOME / name) for place in places)


def _taken_out(name: str) -> dict[str, ModuleType]:
    """The modules of a package, which `sys.modules` then no longer has."""
    names = [one for one in sys.modules if one == name or one.startswith(f"{name}.")]
    return {one: sys.modules.pop(one) for one in names}
