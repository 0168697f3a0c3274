from __future__ import annotations

import pytest

from mm1_jax.data.sources import conversations, easy_vqa, emoji
from mm1_jax.data.sources.conversations import MOST_TURNS
from mm1_jax.data.templates import template_of

PLAIN = template_of("plain")


@pytest.fixture(scope="module")
def drawn():
    return emoji.read_all(first_row=0)


def test_every_question_about_a_shape_is_asked_once_of_its_image():
    asked = easy_vqa.questions("train", first_row=5)[:200]
    documents = conversations.about_shapes(asked, PLAIN)
    found = []
    for document in documents:
        image, *turns = document.parts
        texts = [part for part in turns if isinstance(part, str)]
        assert 1 <= len(texts) // 2 <= MOST_TURNS
        found += [
            (image, q, a.removeprefix(" ")) for q, a in zip(texts[::2], texts[1::2], strict=True)
        ]
    assert sorted(found) == sorted((item.image, item.question, item.answer) for item in asked)
    assert len({document.name for document in documents}) == len(documents)
    assert documents == conversations.about_shapes(asked, PLAIN)


def test_only_answers_and_their_ends_bear_loss(drawn):
    for document in conversations.about_emoji(drawn[:30], PLAIN):
        texts = [part for part in document.parts if not isinstance(part, int)]
        assert document.answers is not None
        said = [t for t, loss in zip(texts, document.answers, strict=True) if not loss]
        assert all(isinstance(text, str) and text.endswith("?") for text in said)


def test_emoji_are_asked_what_their_tables_answer(drawn):
    dog = next(item for item in drawn if item.name == "twemoji/1f436")
    (turns,) = conversations.questions_about([dog, *drawn])[:1]
    answers = {turn.prompt: turn.response for turn in turns}
    assert answers["what is this?"] == " dog face"
    assert answers["what category is it in?"] == " animals and nature"
    assert answers["what kind is it?"] == " animal mammal"
    assert answers["is it one of animals and nature?"] == " yes"
    assert sorted(answers.values()).count(" no") == 1


def test_an_order_of_turns_is_drawn_and_stays(drawn):
    documents = conversations.about_emoji(drawn, PLAIN)
    firsts = {document.parts[1] for document in documents}
    assert len(firsts) > 10
    assert documents == conversations.about_emoji(drawn, PLAIN)
