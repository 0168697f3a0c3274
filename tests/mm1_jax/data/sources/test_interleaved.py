from __future__ import annotations

from mm1_jax.data.sources import interleaved
from mm1_jax.data.sources.emoji import Emoji
from mm1_jax.data.sources.wikipedia import Lead


def drawing(title: str, image: int, *aliases: str, split: str = "train") -> Emoji:
    return Emoji(
        name=f"twemoji/{image}",
        sequence="1",
        image=image,
        concept=title,
        title=title,
        aliases=aliases,
        category="Animals & Nature",
        kind="animal-mammal",
        split=split,
    )


EMOJI = [
    drawing("dog face", 1, "dog", "pet"),
    drawing("cat", 2, "pet"),
    drawing("cat with tears", 3),
    drawing("hamster", 4, split="test"),
]


def parts(text: str) -> list[tuple[int | str, ...]]:
    lead = Lead(title="A title", text=text, split="train")
    return [document.parts for document in interleaved.illustrated([lead], EMOJI)]


def test_an_image_stands_where_its_thing_is_first_named():
    assert parts("We saw a dog, two cats and a dog.") == [
        ("We saw a", 1, " dog, two", 2, " cats and a dog.")
    ]


def test_the_longest_name_wins():
    assert parts("There was a cat with tears.") == [("There was a", 3, " cat with tears.")]


def test_only_whole_words_in_lower_case_count():
    assert parts("Mr Dog has a category, a dogma and a cat-like gait.") == []


def test_a_shared_alias_and_a_held_out_concept_call_no_image():
    assert parts("Every pet and every hamster.") == []


def test_text_without_images_is_the_lead():
    text = "The cat and the dog face a cat with tears"
    (found,) = parts(text)
    assert "".join(part for part in found if isinstance(part, str)) == text
