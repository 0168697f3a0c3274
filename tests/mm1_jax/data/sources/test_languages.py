from __future__ import annotations

import itertools
from collections import Counter

import pytest

from mm1_jax.data import templates
from mm1_jax.data.sources import emoji, languages
from mm1_jax.data.sources.languages import CATEGORY, COLOUR, PAIRS, ROUNDS
from mm1_jax.evaluation.tasks import prompts
from mm1_jax.evaluation.tasks.generation_task import Demonstration, Item

LANGUAGES = ("de", "en", "ja")


@pytest.fixture(scope="module")
def drawn() -> list[emoji.Emoji]:
    return [item for item in emoji.read_all(first_row=0) if item.split == "train"]


@pytest.fixture(scope="module")
def answers(drawn) -> list[languages.Answer]:
    return languages.answers(drawn, LANGUAGES, {item.name: ("blue",) for item in drawn})


def test_a_drawing_has_a_name_in_every_language_a_category_and_a_colour(answers):
    said = {answer.kind: answer.text for answer in answers if answer.name == "twemoji/1f98b"}
    assert said == {
        "de": "schmetterling",
        "en": "butterfly",
        "ja": "チョウ",
        CATEGORY: "animals and nature",
        COLOUR: "blue",
    }
    counts = Counter(answer.kind for answer in answers)
    assert set(counts) == {*LANGUAGES, CATEGORY, COLOUR}
    assert len(set(counts.values())) == 1


def test_a_language_document_answers_in_one_kind_only(answers):
    said = {(answer.image, answer.kind): answer.text for answer in answers}
    documents = languages.language_documents(answers)
    shown: Counter[tuple[str, int]] = Counter()
    for document in documents:
        kind = document.name.split("/")[1]
        images, texts = document.parts[::2], document.parts[1::2]
        assert len(images) == len(set(images)) <= PAIRS
        for image, text in zip(images, texts, strict=True):
            assert text == templates.example(templates.caption(said[image, kind]))
            shown[kind, image] += 1
    assert set(shown.values()) == {ROUNDS}
    assert len(shown) == len(answers)


def test_single_answers_say_the_same_one_picture_at_a_time(answers):
    documents = languages.single_answers(answers)
    assert len(documents) == len(answers)
    for document, answer in zip(documents, answers, strict=True):
        assert document.parts == (answer.image, "caption:", f" {answer.text}")
        assert document.answers == (False, True)


def test_a_drawing_stands_among_others_each_round(answers):
    documents = languages.language_documents(answers)
    rounds = [d for d in documents if d.name.startswith("language_documents/de/")]
    beside = [set(d.parts[::2]) for d in rounds if answers[0].image in d.parts]
    assert len(beside) == ROUNDS
    assert max(len(a & b) for a, b in itertools.combinations(beside, 2)) < PAIRS // 2


def test_a_prompt_is_the_beginning_of_a_language_document(answers):
    document = languages.language_documents(answers)[0]
    said = {
        answer.image: answer for answer in answers if answer.kind == document.name.split("/")[1]
    }
    shown = [
        Demonstration(image, *templates.caption(said[image].text)) for image in document.parts[:6:2]
    ]
    asked = templates.caption(said[document.parts[6]].text).prompt
    prompt = prompts.build(Item("i", document.parts[6], asked, ()), document.parts[6], shown)
    assert prompt[:-1] == document.parts[:7]
    assert document.parts[7].startswith(prompt[-1])
