from __future__ import annotations

import pytest

from mm1_jax.data import templates
from mm1_jax.data.sources import emoji, glossary
from mm1_jax.data.sources.glossary import COLOURS, SHOWN

LANGUAGES = ("de", "en", "es", "fr")


@pytest.fixture(scope="module")
def drawn() -> list[emoji.Emoji]:
    return emoji.read_all(first_row=0)[:600]


@pytest.fixture(scope="module")
def colours(drawn) -> dict[str, tuple[str, ...]]:
    known = ["white", "blue", "red", "black", "yellow", "beige"]
    return {item.name: (known[item.image % len(known)],) for item in drawn}


@pytest.fixture(scope="module")
def episodes(drawn, colours) -> list[glossary.Episode]:
    return glossary.episodes(drawn[:500], drawn[500:], colours, LANGUAGES, 400, "test")


def test_words_that_are_the_same_in_two_languages_count_once():
    words = glossary.words_of(LANGUAGES)
    assert words["blue"] == ("blau", "blue", "azul", "bleu")
    assert words["orange"] == ("orange", "naranja")
    assert words["grey"] == ("grau", "grey", "gris")
    assert "orange" not in glossary.words_of(["de", "en"])  # nothing to keep to


def test_an_episode_keeps_to_one_word_for_each_of_its_colours(episodes, drawn, colours):
    by_image = {item.image: item for item in drawn}
    words = glossary.words_of(LANGUAGES)
    for episode in episodes:
        assert len(episode.pictures) == SHOWN
        said: dict[str, set[str]] = {}
        for picture in episode.pictures:
            assert colours[by_image[picture.image].name] == (picture.colour,)
            assert picture.words == words[picture.colour]
            assert picture.word in picture.words
            said.setdefault(picture.colour, set()).add(picture.word)
        assert all(len(kept) == 1 for kept in said.values())
        assert len(said) <= COLOURS


def test_the_last_picture_is_of_those_that_are_asked(episodes, drawn):
    asked = {item.image for item in drawn[500:]}
    for episode in episodes:
        *before, last = episode.pictures
        assert last.image in asked
        assert asked.isdisjoint(picture.image for picture in before)


def test_another_glossary_differs_in_every_word(episodes):
    for episode in episodes:
        for picture in episode.pictures:
            assert picture.other_word in picture.words
            assert picture.other_word != picture.word


def test_each_example_settles_more_of_the_colours(episodes):
    def settled(shots: int) -> float:
        seen = [{p.colour for p in episode.pictures[:shots]} for episode in episodes]
        asked = [episode.pictures[-1].colour for episode in episodes]
        return sum(a in s for a, s in zip(asked, seen, strict=True)) / len(episodes)

    shares = [settled(shots) for shots in (0, 1, 2, 4, 8)]
    expected = [1 - (1 - 1 / COLOURS) ** shots for shots in (0, 1, 2, 4, 8)]
    assert shares == pytest.approx(expected, abs=0.1)


def test_every_word_of_a_colour_is_kept_to_equally_often(episodes):
    said = [p.word for e in episodes for p in e.pictures[-1:] if p.colour == "blue"]
    for word in ("blau", "blue", "azul", "bleu"):
        assert 0.1 < said.count(word) / len(said) < 0.4


def test_episodes_do_not_depend_on_how_many_there_are(drawn, colours, episodes):
    few = glossary.episodes(drawn[:500], drawn[500:], colours, LANGUAGES, 5, "test")
    assert few == episodes[:5]


def test_a_document_is_its_pictures_with_their_words(episodes):
    (document,) = glossary.glossary_documents(episodes[:1])
    pictures = episodes[0].pictures
    assert document.parts[::2] == tuple(picture.image for picture in pictures)
    assert document.parts[1::2] == tuple(
        templates.example(templates.caption(picture.word)) for picture in pictures
    )
