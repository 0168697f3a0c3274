"""Documents that keep to one word for each colour, which only their examples tell.

Every colour has a word in several languages. A document draws one of them for each of its colours,
so what a picture is called follows from how pictures of its colour were called before. Each example
tells one word: the more of them, the more colours are settled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from mm1_jax.config.embedded_sources import ColourLanguage
from mm1_jax.data import templates
from mm1_jax.data.documents import Document
from mm1_jax.data.draws import generator
from mm1_jax.data.sources.emoji import Emoji

if TYPE_CHECKING:
    from mm1_jax.data.sources.package_contents import PackageContents

DOCUMENTS = 16_000
TEST_EPISODES = 500
SHOWN = 9  # pictures of an episode: eight demonstrations and a question
COLOURS = 4  # of an episode
_ENGLISH = ("black", "grey", "white", "red", "orange", "yellow", "green", "blue", "purple", "brown")
_LISTED: dict[ColourLanguage, str] = {
    "de": "schwarz grau weiß rot orange gelb grün blau lila braun",
    "en": " ".join(_ENGLISH),
    "es": "negro gris blanco rojo naranja amarillo verde azul morado marrón",
    "fr": "noir gris blanc rouge orange jaune vert bleu violet marron",
    "it": "nero grigio bianco rosso arancione giallo verde blu viola marrone",
    "pt": "preto cinza branco vermelho laranja amarelo verde azul roxo castanho",
}
WORDS = {
    language: dict(zip(_ENGLISH, listed.split(), strict=True))
    for language, listed in _LISTED.items()
}


class Named(BaseModel):
    """A picture in an episode: its colour, what it is called, and what it might be called."""

    image: int
    colour: str
    word: str
    other_word: str  # in another glossary of the same colours
    words: tuple[str, ...]  # in all languages


class Episode(BaseModel):
    """Pictures, each named by the episode's glossary; the last is the one that is asked about."""

    name: str
    pictures: tuple[Named, ...]


def words_of(languages: Sequence[ColourLanguage]) -> dict[str, tuple[str, ...]]:
    """Colour → its different words; colours with the same word in all languages are left out."""
    found = {
        colour: tuple(dict.fromkeys(WORDS[language][colour] for language in sorted(languages)))
        for colour in _ENGLISH
    }
    return {colour: words for colour, words in found.items() if len(words) > 1}


def episodes(
    shown: Sequence[Emoji],
    asked: Sequence[Emoji],
    colours: Mapping[str, tuple[str, ...]],
    languages: Sequence[ColourLanguage],
    count: int,
    salt: str,
) -> list[Episode]:
    """`count` episodes of drawings `shown` and one `asked`, drawn by (salt, number).

    Each has `COLOURS` colours of equal chances; `colours` are those of a drawing by its name, the
    first of which counts.
    """
    words = words_of(languages)
    drawn, questions = _by_colour(shown, colours), _by_colour(asked, colours)
    possible = [colour for colour in words if colour in drawn and colour in questions]
    result = []
    for number in range(count):
        draws = generator(0, "glossaries", salt, number)
        own = [possible[place] for place in draws.permutation(len(possible))[:COLOURS]]
        glossary = {colour: draws.permutation(words[colour]).tolist() for colour in own}
        order = [own[place] for place in draws.integers(len(own), size=SHOWN)]
        pictures = []
        for place, colour in enumerate(order):
            pool = questions[colour] if place == SHOWN - 1 else drawn[colour]
            word, other, *_ = glossary[colour]
            pictures.append(
                Named(
                    image=pool[int(draws.integers(len(pool)))].image,
                    colour=colour,
                    word=word,
                    other_word=other,
                    words=words[colour],
                )
            )
        name = f"glossary_documents/{salt}/{number}"
        result.append(Episode(name=name, pictures=tuple(pictures)))
    return result


def _by_colour(
    emoji: Sequence[Emoji], colours: Mapping[str, tuple[str, ...]]
) -> dict[str, list[Emoji]]:
    result: dict[str, list[Emoji]] = {}
    for item in emoji:
        result.setdefault(colours[item.name][0], []).append(item)
    return result


def glossary_documents(episodes: Sequence[Episode]) -> list[Document]:
    """One document an episode: pictures, each with its word."""
    result = []
    for episode in episodes:
        parts: list[int | str] = []
        for picture in episode.pictures:
            parts += [picture.image, templates.example(templates.caption(picture.word))]
        result.append(Document(episode.name, tuple(parts)))
    return result


def documents(contents: PackageContents) -> dict[str, list[Document]]:
    """16,000 episodes of the training drawings."""
    shown = contents.drawn_in("train")
    languages = contents.embedded.glossary_documents.languages
    kept = episodes(shown, shown, contents.colours, languages, DOCUMENTS, "train")
    return {"glossary_documents-train": glossary_documents(kept)}


def records(contents: PackageContents) -> dict[str, list[Episode]]:
    """What the task asks: episodes of the training drawings and one that is held out."""
    shown, asked = contents.drawn_in("train"), contents.drawn_in("test")
    languages = contents.embedded.glossary_documents.languages
    kept = episodes(shown, asked, contents.colours, languages, TEST_EPISODES, "test")
    return {"glossaries-test": kept}
