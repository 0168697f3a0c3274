"""Documents of several pictures whose examples say what is asked (task recognition).

All answers of a document are names in one language, or categories, or colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from mm1_jax.config.embedded_sources import Language
from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.draws import generator
from mm1_jax.data.sources.emoji import Emoji, Split, sequence, words
from mm1_jax.data.sources.packages import data_folder

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

CATEGORY, COLOUR = "category", "colour"
ATTRIBUTES = (CATEGORY, COLOUR)
PAIRS = 9  # in a language document: eight demonstrations and a question
ROUNDS = 4  # how often each drawing is named in each language, among other drawings each time

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


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """Of the training drawings of the first style, together and one by one."""
    told = [
        answer
        for answer in _answers(contents)
        if answer.split == "train" and answer.name.startswith("twemoji/")
    ]
    return {
        "language_documents-train": language_documents(told),
        "single_answers-train": single_answers(told),
    }


def records(contents: PackageContents) -> dict[str, list[Answer]]:
    """Every answer to every drawing, in all styles."""
    found = _answers(contents)
    return {
        f"answers-{split}": [answer for answer in found if answer.split == split]
        for split in ("train", "test")
    }


def _answers(contents: PackageContents) -> list[Answer]:
    languages = contents.embedded.language_documents.languages
    return answers([*contents.drawn, *contents.redrawn], languages, contents.colours)
