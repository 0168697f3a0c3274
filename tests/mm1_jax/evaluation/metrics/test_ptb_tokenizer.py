"""The tokens are those of Stanford's Java program, as pycocoevalcap calls it."""

from __future__ import annotations

import re

import pytest

from mm1_jax.data.sources import wikipedia
from mm1_jax.evaluation.metrics.ptb_tokenizer import tokenize


def test_tokens_of_hard_captions_are_those_of_the_original(hard_captions, hard_tokens):
    assert len(hard_captions) > 300
    differ = [
        (caption, expected, found)
        for caption, expected, found in zip(
            hard_captions, hard_tokens, tokenize(tuple(hard_captions)), strict=True
        )
        if expected != found
    ]
    assert differ == []


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A T-shirt, isn't it?  Yes -- 3!", "a t-shirt is n't it yes 3"),
        ("You cannot (really).", "you can not -lrb- really -rrb-"),
        ("Mr. Smith of the U.S. paid $5.50.", "mr. smith of the u.s. paid $ 5.50"),
        ("1 1/2 cups", "1\u00a01/2 cups"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_tokens_of_one_caption(caption, tokens):
    assert tokenize((caption,)) == (tokens,)


def test_an_initial_at_the_end_looks_at_the_next_caption_as_in_the_original():
    assert tokenize(("plan B.", "The man")) == ("plan b", "the man")
    assert tokenize(("plan B.", "two men")) == ("plan b.", "two men")


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\u2028", "\u2029", "\f"])
def test_a_line_break_inside_a_caption_shifts_no_other_caption(line_break):
    assert tokenize((f"a{line_break}b", "c d")) == ("a b", "c d")


def java_tokens(captions: list[str]) -> list[str]:
    ptb = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    named = {number: [{"caption": caption}] for number, caption in enumerate(captions)}
    return [texts[0] for texts in ptb.PTBTokenizer().tokenize(named).values()]


def sentences() -> list[str]:
    """Wikipedia's leads by sentence, and their titles."""
    leads = wikipedia.read_all()
    split = [part for lead in leads for part in re.split(r"(?<=[.!?]) +|\n+", lead.text)]
    return split + [lead.title for lead in leads]


@pytest.mark.slow
def test_tokens_of_ten_thousands_of_sentences_are_those_of_the_original(java, hard_captions):
    captions = [re.sub(r"[\n\r\v\f\u2028\u2029]", " ", wikipedia) for wikipedia in sentences()]
    captions += hard_captions
    assert len(captions) > 40_000
    differ = sum(
        a != b for a, b in zip(java_tokens(captions), tokenize(tuple(captions)), strict=True)
    )
    assert differ == 0


@pytest.mark.slow
def test_every_character_of_the_basic_plane_is_tokenised_as_in_the_original(java):
    breaks = "\n\r\v\f\u2028\u2029"
    characters = [chr(c) for c in range(1, 0x10000) if not 0xD800 <= c < 0xE000]
    captions = [f"x {c} 3{c}4 it'{c} a{c}b B.{c}" for c in characters if c not in breaks]
    expected, found = java_tokens(captions), tokenize(tuple(captions))
    assert [c for c, a, b in zip(captions, expected, found, strict=True) if a != b] == []


@pytest.mark.slow
def test_the_stored_tokens_are_those_of_the_original(java, hard_captions, hard_tokens):
    assert java_tokens(hard_captions) == hard_tokens
