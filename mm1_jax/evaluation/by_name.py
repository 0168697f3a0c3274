"""What an evaluation finds by name while it runs: the one module that asks and scores its task.

An import statement would make every task code of every evaluation, and a changed metric would ask
all of them anew. `mm1_jax.workload` counts what is found so as code of the task's own evaluations.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import Any

from ablations.errors import UserError, nearest
from mm1_jax.evaluation import tasks

OFFICIAL_SCORING = "mm1_jax.evaluation.official.scoring"


def module_of(task: str) -> str:
    """Import path of a task that is asked in held-out data."""
    return f"{tasks.__name__}.{task}"


def task_module(task: str) -> Any:
    """The module of a task that is asked in held-out data. UserError if there is none."""
    if not task.isidentifier() or importlib.util.find_spec(module_of(task)) is None:
        known = [module.name for module in pkgutil.iter_modules(tasks.__path__)]
        raise UserError(f"unknown task {task!r}{nearest(task, known)}")
    return importlib.import_module(module_of(task))


def official_scoring() -> Any:
    """The module that asks and scores tasks in their official formats."""
    return importlib.import_module(OFFICIAL_SCORING)
