"""Documents that give made-up names to drawings, which hold in this document only (fast binding).

After Frozen (Tsimpoukelli et al., 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.draws import generator
from mm1_jax.data.sources.emoji import Emoji

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

DOCUMENTS = 16_000
TEST_EPISODES = 500
SHOWN = 9  # pictures in a binding document
MADE_UP = (
    *("bax", "dax", "gax", "kax", "nax", "rax", "bix", "dix", "gix", "kix", "rix", "vix", "zix"),
    *("bux", "gux", "kux", "nux", "pux", "rux", "vux", "zux"),
    *("dox", "gox", "kox", "mox", "nox", "rox", "zox"),
)


class Episode(BaseModel):
    """Drawings with made-up names that hold in this episode only; `order` says who is shown when.

    The last picture is the one that is asked about.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[int, ...]  # of each class
    order: tuple[int, ...]  # classes


def episodes(emoji: Sequence[Emoji], count: int, ways: Sequence[int], salt: str) -> list[Episode]:
    """`count` episodes of drawings of different concepts, drawn by (salt, number).

    Each class is shown once, then any of them each time, so that only a picture tells its name.
    """
    result = []
    for number in range(count):
        draws = generator(0, "episodes", salt, number)
        classes = ways[number % len(ways)]
        chosen = _of_different_concepts(emoji, classes, draws)
        names = [MADE_UP[place] for place in draws.permutation(len(MADE_UP))[:classes]]
        order = [*draws.permutation(classes), *draws.integers(classes, size=SHOWN - classes)]
        result.append(
            Episode(
                name=f"binding_documents/{salt}/{number}",
                names=tuple(names),
                images=tuple(item.image for item in chosen),
                order=tuple(map(int, order)),
            )
        )
    return result


def _of_different_concepts(
    emoji: Sequence[Emoji], count: int, draws: np.random.Generator
) -> list[Emoji]:
    chosen: dict[str, Emoji] = {}
    while len(chosen) < count:
        item = emoji[int(draws.integers(len(emoji)))]
        chosen.setdefault(item.concept, item)
    return list(chosen.values())


def binding_documents(episodes: Sequence[Episode]) -> list[Document]:
    """One document an episode: which names there are, then pictures, each with its name."""
    result = []
    for episode in episodes:
        parts: list[int | str] = [templates.introduction(episode.names)]
        for place in episode.order:
            example = templates.example(templates.naming(episode.names[place]))
            parts += [episode.images[place], example]
        answers = (False, *(True for _ in episode.order))
        result.append(Document(episode.name, tuple(parts), answers=answers))
    return result


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """16,000 episodes of the training drawings."""
    ways = contents.embedded.binding_documents.ways
    learnt = episodes(contents.drawn_in("train"), DOCUMENTS, ways, "train")
    return {"binding_documents-train": binding_documents(learnt)}


def records(contents: PackageContents) -> dict[str, list[Episode]]:
    """What the task asks: 500 episodes of two held-out drawings."""
    return {"episodes-test": episodes(contents.drawn_in("test"), TEST_EPISODES, (2,), "test")}
