"""Wikipedia leads with the drawings of the things they name, each where it is first named.

The text is that of the `text` source, so the two differ in the images and in nothing else. Only
training concepts are drawn: a held-out drawing is seen nowhere before evaluation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mm1_jax.data.documents import Document
from mm1_jax.data.sources.emoji import Emoji
from mm1_jax.data.sources.wikipedia import Lead

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

# Categories of things that can be seen and named in a text; a smiley or an arrow is not.
_THINGS = {"Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places"}
# Names that in running text mostly mean something else: a date, a key role, leaves the room.
_OTHER_SENSES = {
    *("bank", "construction", "cooking", "cool", "date", "fly", "key", "leaves", "link", "office"),
    *("performing arts", "saw", "scales", "sound", "speaker", "station"),
}
_NAME = re.compile(r"([a-z]{3,}).*")  # captures the first word
_SPACE_AND_WORD = re.compile(r" ([a-z]+)")


def _drawings(emoji: list[Emoji]) -> dict[str, Emoji]:
    """Name → the drawing it calls for. A title goes before an alias; a shared alias calls none."""
    things = [item for item in emoji if item.category in _THINGS and item.split == "train"]
    named = {item.title: item for item in things}
    shared: dict[str, list[Emoji]] = {}
    for item in things:
        for alias in item.aliases:
            shared.setdefault(alias, []).append(item)
    aliased = {alias: items[0] for alias, items in shared.items() if len(items) == 1}
    names = {**aliased, **named}
    return {
        name: item
        for name, item in names.items()
        if _NAME.fullmatch(name) and name not in _OTHER_SENSES
    }


def illustrated(leads: list[Lead], emoji: list[Emoji]) -> list[Document]:
    """The leads that name at least one thing, with images in reading order.

    A name counts in lower case only (Turkey is no bird), singular or with a plural s, and once per
    concept and document. The image stands before the word, and the text is cut before the space in
    front of it, so that its tokens stay those of the uncut text.
    """
    drawings = _drawings(emoji)
    by_first_word: dict[str, list[str]] = {}
    for name in sorted(drawings, key=lambda name: (-len(name), name)):  # the longest match wins
        by_first_word.setdefault(_NAME.findall(name)[0], []).append(name)
    result = []
    for lead in leads:
        parts: list[int | str] = []
        seen: set[str] = set()
        begin = 0
        for word in _SPACE_AND_WORD.finditer(lead.text):
            names = by_first_word.get(word[1], ()) or by_first_word.get(
                word[1].removesuffix("s"), ()
            )
            name = next((n for n in names if _is_named(n, lead.text, word.start(1))), None)
            if name is None or drawings[name].concept in seen:
                continue
            seen.add(drawings[name].concept)
            parts += [lead.text[begin : word.start()], drawings[name].image]
            begin = word.start()
        if seen:
            parts.append(lead.text[begin:])
            result.append(Document(f"interleaved/{lead.title}", tuple(parts)))
    return result


def _is_named(name: str, text: str, at: int) -> bool:
    if not text.startswith(name, at):
        return False
    end = at + len(name)
    end += text.startswith("s", end)
    return end == len(text) or not (text[end].isalnum() or text[end] in "-'")


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """The leads of the training split that name a thing."""
    return {"interleaved-train": illustrated(contents.leads_in("train"), contents.drawn)}


def records(contents: PackageContents) -> dict[str, list[Emoji]]:
    """None: no task asks about them."""
    return {}
