"""TextCaps (Sidorov et al., 2020): captions of photographs with text in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mm1_jax.evaluation.official import caption_tasks
from mm1_jax.evaluation.official.published_files import find_one, read_json, rows_of
from mm1_jax.evaluation.official.published_rows import Row
from mm1_jax.evaluation.official.task import Question


def read(path: Path) -> list[Question]:
    """`TextCaps_0.1_val.json`: a row per caption, each with all captions of its image.

    What only some rows of an image have is a caption of it too.
    """
    return _read(path, "TextCaps*val.json", "TextCaps*.json")


def read_training(path: Path) -> list[Question]:
    """`TextCaps_0.1_train.json`."""
    return _read(path, "TextCaps*train.json")


def _read(path: Path, *patterns: str) -> list[Question]:
    file = find_one(path, "textcaps", *patterns)
    captions: dict[str, list[str]] = {}
    first: dict[str, Row] = {}
    fields = ["image_id", "reference_strs"]
    for row in rows_of(read_json(file), "data", fields, file, "textcaps", "image_id"):
        image_id = row.id("image_id")
        first.setdefault(image_id, row)
        known = captions.setdefault(image_id, [])
        known += (Counter(row.texts("reference_strs")) - Counter(known)).elements()
    return [
        caption_tasks.question(
            row, "image_id", row.image("image_id") + ".jpg", captions[image_id], {}
        )
        for image_id, row in first.items()
    ]


TASK = caption_tasks.caption_task("textcaps", read, read_training=read_training)
