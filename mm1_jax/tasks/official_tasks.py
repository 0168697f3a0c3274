"""Name → module of every task in its official file format."""

from __future__ import annotations

import importlib

from mm1_jax.errors import UserError, nearest
from mm1_jax.tasks.official import OfficialTask

# Modules by name, so that asking for one task imports no other.
OFFICIAL_TASKS = {
    "coco_caption": "mm1_jax.tasks.coco_caption",
    "nocaps": "mm1_jax.tasks.nocaps",
    "textcaps": "mm1_jax.tasks.textcaps",
}


def official_task(name: str) -> OfficialTask:
    """The task of that name; UserError with the nearest one if there is none."""
    if name not in OFFICIAL_TASKS:
        raise UserError(f"no official task {name!r}{nearest(name, OFFICIAL_TASKS)}")
    return importlib.import_module(OFFICIAL_TASKS[name]).TASK
