"""nocaps (Agrawal et al., 2019): captions of objects that COCO's captions do not name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1_jax.evaluation.official import caption_tasks
from mm1_jax.evaluation.official.published_files import find_one, read_json
from mm1_jax.evaluation.official.task import Question
from mm1_jax.evaluation.tasks.generation_task import Score


def read(path: Path) -> list[Question]:
    """`nocaps_val_4500_captions.json`, in COCO's form; some editions name each image's `domain`."""
    file = find_one(path, "nocaps", "nocaps_val*.json", "nocaps*.json")
    return caption_tasks.coco_questions(read_json(file), file, "nocaps")


def score(items: Sequence[Question], captions: Sequence[str]) -> Score:
    """The caption scores, and those of each domain where the file has it.

    A domain is scored as a split of its own, with its own document frequencies: CIDEr of all is
    not the mean of the domains'.
    """
    whole = caption_tasks.score(items, captions)
    domains = [item.facts.get("domain", "") for item in items]
    for domain in sorted({name for name in domains if name}):
        own = [index for index, name in enumerate(domains) if name == domain]
        part = caption_tasks.score([items[i] for i in own], [captions[i] for i in own])
        whole.metrics.update(
            {f"{metric}/domain:{domain}": value for metric, value in part.metrics.items()}
        )
    return whole


TASK = caption_tasks.caption_task("nocaps", read, score=score)
