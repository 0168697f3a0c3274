from __future__ import annotations

import pytest

from mm1_jax.config.data import DataConfig
from mm1_jax.data.sources.drawing_captions import CaptionedDrawings, lay_out_captions, read_drawings
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.data.tokenizer import END, PAD

CONFIG = DataConfig(text_tokens=36)


@pytest.fixture(scope="module")
def prepared(data_root):
    return open_prepared(CONFIG, data_root)


@pytest.fixture(scope="module")
def pairs(prepared):
    return CaptionedDrawings(prepared)


def test_held_out_drawings_and_concepts_are_never_trained_on(prepared, pairs):
    held_out = read_drawings(prepared, "test")
    assert not {drawing.image for drawing in held_out} & set(pairs.image_ids.tolist())
    trained = {drawing.concept for drawing in read_drawings(prepared, "train")}
    assert not {drawing.concept for drawing in held_out} & trained


def test_captions_end_with_the_end_token_even_if_cut(prepared):
    tokens, lengths = lay_out_captions(["dog", "dog " * 20], prepared.tokenizer, 8)
    assert tokens.shape == (2, 8)
    short = int(lengths[0])
    assert tokens[0, short - 1] == END
    assert (tokens[0, short:] == PAD).all()
    assert (int(lengths[1]), tokens[1, 7]) == (8, END)
    assert (tokens[1, :7] > END).all()


def test_no_caption_is_cut_at_the_default_length(prepared):
    captions = [
        text
        for split in ("train", "test")
        for drawing in read_drawings(prepared, split)
        for text in drawing.captions
    ]
    _, lengths = lay_out_captions(captions, prepared.tokenizer, 37)
    assert lengths.max() <= 36
