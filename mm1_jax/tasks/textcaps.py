"""TextCaps (Sidorov et al., 2020): captions of photographs with text in them."""

from __future__ import annotations

from pathlib import Path

from mm1_jax.tasks import captioning
from mm1_jax.tasks.official import OfficialTask, Question
from mm1_jax.tasks.official_files import check_fields, find_one, part, read_json


def read(path: Path) -> list[Question]:
    """`TextCaps_0.1_val.json`: a row per caption, each with all captions of its image."""
    file = find_one(path, "textcaps", "TextCaps*val.json", "TextCaps*.json")
    questions: dict[str, Question] = {}
    for row in part(read_json(file), "data", file, "textcaps"):
        check_fields(row, ["image_id", "reference_strs"], file, "textcaps")
        image_id = str(row["image_id"])
        if image_id not in questions:
            questions[image_id] = captioning.question(
                image_id, f"{image_id}.jpg", row["reference_strs"], file, "textcaps", {}
            )
    return list(questions.values())


TASK = OfficialTask("textcaps", read, captioning.predictions, captioning.answer, captioning.score)
