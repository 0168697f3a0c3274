"""Documents of several pictures and answers, from which a model can learn to learn in its context.

Language documents: all answers of a document are names in one language, or categories, or colours,
so the examples say what is asked (task recognition). Binding documents: made-up names, given to
drawings in this document only (fast binding, after Frozen: Tsimpoukelli et al., 2021).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel

from mm1_jax.config.data import Language
from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.draws import generator
from mm1_jax.data.sources.emoji import Emoji, Split, sequence, words
from mm1_jax.data.sources.packages import data_folder

CATEGORY, COLOUR = "category", "colour"
ATTRIBUTES = (CATEGORY, COLOUR)
PAIRS = 9  # in a language document: eight demonstrations and a question
ROUNDS = 4  # how often each drawing is named in each language, among other drawings each time
BINDING_DOCUMENTS = 16_000
TEST_EPISODES = 500
SHOWN = 9  # pictures in a binding document
MADE_UP = (
    *("bax", "dax", "gax", "kax", "nax", "rax", "bix", "dix", "gix", "kix", "rix", "vix", "zix"),
    *("bux", "gux", "kux", "nux", "pux", "rux", "vux", "zux"),
    *("dox", "gox", "kox", "mox", "nox", "rox", "zox"),
)

# Categories of things, whose names are short and whose drawings differ.
_THINGS = {"Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places"}


class Answer(BaseModel):
    """What is said of a drawing where a kind of answer is asked."""

    name: str  # of the drawing
    image: int
    concept: str
    kind: str  # a language, `category` or `colour`
    text: str
    split: Split


def answers(
    emoji: Sequence[Emoji], languages: Sequence[Language], colours: Mapping[str, tuple[str, ...]]
) -> list[Answer]:
    """Every answer to every drawing of a thing, kind by kind; `colours` by the drawing's name."""
    things = [item for item in emoji if item.category in _THINGS]
    result = []
    for language in languages:
        named = _names(language)
        result += [_answer(item, language, named[item.sequence]) for item in things]
    for item in things:
        result.append(_answer(item, CATEGORY, templates.in_words(item.category)))
        result.append(_answer(item, COLOUR, colours[item.name][0]))
    return result


def _answer(item: Emoji, kind: str, text: str) -> Answer:
    return Answer(
        name=item.name,
        image=item.image,
        concept=item.concept,
        kind=kind,
        text=text,
        split=item.split,
    )


def _names(language: Language) -> dict[str, str]:
    """Sequence of code points → name, as the package `emoji` has them."""
    folder = data_folder("emoji")
    if language == "en":
        entries = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
        return {sequence(spelled): words(entry["en"]) for spelled, entry in entries.items()}
    entries = json.loads((folder / f"emoji_{language}.json").read_text(encoding="utf-8"))
    return {sequence(spelled): words(name) for spelled, name in entries.items()}


def language_documents(answers: Sequence[Answer]) -> list[Document]:
    """Documents of `PAIRS` drawings, all answered in one kind.

    Every drawing is in `ROUNDS` documents of each kind, each time among others.
    """
    by_kind: dict[str, list[Answer]] = {}
    for answer in answers:
        by_kind.setdefault(answer.kind, []).append(answer)
    result = []
    for kind, listed in by_kind.items():
        for turn in range(ROUNDS):
            order = generator(0, "language documents", kind, turn).permutation(len(listed))
            for number, first in enumerate(range(0, len(order), PAIRS)):
                parts: list[int | str] = []
                for place in order[first : first + PAIRS]:
                    example = templates.example(templates.caption(listed[place].text))
                    parts += [listed[place].image, example]
                name = f"language_documents/{kind}/{turn}/{number}"
                result.append(Document(name, tuple(parts)))
    return result


def single_answers(answers: Sequence[Answer]) -> list[Document]:
    """The same pictures and answers, each a document of its own: nothing says what is asked."""
    return [
        Document(
            f"single_answers/{answer.kind}/{answer.name}",
            (answer.image, *templates.caption(answer.text)),
            answers=(False, True),
        )
        for answer in answers
    ]


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


def test_episodes(emoji: Sequence[Emoji]) -> list[Episode]:
    """What the task asks: 500 episodes of two classes."""
    return episodes(emoji, TEST_EPISODES, (2,), "test")


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
