"""Batches of images and captions: of the embedded drawings, of one's own documents, of both."""

from __future__ import annotations

import hashlib
import io
import itertools
import shutil

import numpy as np
import own_data
import pytest
from PIL import Image

from ablations.errors import UserError
from mm1_jax.config.encoder_pretraining import EncoderStageConfig
from mm1_jax.data.batches import windows
from mm1_jax.data.batches.encoder_batches import EncoderBatches, encoder_batches, shifted, true_of
from mm1_jax.data.batches.image_sources import Caption, drawings_at
from mm1_jax.data.own.shard_preparation import prepare_own
from mm1_jax.data.sources.drawing_captions import CaptionedDrawings, lay_out_captions, read_drawings
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.data.tokenizer import load, train

OWN = {"mine": 1}
# Of batch 7, seed 3, when the drawings were all that there was.
FIRST_RELEASE = (
    ["a picture of tennis: sport, activities", "a picture of tomato: food fruit, food and drink"],
    "4427740255d50768",
)


@pytest.fixture
def config(own_captions):
    """`config(kind, folder=…, **fields)`: batches of 8 images of 16 pixels."""

    def build(kind="clip", folder=own_captions, **fields) -> EncoderStageConfig:
        sources = {}
        if "mine" in fields.get("mixture", {}):
            sources = {"mine": {"folder": str(folder), "kind": "captions"}}
        return EncoderStageConfig.model_validate(
            {
                "objective": {"kind": kind},
                "encoder": {"image_size": 16, "patch_size": 8},
                "training": {"batch_size": 8},
                "sources": sources,
                **fields,
            }
        )

    return build


def take(count: int, config: EncoderStageConfig, root, seed=0, start=0, rows=None) -> list[dict]:
    batches = encoder_batches(EncoderBatches(config, root, seed, rows), config, start)
    return list(itertools.islice(batches, count))


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def texts_of(batch, tokenizer) -> list[str]:
    return [
        tokenizer.decode(row[: length - 1])
        for row, length in zip(batch["tokens"], batch["lengths"], strict=True)
    ]


class TestDrawings:
    def test_every_epoch_shows_every_drawing_once(self):
        shown = drawings_at(10, 0, range(20))
        assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
        assert shown[:10].tolist() != shown[10:].tolist()

    @pytest.mark.parametrize("kind", ["clip", "aim"])
    def test_batches_follow_from_the_seed_and_their_number(self, kind, config, data_root):
        whole = take(4, config(kind), data_root)
        assert_equal(take(2, config(kind), data_root, start=2), whole[2:])
        other = take(1, config(kind), data_root, seed=1)
        assert (other[0]["images"] != whole[0]["images"]).any()
        if kind == "aim":
            many = take(20, config(kind), data_root)
            assert {p for batch in many for p in batch["prefixes"].tolist()} == {1, 2, 3}

    def test_their_order_is_that_of_the_first_release(self, config, data_root):
        (batch,) = take(1, config(shift=2), data_root, seed=3, start=7)
        tokenizer = open_prepared(config().data, data_root).tokenizer
        digest = hashlib.sha256(batch["images"].tobytes()).hexdigest()[:16]
        assert (texts_of(batch, tokenizer)[:2], digest) == FIRST_RELEASE

    def test_captions_belong_to_their_images(self, config, data_root):
        asked = config(training={"batch_size": 64})
        (batch,), prepared = take(1, asked, data_root), open_prepared(asked.data, data_root)
        drawings = {drawing.image: drawing for drawing in read_drawings(prepared, "train")}
        pairs = CaptionedDrawings(prepared)
        order = drawings_at(len(pairs), 0, range(64))
        texts = texts_of(batch, prepared.tokenizer)
        for i, image in enumerate(pairs.image_ids[order]):
            np.testing.assert_array_equal(batch["images"][i], prepared.images.at_size(image, 16))
            for j, text in enumerate(texts):
                assert batch["matches"][i, j] == (text in drawings[image].captions)
        assert np.diagonal(batch["matches"]).all()
        assert len({text.startswith("a picture of") for text in texts}) == 2  # wordings vary

    def test_all_objectives_show_the_same_images(self, config, data_root):
        captioned, alone, still = (
            take(1, config(kind, shift=shift), data_root, start=2)[0]["images"]
            for kind, shift in (("clip", 3), ("aim", 3), ("aim", 0))
        )
        np.testing.assert_array_equal(captioned, alone)
        assert (still != alone).any()

    def test_a_style_of_its_own_gives_as_many_other_pictures_of_the_same(
        self, config, in_context_data
    ):
        data, root = in_context_data
        prepared = open_prepared(data, root)
        ours, theirs = (CaptionedDrawings(prepared, (style,)) for style in ("twemoji", "openmoji"))
        assert ours.wordings == theirs.wordings
        assert not set(ours.image_ids.tolist()) & set(theirs.image_ids.tolist())


@pytest.fixture
def small_windows(monkeypatch):
    """Two shards of ten images are read together."""
    monkeypatch.setattr(windows, "WINDOW_DOCUMENTS", 20)


@pytest.mark.usefixtures("small_windows")
class TestOwnImages:
    def test_an_image_comes_with_its_own_caption_as_it_was_written(
        self, config, own_captions, data_root
    ):
        pictures: dict[str, list[bytes]] = {}  # two may have the same caption
        for number in range(80):
            picture = Image.open(io.BytesIO(own_data.picture(number)))
            resized = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))
            pictures.setdefault(own_data.caption(number), []).append(resized.tobytes())
        tokenizer = load(own_captions / "tokenizer.json")
        (batch,) = take(1, config(mixture=OWN, training={"batch_size": 80}), data_root)
        texts = texts_of(batch, tokenizer)
        for pixels, text in zip(batch["images"], texts, strict=True):
            assert pixels.tobytes() in pictures[text]
        # As the tasks lay captions out: no trace of the words before them.
        laid_out = lay_out_captions(texts, tokenizer, 36)[0]
        np.testing.assert_array_equal(batch["tokens"], laid_out)
        same = np.array([[text == other for other in texts] for text in texts])
        np.testing.assert_array_equal(batch["matches"], same)
        assert same.sum() > 80

    def test_captions_without_a_prompt_are_the_same(
        self, config, raw_captions, tmp_path, data_root
    ):
        asked = own_data.spec("captions", raw_captions, caption_prompt=False)
        prepare_own(asked, str(tmp_path / "out"), data_root)
        plain = config(folder=tmp_path / "out", mixture=OWN)
        tokenizer = load(tmp_path / "out" / "tokenizer.json")
        seen = {text for batch in take(10, plain, data_root) for text in texts_of(batch, tokenizer)}
        assert seen == {own_data.caption(number) for number in range(80)}

    @pytest.mark.parametrize("kind", ["clip", "aim"])
    def test_every_epoch_has_every_image_once_and_resumes_anywhere(self, kind, config, data_root):
        asked = config(kind, mixture=OWN)
        whole = take(20, asked, data_root)
        for epoch in (whole[:10], whole[10:]):
            assert len({image.tobytes() for batch in epoch for image in batch["images"]}) == 80
        assert (whole[0]["images"] != whole[10]["images"]).any()
        assert_equal(take(3, asked, data_root, start=13), whole[13:16])

    def test_a_start_anywhere_reads_only_the_windows_that_it_needs(
        self, config, data_root, monkeypatch
    ):
        batches = EncoderBatches(config(mixture=OWN), data_root, 0)
        source, read = batches.sources["mine"]._source, []
        window = source.window
        monkeypatch.setattr(source, "window", lambda shards: read.append(shards) or window(shards))
        batches(103)  # images 824 to 831: within window 1 of epoch 10
        assert len(read) == 1

    def test_hosts_read_their_rows_of_the_same_global_batches(self, config, data_root):
        for kind, mixture in (("clip", {"mine": 1, "emoji_captions": 1}), ("aim", OWN)):
            asked = config(kind, mixture=mixture, shift=1)
            whole = take(3, asked, data_root)
            parts = [take(3, asked, data_root, rows=range(a, a + 4)) for a in (0, 4)]
            joined = [
                {name: np.concatenate([part[step][name] for part in parts]) for name in whole[step]}
                for step in range(3)
            ]
            assert_equal(joined, whole)

    def test_the_folder_does_not_matter(self, config, own_captions, tmp_path, data_root):
        moved = config(folder=shutil.copytree(own_captions, tmp_path / "x"), mixture=OWN)
        assert_equal(take(2, moved, data_root), take(2, config(mixture=OWN), data_root))

    def test_sources_are_mixed_by_their_shares_and_said(self, config, data_root):
        asked = config(mixture={"mine": 3, "emoji_captions": 1})
        batches = EncoderBatches(asked, data_root, 0)
        tokenizer = open_prepared(asked.data, data_root).tokenizer
        own = {own_data.caption(number) for number in range(80)}
        texts = [text for batch in take(4, asked, data_root) for text in texts_of(batch, tokenizer)]
        assert sum(text in own for text in texts) == 24
        assert batches.measured(0, 4)["epochs.mine"] == pytest.approx(24 / 80)
        assert batches.measured(0, 4)["epochs.emoji_captions"] == pytest.approx(8 / 1415)

    def test_another_tokenizer_is_told_and_none_is_needed_for_pixels(
        self, config, tmp_path, data_root
    ):
        train(["a dog and a cat " * 9, "the house of the dog by the river"], 262).save(tmp_path)
        raw = own_data.write_captions(tmp_path / "raw", files=1, pairs=3)
        spec = own_data.spec("captions", raw, tokenizer=str(tmp_path / "tokenizer.json"))
        prepare_own(spec, str(tmp_path / "out"), data_root)
        with pytest.raises(UserError, match=r"sources.mine: .* by another tokenizer .of 262 tok"):
            EncoderBatches(config(folder=tmp_path / "out", mixture=OWN), data_root, 0)
        EncoderBatches(config("aim", folder=tmp_path / "out", mixture=OWN), data_root, 0)(0)


@pytest.mark.slow
def test_processes_that_read_ahead_change_no_batch(config, data_root):
    alone = take(6, config(mixture=OWN), data_root, start=2)
    assert_equal(take(6, config(mixture=OWN, workers=2), data_root, start=2), alone)


def test_a_text_that_two_images_share_is_true_of_both():
    alone, both = Caption("cat", ("cat",)), Caption("dog", ("dog", "puppy"))
    found = true_of([alone, Caption("dog", ("dog",)), both, Caption("puppy", ("puppy",))])
    assert found.astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_images_move_by_at_most_the_shift_and_repeat_their_edge():
    draws = np.random.default_rng(1)
    images = draws.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(shifted(images, 0, np.zeros((40, 2), int)), images)
    moved = shifted(images, 2, draws.integers(0, 5, (40, 2)))
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
