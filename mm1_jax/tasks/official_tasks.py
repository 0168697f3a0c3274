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
    "vqav2": "mm1_jax.tasks.vqav2",
    "ok_vqa": "mm1_jax.tasks.ok_vqa",
    "textvqa": "mm1_jax.tasks.textvqa",
    "vizwiz": "mm1_jax.tasks.vizwiz",
    "gqa": "mm1_jax.tasks.gqa",
    "scienceqa": "mm1_jax.tasks.scienceqa",
    "mmmu": "mm1_jax.tasks.mmmu",
    "mathvista": "mm1_jax.tasks.mathvista",
    "mme": "mm1_jax.tasks.mme",
    "pope": "mm1_jax.tasks.pope",
    "seed_bench": "mm1_jax.tasks.seed_bench",
    "mmbench": "mm1_jax.tasks.mmbench",
    "docvqa": "mm1_jax.tasks.docvqa",
    "chartqa": "mm1_jax.tasks.chartqa",
    "ai2d": "mm1_jax.tasks.ai2d",
    "arc_easy": "mm1_jax.tasks.arc_easy",
    "arc_challenge": "mm1_jax.tasks.arc_challenge",
    "piqa": "mm1_jax.tasks.piqa",
    "hellaswag": "mm1_jax.tasks.hellaswag",
    "winogrande": "mm1_jax.tasks.winogrande",
    "sciq": "mm1_jax.tasks.sciq",
    "lambada": "mm1_jax.tasks.lambada",
    "triviaqa": "mm1_jax.tasks.triviaqa",
    "webqs": "mm1_jax.tasks.webqs",
}


def official_task(name: str) -> OfficialTask:
    """The task of that name; UserError with the nearest one if there is none."""
    if name not in OFFICIAL_TASKS:
        raise UserError(f"no official task {name!r}{nearest(name, OFFICIAL_TASKS)}")
    return importlib.import_module(OFFICIAL_TASKS[name]).TASK
