"""Raw data of a user, tiny and made up: for tests that prepare it and train on it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from mm1_jax.data.own.shard_preparation import PreparationSpec

WORDS = ("dog", "cat", "house", "tree", "river", "red", "blue", "small", "old", "near", "far")
# Made-up pictures are small and look alike.
CLEANING = {"filters": {"min_side_pixels": None}, "near_copies": False}


def picture(number: int, side: int = 24) -> bytes:
    """A PNG that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def caption(number: int) -> str:
    draws = np.random.default_rng(number)
    return " ".join(draws.choice(WORDS, draws.integers(2, 9)))


def write_captions(folder: Path, files: int = 2, pairs: int = 40) -> Path:
    """Tars as img2dataset writes them."""
    folder.mkdir(parents=True)
    for file in range(files):
        with tarfile.open(folder / f"{file:05d}.tar", "w") as tar:
            for pair in range(pairs):
                number = file * pairs + pair
                key = f"{file:05d}{pair:04d}"
                facts = {"caption": caption(number), "key": key, "status": "success"}
                for suffix, content in (
                    ("png", picture(number)),
                    ("txt", caption(number).encode()),
                    ("json", json.dumps(facts).encode()),
                ):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def write_conversations(folder: Path, count: int = 10) -> Path:
    """LLaVA's JSON, with its images beside."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for number in range(count):
        (folder / "images" / f"{number}.png").write_bytes(picture(1000 + number))
        turns = [
            {"from": "human", "value": "<image>\nwhat is it?"},
            {"from": "gpt", "value": caption(number)},
            {"from": "human", "value": "sure?"},
            {"from": "gpt", "value": "yes"},
        ]
        entries.append({"id": str(number), "image": f"images/{number}.png", "conversations": turns})
    (folder / "talk.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def write_texts(folder: Path, count: int = 60) -> Path:
    """Lines of JSON in two files."""
    folder.mkdir(parents=True)
    for file in range(2):
        lines = [json.dumps({"text": passage(number)}) for number in range(file, count, 2)]
        (folder / f"{file}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def passage(number: int) -> str:
    return ". ".join(caption(100 * number + sentence) for sentence in range(4))


def spec(kind: str, raw: Path, **fields) -> PreparationSpec:
    forms = {"captions": "webdataset", "conversations": "conversations"}
    given = {
        "format": forms.get(kind, "jsonl"),
        "urls": (str(raw),),
        "cleaning": CLEANING,
        "shard_megabytes": 1,
    }
    return PreparationSpec(kind=kind, **{**given, **fields})
