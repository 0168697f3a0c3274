"""The official tasks by name: what each measures and how large it is, without reading one.

Planning knows no more of a task than this; its reader, prompt and metric are its own module.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.errors import UserError, nearest

if TYPE_CHECKING:
    from mm1_jax.evaluation.official.task import OfficialTask


@dataclass(frozen=True)
class OfficialName:
    """What planning knows of a task.

    metrics  the one it is known by first
    items    questions of the split that papers report, about; for the planned cost only
    prompt   what follows the images: {prompt} is the task's own, {question} the question alone
    text     whether it asks about no images
    """

    metrics: tuple[str, ...]
    items: int
    prompt: str = "{prompt}"
    text: bool = False


def module_of(name: str) -> str:
    """Import path of a task's module."""
    return f"mm1_jax.evaluation.benchmarks.{name}"


# MM1 §5.1
CAPTION = "A photo of"
SHORT = "Question: {question} Short answer:"


_CAPTIONS = ("cider", "bleu_4", "rouge_l")
_ACCURACY = ("accuracy",)
_CHOICES = ("accuracy", "accuracy_norm", "accuracy_bytes")
_MATCH = ("exact_match",)

OFFICIAL: dict[str, OfficialName] = {
    "coco_caption": OfficialName(_CAPTIONS, 5_000, CAPTION),
    "nocaps": OfficialName(_CAPTIONS, 4_500, CAPTION),
    "textcaps": OfficialName(_CAPTIONS, 3_166, CAPTION),
    "vqav2": OfficialName(_ACCURACY, 214_354, SHORT),
    "textvqa": OfficialName(_ACCURACY, 5_000, SHORT),
    "vizwiz": OfficialName(_ACCURACY, 4_319, SHORT),
    "ok_vqa": OfficialName(_ACCURACY, 5_046, SHORT),
    "gqa": OfficialName(_ACCURACY, 12_578, SHORT),
    "scienceqa": OfficialName(_ACCURACY, 2_017),
    "mmmu": OfficialName(_ACCURACY, 900),
    "mathvista": OfficialName(_ACCURACY, 1_000),
    "mme": OfficialName(("accuracy", "perception", "cognition"), 2_374),
    "pope": OfficialName(("accuracy", "f1"), 9_000),
    "seed_bench": OfficialName(_ACCURACY, 14_233),
    "mmbench": OfficialName(_ACCURACY, 4_329),
    "docvqa": OfficialName(("anls",), 5_349, SHORT),
    "chartqa": OfficialName(("relaxed_accuracy",), 2_500, SHORT),
    "ai2d": OfficialName(_ACCURACY, 3_088),
    "arc_easy": OfficialName(_CHOICES, 2_376, text=True),
    "arc_challenge": OfficialName(_CHOICES, 1_172, text=True),
    "piqa": OfficialName(_CHOICES, 1_838, text=True),
    "lambada": OfficialName(("accuracy", "perplexity"), 5_153, text=True),
    "winogrande": OfficialName(_CHOICES, 1_267, text=True),
    "hellaswag": OfficialName(_CHOICES, 10_042, text=True),
    "sciq": OfficialName(_CHOICES, 1_000, text=True),
    "triviaqa": OfficialName(_MATCH, 17_944, text=True),
    "webqs": OfficialName(_MATCH, 2_032, text=True),
}


def official_task(name: str) -> OfficialTask:
    """The task of that name, imported now; UserError with the nearest one if there is none."""
    if name not in OFFICIAL:
        begun = [task for task in OFFICIAL if name and task.startswith(f"{name}_")]
        hint = f"; did you mean {begun[0]!r}?" if begun else nearest(name, OFFICIAL)
        raise UserError(f"no official task {name!r}{hint}")
    return importlib.import_module(module_of(name)).TASK
