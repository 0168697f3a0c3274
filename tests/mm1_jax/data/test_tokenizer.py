from __future__ import annotations

import pytest

from mm1_jax.data import templates, tokenizer
from mm1_jax.data.tokenizer import END, PAD, Tokenizer
from mm1_jax.errors import UserError

TEXTS = ["what color is the shape?", "is there a blue rectangle?", "caption: dog face"] * 5


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokenizer.train(TEXTS, vocabulary=300)


@pytest.mark.parametrize(
    "text", ["naïve 日本語 🐶", " two  spaces\n\tand\r\n", "", "\x00\x7f", "é"]
)
def test_every_text_survives_a_round_trip(trained, text):
    assert trained.decode(trained.encode(text)) == text


@pytest.mark.parametrize("text", ["<|end|>", "a<|end|>b", "<|pad|><|end|>", " <|end|> <|pad|>"])
def test_text_cannot_forge_special_tokens(trained, text, tmp_path):
    trained.save(tmp_path / "tokenizer.json")
    for it in (trained, Tokenizer.load(tmp_path / "tokenizer.json")):
        for ids in (it.encode(text), *it.encode_batch([text])):
            assert not {PAD, END} & set(ids)
            assert it.decode(ids) == text


def test_special_tokens_have_their_ids_and_no_text(trained):
    assert trained.decode([PAD, *trained.encode("dog"), END]) == "dog"
    assert min(trained.encode("".join(TEXTS))) >= 2


def test_the_vocabulary_is_exact_or_refused(trained):
    assert trained.vocabulary == 300
    with pytest.raises(UserError, match="vocabulary 5000 cannot be reached"):
        tokenizer.train(TEXTS, vocabulary=5000)


def test_training_is_deterministic(trained):
    again = tokenizer.train(TEXTS, vocabulary=300)
    assert [again.decode([i]) for i in range(300)] == [trained.decode([i]) for i in range(300)]


def test_bytes_of_tokens_add_up_to_the_text(trained):
    text = "what colour is the 🐶?"
    assert trained.bytes_of_tokens()[trained.encode(text)].sum() == len(text.encode())
    assert trained.bytes_of_tokens()[[PAD, END]].tolist() == [0, 0]


@pytest.mark.parametrize(
    "turn", [templates.visual_question("is it blue?", "yes"), templates.caption("dog face")]
)
def test_prompt_and_response_encode_apart_as_they_do_together(trained, turn):
    together = trained.encode(turn.prompt + turn.response)
    assert trained.encode(turn.prompt) + trained.encode(turn.response) == together
