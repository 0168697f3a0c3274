"""Examples that a command leaves: what it was shown, what it answered, and what that scored.

    {"id": "7", "image": "val/7.png", "prompt": "Which colour?", "prediction": "red",
     "reference": "blue", "score": 0}

`references` may be a list; `image` is a file below the output or the working folder. They become
`examples.parquet`, which the report shows, with the bytes of the images in it: the folder that they
lay in may be gone when somebody looks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.errors import UserError, nearest, shown

EXAMPLES = "examples.parquet"
KEYS = ("id", "image", "prompt", "prediction", "reference", "references", "score", "weight")
MOST_EXAMPLES = 100_000
MOST_IMAGE_BYTES = 2**21  # of one that is kept
MOST_BYTES = 2**26  # of all that are kept
# How files of kinds that every browser shows begin.
KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}


def image_kind(content: bytes | None) -> str | None:
    """Which of `KINDS` an image's bytes are; None where they are none of them."""
    found = (kind for start, kind in KINDS.items() if content and content.startswith(start))
    return next(found, None)


@dataclass(frozen=True)
class CommandExample:
    """One row of the table; the score of the item is counted `weight` times."""

    item_id: str
    image_id: int  # row number, -1 where there is no image
    prompt: str
    prediction: str
    references: list[str]
    score: float
    weight: float = 1.0
    image_file: str = ""
    image: bytes | None = field(default=None, repr=False)  # PNG, JPEG, GIF or WebP


def write_examples(named: str, output: Path, folder: Path) -> int:
    """Make `examples.parquet` in the output folder of the file named there, if it is there.

    Images are looked for in the output folder and then in `folder`; how many examples there are.

    Raises:
        UserError: a line is not of the form, or its image is not there.
    """
    source = output / named
    if not named or not source.is_file():
        return 0
    examples = _with_images([*_read(source)], (output, folder))
    if examples:
        import pyarrow as pa
        from pyarrow import parquet

        types = {"references": pa.list_(pa.string()), "image": pa.binary()}
        columns = {
            name: pa.array([getattr(one, name) for one in examples], types.get(name))
            for name in CommandExample.__dataclass_fields__
        }
        parquet.write_table(pa.table(columns), output / EXAMPLES)
    return len(examples)


def _read(source: Path) -> Iterator[CommandExample]:
    seen: set[str] = set()
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{source.name} line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{place}: not a line of JSON: {error}") from None
            if not isinstance(row, dict):
                raise UserError(f"{place}: {shown(row)} is not an object")
            for key in row:
                if key not in KEYS:
                    raise UserError(f"{place}: unknown key {shown(key)}{nearest(key, KEYS)}")
            item = _text(row.get("id", number))
            if item in seen:
                raise UserError(f"{place}: a second example with the id {shown(item)}")
            seen.add(item)
            if len(seen) > MOST_EXAMPLES:
                raise UserError(f"{source.name}: more than {MOST_EXAMPLES:,} examples")
            references = row.get("references", row.get("reference", []))
            many = references if isinstance(references, list) else [references]
            yield CommandExample(
                item_id=item,
                image_id=-1,
                prompt=_text(row.get("prompt", "")),
                prediction=_text(row.get("prediction", "")),
                references=[_text(one) for one in many],
                score=_number(row.get("score"), "score", place, math.nan),
                weight=_number(row.get("weight"), "weight", place, 1.0),
                image_file=_text(row.get("image") or ""),
            )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: Any, key: str, place: str, absent: float) -> float:
    if value is None:
        return absent
    if not isinstance(value, int | float):  # a truth is a number: right or wrong
        raise UserError(f"{place}: {key} is {shown(value)}, not a number")
    return float(value)


def _with_images(
    examples: Sequence[CommandExample], folders: Sequence[Path]
) -> list[CommandExample]:
    """The examples with the bytes of their images; in the order in which a report draws them."""
    order = sorted(
        range(len(examples)),
        key=lambda index: hashlib.sha256(examples[index].item_id.encode()).hexdigest(),
    )
    found, room = list(examples), MOST_BYTES
    for index in order:
        name = examples[index].image_file
        if not name:
            continue
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if file is None:
            raise UserError(f"example {shown(examples[index].item_id)}: no image {shown(name)}")
        size = file.stat().st_size
        if size > min(MOST_IMAGE_BYTES, room):
            continue
        content = file.read_bytes()
        if any(content.startswith(start) for start in KINDS):
            room -= size
            found[index] = _shown(examples[index], index, content)
    return found


def _shown(example: CommandExample, index: int, content: bytes) -> CommandExample:
    return replace(example, image_id=index, image=content)
