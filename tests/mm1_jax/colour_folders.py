"""Small folders in the formats that benchmarks are published in, made up by us."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "black")


def write_vqav2(folder: Path, *, test: int = 12, train: int = 10) -> Path:
    """Questions about one-coloured images, in VQAv2's form: `test/`, `train/` and `images/`."""
    for split, count, first in (("test", test, 1), ("train", train, 1_001)):
        place, subset = folder / split, "val2014" if split == "test" else "train2014"
        pictures = folder / "images" / subset
        for made in (place, pictures):
            made.mkdir(parents=True)
        asked, answered = [], []
        for number in range(count):
            image, colour = first + number // 2, COLOURS[number // 2 % len(COLOURS)]
            Image.new("RGB", (20, 14), colour).save(pictures / f"COCO_{subset}_{image:012d}.jpg")
            asked.append(
                {
                    "question_id": first * 10 + number,
                    "image_id": image,
                    "question": ("What colour is it?", "Is it red or blue?")[number % 2],
                }
            )
            people = [colour] * 7 + ["dark"] * 3
            answered.append(
                {
                    **{key: asked[-1][key] for key in ("question_id", "image_id")},
                    "question_type": "what",
                    "answer_type": "other",
                    "multiple_choice_answer": colour,
                    "answers": [{"answer": text, "answer_id": n} for n, text in enumerate(people)],
                }
            )
        name = f"v2_OpenEnded_mscoco_{subset}_questions.json"
        (place / name).write_text(
            json.dumps({"data_subtype": subset, "questions": asked}), encoding="utf-8"
        )
        name = f"v2_mscoco_{subset}_annotations.json"
        (place / name).write_text(
            json.dumps({"data_subtype": subset, "annotations": answered}), encoding="utf-8"
        )
    return folder


def write_arc_easy(folder: Path, *, test: int = 6, train: int = 5) -> Path:
    """Questions with four choices, in the original form of ARC: JSON lines of a split."""
    for split, count in (("test", test), ("train", train)):
        place = folder / split
        place.mkdir(parents=True)
        lines = [
            {
                "id": f"{split}-{number}",
                "question": {
                    "stem": f"Which number follows {number} in the {split}?",
                    "choices": [
                        {"text": f"number {number + n + 1}", "label": "ABCD"[n]} for n in range(4)
                    ],
                },
                "answerKey": "ABCD"[number % 4],
            }
            for number in range(count)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / "ARC-Easy-Test.jsonl").write_text(text, encoding="utf-8")
    return folder
