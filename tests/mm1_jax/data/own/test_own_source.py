"""Training batches from a user's own shards."""

from __future__ import annotations

import io
import itertools
import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import own_data
import pytest
from PIL import Image

from ablations.errors import UserError
from mm1_jax.config.connector import AttentionPoolingConfig
from mm1_jax.config.encoder import VisionTransformerConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.batches import windows
from mm1_jax.data.batches.known_windows import FILE
from mm1_jax.data.batches.pipeline import batches, stream_of
from mm1_jax.data.own.manifest import data_identity
from mm1_jax.data.own.own_source import OwnSource
from mm1_jax.data.own.shard_preparation import prepare_own
from mm1_jax.data.tokenizer import load, train
from mm1_jax.images.sub_images import views_of


@pytest.fixture
def config(own_captions):
    """`config(folder=…, training={…}, **sections)`: own captions and texts, half and half."""

    def build(folder: Path | str = own_captions, data=None, **sections) -> TrainConfig:
        mine = {"folder": str(folder), "kind": "captions"}
        asked = {
            "sources": {"mine": mine},
            "mixture": {"mine": 1, "text": 1},
            "text_tokens": 48,
            "images": 4,
            **(data or {}),
        }
        return TrainConfig.model_validate(
            {"data": asked, "training": {"batch_size": 4}, **sections}
        )

    return build


@pytest.fixture
def small_windows(monkeypatch):
    """Two shards of ten documents are packed together."""
    monkeypatch.setattr(windows, "WINDOW_DOCUMENTS", 20)


def first(n: int, config: TrainConfig, data_root: Path, start: int = 0, **more):
    return list(itertools.islice(batches(config, data_root, 0, start, **more), n))


def assert_equal(ours, theirs, names=None):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in names or one:
            np.testing.assert_array_equal(one[name], other[name])


ALONE = {"mixture": {"mine": 1}}


def test_a_sequence_has_the_captions_and_their_pictures(config, own_captions, data_root):
    asked = config(data=ALONE)
    stream, (batch,) = stream_of(asked, data_root, 0), first(1, asked, data_root)
    tokenizer = load(own_captions / "tokenizer.json")
    for row in range(4):
        packed = stream[row]
        assert packed.source == "mine"
        for segment, name in enumerate(packed.documents, start=1):
            _, shard, place = name.split("/")
            file, part = shard.split("-")
            number = 40 * int(file) + 10 * int(part) + int(place)
            text = tokenizer.decode(packed.tokens[packed.segments == segment])
            assert text == f"caption: {own_data.caption(number)}"
            (slot,) = np.flatnonzero((packed.image_segments == segment) & (packed.image_ids >= 0))
            picture = Image.open(io.BytesIO(own_data.picture(number)))
            np.testing.assert_array_equal(
                batch["images"][row, slot],
                np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC)),
            )
        empty = packed.image_ids < 0
        assert not batch["images"][row][empty].any()


def test_images_of_own_data_stand_as_their_sub_images(config, data_root):
    asked = config(data={**ALONE, "sub_images": {"kind": "grid", "side": 2}})
    stream, (batch,) = stream_of(asked, data_root, 0), first(1, asked, data_root)
    assert batch["images"].shape == (4, 20, 32, 32, 3)
    (file, *_), source = stream[0].image_files, stream.sources["mine"].source
    (views,) = source.images([file], views_of(asked))
    assert views.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(batch["images"][0, :5], views)


@pytest.mark.usefixtures("small_windows")
def test_an_epoch_has_every_document_once_and_the_next_another_order(config, data_root):
    stream = stream_of(config(data=ALONE), data_root, 0)
    source = stream.sources["mine"]
    epoch = source.first_epoch()
    seen = [[stream[n].documents for n in range(k * epoch, (k + 1) * epoch)] for k in (0, 1)]
    flat = [[name for names in one for name in names] for one in seen]
    assert len(flat[0]) == len(set(flat[0])) == 80
    # Another epoch, other windows: it need not have as many sequences.
    assert flat[1] != flat[0]
    assert source.epochs(epoch) == pytest.approx(1.0)
    shards = [{name.split("/")[1] for name in names} for names in seen[0]]
    assert max(map(len, shards)) == 2  # a window's documents are shuffled among each other


@pytest.mark.usefixtures("small_windows")
def test_resuming_in_the_middle_of_an_epoch_gives_what_would_have_followed(config, data_root):
    whole = first(12, config(), data_root)
    assert_equal(first(4, config(), data_root, start=8), whole[8:])


@pytest.fixture
def windows_read(monkeypatch):
    """`windows_read(stream)`: of how many windows of own data the index was read for it."""
    read, window = [], OwnSource.window
    monkeypatch.setattr(
        OwnSource, "window", lambda self, shards: read.append(self) or window(self, shards)
    )
    # Streams of tests before may still be read ahead.
    return lambda stream: sum(one is stream.sources["mine"].source for one in read)


@pytest.mark.usefixtures("small_windows")
class TestRestart:
    """Step 20 of 4 sequences each is in the fourth epoch of four windows."""

    STEP = 20

    def restarted(self, config, data_root, beside, seed=0, step=STEP):
        stream = stream_of(config, data_root, seed, beside)
        return stream, list(itertools.islice(batches(config, data_root, seed, step, stream), 1))

    def kept(self, config, data_root, folder):
        stream, _ = self.restarted(config, data_root, folder)
        stream.measured(0, self.STEP)
        stream.keep()

    def test_with_what_was_kept_only_one_window_is_read(
        self, config, data_root, tmp_path, windows_read
    ):
        asked = config(data=ALONE)
        self.kept(asked, data_root, tmp_path)
        packed, read = {}, {}
        for beside in (None, tmp_path):
            stream = stream_of(asked, data_root, 0, beside)
            packed[beside] = stream[4 * self.STEP].documents
            read[beside] = windows_read(stream)
        assert packed[None] == packed[tmp_path]
        assert (read[None] > 10, read[tmp_path]) == (True, 1)
        plain, usual = self.restarted(asked, data_root, None)
        stream, found = self.restarted(asked, data_root, tmp_path)
        assert_equal(found, usual)
        assert stream.measured(19, self.STEP) == plain.measured(19, self.STEP)

    def test_an_end_that_was_found_before_is_not_sought_again(
        self, config, data_root, tmp_path, windows_read
    ):
        asked = config(data={**ALONE, "exhausted": {"mine": "stop"}})
        stream = stream_of(asked, data_root, 0, tmp_path)
        stream.keep()
        again = stream_of(asked, data_root, 0, tmp_path)
        assert again.steps == stream.steps
        assert (windows_read(stream), windows_read(again)) == (4, 0)

    def test_what_was_kept_of_other_data_or_seeds_is_not_believed(
        self, config, own_captions, data_root, tmp_path
    ):
        self.kept(config(data=ALONE), data_root, tmp_path)
        for seed, data in ((1, {}), (0, {"text_tokens": 40}), (0, {"images": 3})):
            asked = config(data={**ALONE, **data})
            stream = stream_of(asked, data_root, seed, tmp_path)
            assert stream.sources["mine"].first_sequences == [0]
        moved = shutil.copytree(own_captions, tmp_path / "moved")
        stream = stream_of(config(moved, data=ALONE), data_root, 0, tmp_path)
        assert len(stream.sources["mine"].first_sequences) > 10

    def test_numbers_that_cannot_be_are_told(self, config, data_root, tmp_path):
        asked = config(data=ALONE)
        self.kept(asked, data_root, tmp_path)
        stated = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
        stated["first_sequences"]["mine"][3] += 1
        (tmp_path / FILE).write_text(json.dumps(stated), encoding="utf-8")
        stream = stream_of(asked, data_root, 0, tmp_path)
        with pytest.raises(UserError, match=r"window 3 of mine has .* windows.json .* remove"):
            stream[stated["first_sequences"]["mine"][3]]


@pytest.mark.slow
def test_processes_that_read_ahead_use_what_was_kept(config, data_root, tmp_path):
    asked = config(data={**ALONE, "workers": 2})  # their windows are those of a million documents
    stream = stream_of(asked, data_root, 0, tmp_path)
    stream.measured(0, 20)
    stream.keep()
    assert len(stream.sources["mine"].first_sequences) > 3  # epochs
    again = stream_of(asked, data_root, 0, tmp_path)
    found = list(itertools.islice(batches(asked, data_root, 0, 20, again), 2))
    assert_equal(found, first(2, config(data=ALONE), data_root, start=20))


@pytest.mark.usefixtures("small_windows")
def test_all_arms_see_the_same_documents_in_the_same_order(config, data_root):
    base = first(5, config(), data_root)
    for changes in (
        {"connector": AttentionPoolingConfig(tokens=7)},
        {"encoder": VisionTransformerConfig(image_size=16, patch_size=4, width=32)},
    ):
        arm = first(5, config(**changes), data_root)
        assert_equal(arm, base, names=("tokens", "loss_weights", "sources"))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_their_rows_of_the_same_global_batches(config, data_root, hosts):
    whole = first(3, config(), data_root)
    size = 4 // hosts
    parts = [
        first(3, config(), data_root, rows=range(host * size, (host + 1) * size))
        for host in range(hosts)
    ]
    joined = [
        {name: np.concatenate([part[step][name] for part in parts]) for name in whole[step]}
        for step in range(3)
    ]
    assert_equal(joined, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_processes_that_read_ahead_change_no_batch(config, data_root, workers):
    alone = first(6, config(), data_root, start=2)
    assert_equal(first(6, config(data={"workers": workers}), data_root, start=2), alone)


def test_the_manifest_decides_the_fingerprint_and_not_the_folder(
    config, own_captions, tmp_path, data_root
):
    moved = shutil.copytree(own_captions, tmp_path / "elsewhere")
    here, there = config(), config(moved)
    assert data_identity(here.data) == data_identity(there.data)
    assert_equal(first(2, there, data_root), first(2, here, data_root))
    other = own_data.write_captions(tmp_path / "raw", files=1, pairs=3)
    prepare_own(own_data.spec("captions", other), str(tmp_path / "other"), data_root)
    assert data_identity(config(tmp_path / "other").data) != data_identity(here.data)


def test_an_address_gives_the_batches_of_a_folder(config, own_captions, data_root):
    files = fsspec.filesystem("memory")
    for path in own_captions.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/own/{path.relative_to(own_captions)}", path.read_bytes())
    assert_equal(first(2, config("memory://own"), data_root), first(2, config(), data_root))


def test_what_batches_hold_is_measured(config, data_root):
    asked = config()
    stream = stream_of(asked, data_root, 0)
    found = stream.measured(2, 5)
    seen = first(5, asked, data_root)[2:]
    text = np.mean([(batch["tokens"] > 0).mean() for batch in seen])
    assert found["text_occupancy"] == pytest.approx(text)
    shown = np.mean([batch["images"].any(axis=(2, 3, 4)).mean() for batch in seen])
    assert found["image_occupancy"] == pytest.approx(shown)
    per_epoch = stream.sources["mine"].first_epoch()
    assert found["epochs.mine"] == pytest.approx(10 / per_epoch)


class TestUsersMistakes:
    def test_a_folder_without_a_manifest(self, config, tmp_path, data_root):
        with pytest.raises(UserError, match=r"no prepared data at .*mm1 data prepare SPEC"):
            stream_of(config(tmp_path), data_root, 0)

    def test_another_kind(self, config, own_captions, data_root):
        mine = {"folder": str(own_captions), "kind": "text"}
        with pytest.raises(UserError, match=r"kind: text is not what .* valid: captions"):
            stream_of(config(data={"sources": {"mine": mine}}), data_root, 0)

    def test_another_tokenizer(self, config, data_root, tmp_path):
        train(["a dog and a cat " * 9, "the house of the dog by the river"], 262).save(tmp_path)
        raw = own_data.write_captions(tmp_path / "raw", files=1, pairs=3)
        asked = own_data.spec("captions", raw, tokenizer=str(tmp_path / "tokenizer.json"))
        assert prepare_own(asked, str(tmp_path / "out"), data_root).tokenizer.vocabulary == 262
        with pytest.raises(UserError, match=r"by another tokenizer .of 262 tokens."):
            stream_of(config(tmp_path / "out"), data_root, 0)

    def test_conversations_in_the_words_of_another_template(self, config, data_root, tmp_path):
        raw = own_data.write_conversations(tmp_path / "raw", count=2)
        asked = own_data.spec("conversations", raw, template="vicuna")
        prepare_own(asked, str(tmp_path / "out"), data_root)
        mine = {"folder": str(tmp_path / "out"), "kind": "conversations"}
        with pytest.raises(UserError, match="template vicuna and the run's template is plain"):
            stream_of(config(data={"sources": {"mine": mine}}), data_root, 0)

    def test_a_damaged_image(self, config, own_captions, tmp_path, data_root):
        broken = shutil.copytree(own_captions, tmp_path / "broken")
        for tar in (broken / "shards").iterdir():
            tar.write_bytes(b"\0" * tar.stat().st_size)
        with pytest.raises(UserError, match="cannot be decoded"):
            first(1, config(broken, data=ALONE), data_root)

    def test_shards_that_are_not_the_manifests(self, config, own_captions, tmp_path, data_root):
        broken = shutil.copytree(own_captions, tmp_path / "broken")
        (broken / "shards.jsonl").write_text("", encoding="utf-8")
        with pytest.raises(UserError, match="differs from the manifest"):
            stream_of(config(broken), data_root, 0)
