from __future__ import annotations

import itertools

import numpy as np
import pytest

from mm1_jax.config import DataConfig
from mm1_jax.data.captions import (
    CaptionedDrawings,
    caption_batches,
    drawn,
    lay_out_captions,
    prefix_batches,
    read_drawings,
    shifted,
)
from mm1_jax.data.prepared import open_prepared
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


def test_every_epoch_shows_every_drawing_once():
    numbers = [rows for _, rows in itertools.islice(drawn(10, 0, 0, 4), 5)]
    shown = np.concatenate(numbers)
    assert sorted(shown[:10]) == sorted(shown[10:20]) == list(range(10))
    assert shown[:10].tolist() != shown[10:20].tolist()


@pytest.mark.parametrize("kind", ["captions", "prefixes"])
def test_batches_follow_from_the_seed_and_their_number(kind, data_root):
    def take(seed: int, start: int, count: int) -> list:
        more = {"seed": seed, "start": start, "batch_size": 8, "image_size": 16}
        if kind == "captions":
            return list(itertools.islice(caption_batches(CONFIG, data_root, **more), count))
        return list(itertools.islice(prefix_batches(CONFIG, data_root, patches=4, **more), count))

    whole = take(0, 0, 4)
    for ours, later in zip(whole[2:], take(0, 2, 2), strict=True):
        assert ours.keys() == later.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], later[name])
    assert (take(1, 0, 1)[0]["images"] != whole[0]["images"]).any()
    if kind == "prefixes":
        assert {p for b in take(0, 0, 20) for p in b["prefixes"].tolist()} == {1, 2, 3}


def test_captions_belong_to_their_images(prepared, pairs, data_root):
    batch = next(caption_batches(CONFIG, data_root, seed=0, start=0, batch_size=64, image_size=16))
    drawings = {drawing.image: drawing for drawing in read_drawings(prepared, "train")}
    order = next(drawn(len(pairs), 0, 0, 64))[1]
    texts = [
        prepared.tokenizer.decode(row[: n - 1])
        for row, n in zip(batch["tokens"], batch["lengths"], strict=True)
    ]
    for i, image in enumerate(pairs.image_ids[order]):
        np.testing.assert_array_equal(batch["images"][i], prepared.images.at_size(image, 16))
        for j, text in enumerate(texts):
            assert batch["matches"][i, j] == (text in drawings[image].captions)
    assert np.diagonal(batch["matches"]).all()
    assert len({text.startswith("a picture of") for text in texts}) == 2  # wordings vary


def test_a_name_that_two_drawings_share_is_true_of_both(pairs):
    shared = np.flatnonzero(pairs.true_of.sum(1) > 1)
    assert len(shared) > 0
    caption = int(shared[0])
    for drawing in np.flatnonzero(pairs.true_of[caption]):
        assert caption in pairs.wordings[drawing]


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


def test_images_move_by_at_most_the_shift_and_repeat_their_edge():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(shifted(images, 0, np.random.default_rng(1)), images)
    moved = shifted(images, 2, np.random.default_rng(1))
    around = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    places = set()
    for ours, whole in zip(moved, around, strict=True):
        (place,) = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(ours, whole[y : y + 8, x : x + 8])
        ]
        places.add(place)
    assert len(places) > 10


def test_both_kinds_of_batches_show_the_same_images(data_root):
    more = {"seed": 0, "start": 2, "batch_size": 8, "image_size": 16, "shift": 3}
    captioned = next(caption_batches(CONFIG, data_root, **more))
    alone = next(prefix_batches(CONFIG, data_root, patches=4, **more))
    np.testing.assert_array_equal(captioned["images"], alone["images"])
    still = next(prefix_batches(CONFIG, data_root, patches=4, **{**more, "shift": 0}))
    assert (still["images"] != alone["images"]).any()


def test_a_style_of_its_own_gives_as_many_other_pictures_of_the_same(in_context_data):
    config, root = in_context_data
    prepared = open_prepared(config, root)
    ours, theirs = (CaptionedDrawings(prepared, (style,)) for style in ("twemoji", "openmoji"))
    assert ours.captions == theirs.captions
    assert len(ours) == len(theirs)
    assert not set(ours.image_ids.tolist()) & set(theirs.image_ids.tolist())
    more = {"seed": 0, "start": 0, "batch_size": 8, "image_size": 16}
    one, other = (
        next(caption_batches(config, root, styles=(style,), **more))
        for style in ("twemoji", "openmoji")
    )
    np.testing.assert_array_equal(one["tokens"], other["tokens"])
    assert (one["images"] != other["images"]).any(axis=(1, 2, 3)).all()
