"""The public Python API of the ablation platform.

    import mm1

    plan = mm1.plan("ablations/studies/demo.yaml")     # what would run, in under a second
    mm1.run("ablations/studies/demo.yaml")             # run it, or go on where it stopped
    study = mm1.results("demo")                        # what is stored: rows, curves, verdicts

Everything is imported when it is first used: `import mm1` itself costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mm1.api import compare, plan, report, results, run

__all__ = ["compare", "plan", "report", "results", "run"]


def _same_neighbours() -> None:
    """Refuse a shadowed package: `analysis` is a common folder name and the cwd comes first."""
    home = Path(__file__).resolve().parent.parent
    for name in ("ablations", "analysis", "mm1_jax", "sweeps"):
        spec = importlib.util.find_spec(name)
        # A folder without __init__.py has locations but no origin.
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
        found = next((Path(place).resolve() for place in places if place), None)
        if found is None or home / name not in (found, found.parent):
            raise ImportError(
                f"mm1 needs its own package {name!r} in {home / name}, but Python finds "
                f"{found or 'none'} first; start Python from another folder or rename that one"
            )


_same_neighbours()


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("mm1.api"), name)
    raise AttributeError(f"module 'mm1' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
