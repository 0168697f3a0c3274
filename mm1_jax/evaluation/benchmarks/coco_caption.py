"""COCO captions (Chen et al., 2015), on the Karpathy split or any split in COCO's own files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablations.errors import UserError
from mm1_jax.evaluation.official import caption_tasks
from mm1_jax.evaluation.official.published_files import find_one, read_json, rows_of
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import Question

_FIELDS = ["split", "cocoid", "filename", "sentences"]


def read(path: Path) -> list[Question]:
    """The test split of `dataset_coco.json`, or all of `captions_val*.json` or a file of its form.

    Item ids are COCO's image ids.
    """
    return _read(path, ("test",), "captions_val*.json", "captions_*.json")


def read_training(path: Path) -> list[Question]:
    """The splits `train` and `restval` of `dataset_coco.json`, or `captions_train*.json`."""
    return _read(path, ("train", "restval"), "captions_train*.json")


def _read(path: Path, splits: Sequence[str], *patterns: str) -> list[Question]:
    file = find_one(path, "coco_caption", "dataset_coco.json", *patterns)
    content = read_json(file)
    if isinstance(content, dict) and "annotations" in content:
        return caption_tasks.coco_questions(content, file, "coco_caption")
    images = rows_of(content, "images", _FIELDS, file, "coco_caption", "cocoid")
    chosen = [_question(image) for image in images if image.text("split") in splits]
    if not chosen:
        known = ", ".join(sorted({image.text("split") for image in images}))
        raise UserError(f"no images of split {' or '.join(splits)}; found {known}", file=str(file))
    return chosen


def _question(image: Row) -> Question:
    folder = image.image("filepath") + "/" if image.optional("filepath") else ""
    captions = image.texts("sentences", key="raw")
    facts = {"split": image.text("split")}
    return caption_tasks.question(
        image, "cocoid", folder + image.image("filename"), captions, facts
    )


TASK = caption_tasks.caption_task("coco_caption", read, read_training=read_training)
