"""COCO captions (Chen et al., 2015), on the Karpathy split or any split in COCO's own files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mm1_jax.errors import UserError
from mm1_jax.tasks import captioning
from mm1_jax.tasks.official import Question
from mm1_jax.tasks.official_files import check_fields, find_one, part, read_json

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
        return captioning.coco_questions(content, file, "coco_caption")
    images = part(content, "images", file, "coco_caption")
    for image in images:
        check_fields(image, _FIELDS, file, "coco_caption")
    chosen = [_question(image, file) for image in images if image["split"] in splits]
    if not chosen:
        known = ", ".join(sorted({image["split"] for image in images}))
        raise UserError(f"no images of split {' or '.join(splits)}; found {known}", file=str(file))
    return chosen


def _question(image: dict[str, Any], file: Path) -> Question:
    for sentence in image["sentences"]:
        check_fields(sentence, ["raw"], file, "coco_caption")
    return captioning.question(
        image["cocoid"],
        "/".join(filter(None, [image.get("filepath"), image["filename"]])),
        [sentence["raw"] for sentence in image["sentences"]],
        file,
        "coco_caption",
        {"split": image["split"]},
    )


TASK = captioning.caption_task("coco_caption", read, read_training=read_training)
