"""Name → module of every task in its official file format."""

from __future__ import annotations

import importlib

from ablations.errors import UserError, nearest
from mm1_jax.tasks.official import OfficialTask
from mm1_jax.tasks.official_names import OFFICIAL, module_of

# Modules by name, so that asking for one task imports no other.
OFFICIAL_TASKS = {name: module_of(name) for name in OFFICIAL}


def official_task(name: str) -> OfficialTask:
    """The task of that name; UserError with the nearest one if there is none."""
    if name not in OFFICIAL_TASKS:
        begun = [task for task in OFFICIAL_TASKS if name and task.startswith(f"{name}_")]
        hint = f"; did you mean {begun[0]!r}?" if begun else nearest(name, OFFICIAL_TASKS)
        raise UserError(f"no official task {name!r}{hint}")
    return importlib.import_module(OFFICIAL_TASKS[name]).TASK
