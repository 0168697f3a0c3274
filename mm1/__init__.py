"""The public Python API of the ablation platform.

    import mm1

    plan = mm1.plan("ablations/studies/demo.yaml")     # what would run, in about a second
    mm1.run("ablations/studies/demo.yaml")             # run it, or go on where it stopped
    study = mm1.load("demo")                           # what is stored
    mm1.verdicts(study), mm1.effects(study)            # DataFrames, as all findings are

Everything is imported when it is first used: `import mm1` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mm1.own_packages import among_our_own, own_packages

if TYPE_CHECKING:
    from mm1.api import compare, plan, report, results, run
    from mm1.findings import (
        curves,
        effects,
        equivalence,
        examples,
        flips,
        importance,
        interactions,
        learning_rate_law,
        load,
        noise,
        over_shots,
        pareto,
        rank_agreement,
        scaling_fit,
        scores,
        table,
        trends,
        verdicts,
    )

__all__ = [
    "compare",
    "curves",
    "effects",
    "equivalence",
    "examples",
    "flips",
    "importance",
    "interactions",
    "learning_rate_law",
    "load",
    "noise",
    "over_shots",
    "pareto",
    "plan",
    "rank_agreement",
    "report",
    "results",
    "run",
    "scaling_fit",
    "scores",
    "table",
    "trends",
    "verdicts",
]
_COMMANDS = {"compare", "plan", "report", "results", "run"}  # the others are findings


def __getattr__(name: str) -> object:
    if name in __all__:
        module = "mm1.api" if name in _COMMANDS else "mm1.findings"
        with own_packages:
            function = getattr(importlib.import_module(module), name)
        return among_our_own(function)
    raise AttributeError(f"module 'mm1' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
