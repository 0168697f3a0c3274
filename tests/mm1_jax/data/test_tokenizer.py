from __future__ import annotations

import io
import json

import pytest
import sentencepiece
import tokenizers

from ablations.errors import UserError
from mm1_jax.data import templates, tokenizer
from mm1_jax.data.tokenizer import END, PAD, Marker, Tokenizer

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
    trained.save(tmp_path)
    for it in (trained, tokenizer.load(tmp_path)):
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


def foreign(folder, *, end="</s>", special=False):
    """A `tokenizer.json` as others write it, with `<image>` among the added tokens."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=["<unk>", end], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.add_tokens([tokenizers.AddedToken("<image>", special=special)])
    backend.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "<image> a [INST] b"] * 5),
        model_writer=model,
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        user_defined_symbols=["<image>", "[INST]"],
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return path


@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_of_a_foreign_tokenizer_cannot_be_spelled(tmp_path, special):
    found = tokenizer.load(foreign(tmp_path, special=special))
    image = found.marker(Marker("<image>"))
    assert image == found.vocabulary - 1
    ids = found.encode("a <image> b</s>")
    assert not {image, found.end} & set(ids)
    assert found.decode([*ids, found.end]) == "a <image> b</s>"


def test_user_defined_symbols_of_sentencepiece_cannot_be_spelled(sentencepiece_model, tmp_path):
    found = tokenizer.load(sentencepiece_model)
    special = {found.marker(Marker(name)) for name in ("<image>", "[INST]", "<s>")} | {found.end}
    plain = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    for text in ("a <image> b", "[INST]<image></s>", "what color 🐶"):
        for ids in (found.encode(text), *found.encode_batch([text])):
            assert not special & set(ids)
            assert found.decode([*ids, found.end]) == text
    assert special & set(plain.encode("a <image> b"))
    assert found.encode("is there a blue") == plain.encode("is there a blue")
    found.save(tmp_path)
    assert tokenizer.load(tmp_path).encode("a <image>") == found.encode("a <image>")


def test_sentencepiece_encodes_prompt_and_response_apart_as_together(sentencepiece_model):
    found = tokenizer.load(sentencepiece_model)
    turn = templates.visual_question("is it blue?", "yes")
    assert found.encode(turn.prompt) + found.encode(turn.response) == found.encode("".join(turn))
    assert found.decode(found.encode("".join(turn))) == "is it blue? yes"


def test_bytes_of_sentencepiece_tokens_add_up_to_the_text_and_the_space_before_it(
    sentencepiece_model,
):
    found = tokenizer.load(sentencepiece_model)
    text = "what colour is the 🐶?"
    assert found.bytes_of_tokens()[found.encode(text)].sum() == len(text.encode()) + 1


def test_the_token_that_ends_a_text_is_the_stated_one_or_a_usual_one(tmp_path):
    path = foreign(tmp_path, end="<|done|>")
    with pytest.raises(UserError, match="has no token that ends a text; expected"):
        tokenizer.load(path)
    stated = {"eos_token": {"content": "<|done|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
    found = tokenizer.load(tmp_path)
    assert (found.end, found.marker(Marker("<|end|>"))) == (1, 1)
    (tmp_path / "copy").mkdir()
    found.save(tmp_path / "copy")
    assert tokenizer.load(tmp_path / "copy").end == 1


def test_a_tokenizer_of_another_model_is_refused_in_one_line(tmp_path, trained):
    path = foreign(tmp_path)
    found = tokenizer.load(path)
    tokenizer.check_vocabulary(found, found.vocabulary + 100, path)  # a table that is rounded up
    for model in (found.vocabulary - 1, found.vocabulary + 1000):
        with pytest.raises(UserError, match=f"has {found.vocabulary} tokens and the model {model}"):
            tokenizer.check_vocabulary(found, model, path)
    trained.save(tmp_path / ".")
    tokenizer.check_same(trained, tmp_path)
    with pytest.raises(UserError, match=f"has {found.vocabulary} tokens and that of the check"):
        tokenizer.check_same(found, tmp_path)
    other = tokenizer.train(["zebras zip and zoom by zinc zones"] * 9, vocabulary=270)
    (tmp_path / "other").mkdir()
    tokenizer.train(TEXTS, vocabulary=270).save(tmp_path / "other")
    with pytest.raises(UserError, match=r"is not that of the checkpoint .*: token 258 is"):
        tokenizer.check_same(other, tmp_path / "other")


@pytest.mark.parametrize("name", ["tokenizer.json", "x.model"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="no tokenizer"):
        tokenizer.load(tmp_path / name)
    for content in (b"{}" if name.endswith("json") else b"\xff\xff", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="is no tokenizer that can be read"):
            tokenizer.load(tmp_path / name)


def test_further_special_tokens_take_ids_and_cannot_be_spelled():
    found = tokenizer.train(TEXTS, 300, ["<|im_end|>"])
    assert (found.vocabulary, found.marker(Marker("<|im_end|>"))) == (300, 2)
    assert 2 not in found.encode("a<|im_end|>")
    assert found.decode([2, *found.encode("a<|im_end|>")]) == "a<|im_end|>"
