"""The public Python API of the ablation platform.

    import mm1

    plan = mm1.plan("ablations/studies/demo.yaml")     # what would run, in about a second
    mm1.run("ablations/studies/demo.yaml")             # run it, or go on where it stopped
    study = mm1.results("demo")                        # what is stored: rows, curves, verdicts

Everything is imported when it is first used: `import mm1` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mm1.own_packages import among_our_own, own_packages

if TYPE_CHECKING:
    from mm1.api import compare, plan, report, results, run

__all__ = ["compare", "plan", "report", "results", "run"]


def __getattr__(name: str) -> object:
    if name in __all__:
        with own_packages:
            function = getattr(importlib.import_module("mm1.api"), name)
        return among_our_own(function)
    raise AttributeError(f"module 'mm1' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
