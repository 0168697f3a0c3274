from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import own_data
import pyarrow.parquet as pq
import pytest
from own_data import CLEANING, spec
from PIL import Image
from raw_files import write_tar

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.data.own import shard_preparation
from mm1_jax.data.own.manifest import read_manifest
from mm1_jax.data.own.raw import Origin, RawDocument, RawImage
from mm1_jax.data.own.shard_preparation import prepare_own
from mm1_jax.data.own.shard_writer import images_of
from mm1_jax.data.own.suitability import check_sources
from mm1_jax.data.tokenizer import END, load
from mm1_jax.images.pictures import STORED_FORMATS, upright_rgb


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shard_preparation, "MEGABYTE", 18_000)


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {m.name: opened.extractfile(m).read() for m in opened.getmembers()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("provenance.json",)
    }


def test_a_shard_is_a_webdataset_with_an_index_into_its_bytes(own_captions):
    (name, *_), tokenizer = (
        sorted(path.stem for path in (own_captions / "shards").iterdir()),
        load(own_captions / "tokenizer.json"),
    )
    content = members(own_captions / "shards" / f"{name}.tar")
    assert [*content][:4] == ["000000.json", "000000.0.png", "000001.json", "000001.0.png"]
    first = json.loads(content["000000.json"])
    assert first["parts"] == [
        {"image": "000000.0.png"},
        {"text": "caption:", "loss": False},
        {"text": f" {own_data.caption(0)}", "loss": True},
    ]
    assert first["origin"] == {"file": "00000.tar", "index": 0}
    rows = pq.read_table(own_captions / "index" / f"{name}.parquet").to_pylist()
    tar = (own_captions / "shards" / f"{name}.tar").read_bytes()
    tokens = np.fromfile(own_captions / "tokens" / f"{name}.bin", "<u2")
    start = 0
    for number, row in enumerate(rows):
        (offset,), (size,) = row["image_offset"], row["image_bytes"]
        assert tar[offset : offset + size] == own_data.picture(number)
        ids = tokens[start : start + row["text_tokens"]]
        assert tokenizer.decode(ids) == f"caption: {own_data.caption(number)}"
        assert ids[-1] == END
        assert row["image_at"] == [0]
        assert row["given"] == [0, len(tokenizer.encode("caption:"))]
        start += row["text_tokens"]
    assert start == len(tokens)


def test_the_manifest_counts_what_is_there(own_captions):
    manifest = read_manifest(str(own_captions))
    assert (manifest.documents, manifest.images, manifest.read) == (80, 80, 80)
    shards = [json.loads(line) for line in (own_captions / "shards.jsonl").open(encoding="utf-8")]
    assert len(shards) == manifest.shards == 8
    assert sum(shard["text_tokens"] for shard in shards) == manifest.text_tokens
    assert not (own_captions / "unfinished").exists()


def test_place_and_workers_change_no_byte(own_captions, raw_captions, tmp_path, data_root):
    moved = shutil.copytree(raw_captions, tmp_path / "elsewhere")
    out = tmp_path / "out"
    # In processes of their own the shards have their usual size: as large as a test can tell.
    prepare_own(spec("captions", moved, shard_megabytes=1), str(out), data_root, workers=1)
    ours, theirs = files_of(out), files_of(own_captions)
    for name in set(ours) - {n for n in ours if n.startswith("quarantine")}:
        assert ours[name] == theirs[name], name
    assert read_manifest(str(out)).fingerprint == read_manifest(str(own_captions)).fingerprint


@pytest.mark.slow
def test_processes_write_what_one_writes(raw_captions, tmp_path, data_root, monkeypatch):
    monkeypatch.undo()  # other processes have the megabyte that users have
    for workers in (1, 2):
        out = tmp_path / str(workers)
        prepare_own(spec("captions", raw_captions), str(out), data_root, workers=workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert read_manifest(str(tmp_path / "2")).shards == 2


def test_interrupted_it_goes_on_after_the_last_shard(
    own_captions, raw_captions, tmp_path, data_root, monkeypatch
):
    out, written = tmp_path / "out", []
    write_shard = shard_preparation.write_shard

    def failing(folder, name, *arguments):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(name)
        return write_shard(folder, name, *arguments)

    monkeypatch.setattr(shard_preparation, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare_own(spec("captions", raw_captions), str(out), data_root)
    assert not (out / "manifest.json").exists()
    again: list[str] = []

    def noting(folder, name, *arguments):
        again.append(name)
        return write_shard(folder, name, *arguments)

    monkeypatch.setattr(shard_preparation, "write_shard", noting)
    manifest = prepare_own(spec("captions", raw_captions), str(out), data_root)
    assert len(written) == 3
    assert not set(written) & set(again)
    assert manifest.fingerprint == read_manifest(str(own_captions)).fingerprint


def test_a_folder_is_for_one_specification(own_captions, raw_captions, tmp_path, data_root):
    assert prepare_own(spec("captions", raw_captions), str(own_captions), data_root).documents == 80
    with pytest.raises(UserError, match="was prepared with caption_prompt: true"):
        prepare_own(
            spec("captions", raw_captions, caption_prompt=False), str(own_captions), data_root
        )
    small = {**CLEANING, "filters": {"min_side_pixels": 7}}
    told = r"cleaning\.filters\.min_side_pixels: \S+, and the specification says 7;"
    with pytest.raises(UserError, match=told):
        prepare_own(spec("captions", raw_captions, cleaning=small), str(own_captions), data_root)
    (tmp_path / "mine.txt").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="not empty and holds no prepared data"):
        prepare_own(spec("captions", raw_captions), str(tmp_path), data_root)


def test_a_finished_folder_answers_for_its_own_files_alone(tmp_path, data_root):
    raw, other = (own_data.write_captions(tmp_path / n, files=1, pairs=4) for n in "ab")
    pictures = own_data.write_captions(tmp_path / "pictures", files=1, pairs=1)
    out, file = str(tmp_path / "out"), raw / "00000.tar"

    def again(folder: Path = raw, **fields: Any) -> str:
        with pytest.raises(UserError) as told:
            prepare_own(spec("captions", folder, **fields), out, data_root)
        assert str(told.value).startswith(f"{out} ")
        return str(told.value)

    manifest = prepare_own(spec("captions", raw), out, data_root)
    assert prepare_own(spec("captions", raw), out, data_root) == manifest
    assert f"{other}/00000.tar was not there, and 1 more" in again(other)
    assert "image_folder was None and is /elsewhere" in again(image_folder="/elsewhere")
    mine = data_root / "own.json"
    mine.write_text("{}", encoding="utf-8")
    assert "the tokenizer is another one" in again(tokenizer=str(mine))
    (raw / "00001.tar").write_bytes((pictures / "00000.tar").read_bytes())
    assert f"{raw}/00001.tar was not there" in again()
    (raw / "00001.tar").unlink()
    content = file.read_bytes()
    file.write_bytes(content)  # in its place, as large as before
    assert f"{file} was written anew since" in again()
    kept = file.stat().st_mtime_ns
    manifest = prepare_own(spec("captions", raw), str(tmp_path / "kept"), data_root)
    file.write_bytes(content.replace(b"caption", b"kaption"))
    os.utime(file, ns=(kept, kept))  # as copies and archives have it
    with pytest.raises(UserError, match=r"00000\.tar was written anew since"):
        prepare_own(spec("captions", raw), str(tmp_path / "kept"), data_root)
    file.write_bytes(content + bytes(10240))
    assert f"{file} has {len(content) + 10240} bytes, not {len(content)}" in again()
    file.unlink()
    assert "what it was prepared from is not as it was" in again()


def test_images_added_to_an_evaluation_are_other_inputs(tmp_path, data_root):
    raw = own_data.write_captions(tmp_path / "raw", files=1, pairs=4)
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "0.png").write_bytes(own_data.picture(0))
    given = spec("captions", raw, evaluation_images=(str(tmp_path / "asked"),))
    manifest = prepare_own(given, str(tmp_path / "out"), data_root)
    assert manifest.dropped_images == {"in_evaluation": 1}
    (tmp_path / "asked" / "1.png").write_bytes(own_data.picture(1))
    with pytest.raises(UserError, match=r"evaluation image \S+/1.png was not there"):
        prepare_own(given, str(tmp_path / "out"), data_root)


@pytest.mark.parametrize("stopped", ["survey", "write"])
def test_interrupted_it_goes_on_with_the_files_that_are_there_now(
    tmp_path, data_root, monkeypatch, stopped
):
    raw = own_data.write_captions(tmp_path / "raw", files=3, pairs=6)
    early = (raw / "00000.tar").rename(tmp_path / "00000.tar")
    changed = (raw / "00002.tar").read_bytes()
    (raw / "00002.tar").write_bytes(changed + bytes(10240))
    out, done, surveyed = tmp_path / "out", [], []
    place = "survey" if stopped == "survey" else "write_shard"
    owner = shard_preparation.image_survey if stopped == "survey" else shard_preparation
    usual, usual_survey = getattr(owner, place), shard_preparation.image_survey.survey

    def failing(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return usual(*arguments)

    monkeypatch.setattr(owner, place, failing)
    with pytest.raises(KeyboardInterrupt):
        prepare_own(spec("captions", raw), str(out), data_root)
    monkeypatch.setattr(owner, place, usual)

    def noting(documents, *arguments):
        documents = list(documents)
        surveyed.append(Path(documents[0].origin.file).name)
        return usual_survey(documents, *arguments)

    early.rename(raw / "00000.tar")  # every number is another's now
    (raw / "00002.tar").write_bytes(changed)
    monkeypatch.setattr(shard_preparation.image_survey, "survey", noting)
    manifest = prepare_own(spec("captions", raw), str(out), data_root)
    assert (manifest.documents, manifest.dropped) == (18, {})
    assert surveyed == ["00000.tar", "00002.tar"]  # 00001.tar is still what it was
    prepare_own(spec("captions", raw), str(tmp_path / "at once"), data_root)
    assert files_of(out) == files_of(tmp_path / "at once")


def test_an_image_that_changes_between_the_passes_is_told(tmp_path, data_root, monkeypatch):
    raw = own_data.write_conversations(tmp_path / "raw", count=3)
    given, out = spec("conversations", raw), str(tmp_path / "out")
    decided = shard_preparation._decided

    def replacing(*arguments):
        (raw / "images" / "1.png").write_bytes(own_data.picture(77))
        return decided(*arguments)

    monkeypatch.setattr(shard_preparation, "_decided", replacing)
    with pytest.raises(UserError, match=r"record 1: an image changed while it was prepared"):
        prepare_own(given, out, data_root)
    monkeypatch.setattr(shard_preparation, "_decided", decided)
    assert prepare_own(given, out, data_root).documents == 3


def test_a_folder_is_prepared_by_one_process_at_a_time(tmp_path, data_root, monkeypatch):
    raw = own_data.write_captions(tmp_path / "raw", files=1, pairs=2)
    keep, told = shard_preparation._keep_tokenizer, []

    def second(*arguments):
        with pytest.raises(UserError, match="is being prepared by another process") as refused:
            prepare_own(spec("captions", raw), str(tmp_path / "out"), data_root)
        told.append(refused)
        return keep(*arguments)

    monkeypatch.setattr(shard_preparation, "_keep_tokenizer", second)
    assert prepare_own(spec("captions", raw), str(tmp_path / "out"), data_root).documents == 2
    assert told


def test_what_is_dropped_and_what_is_bad_is_counted_and_told(tmp_path, data_root):
    raw = own_data.write_captions(tmp_path / "raw", files=1, pairs=12)
    with tarfile.open(raw / "00001.tar", "w") as tar:
        for number, content in enumerate(
            (own_data.picture(3), own_data.picture(50)[:200], own_data.picture(51, side=8))
        ):
            for suffix, data in (("png", content), ("txt", b"a dog")):
                member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    cleaning = {**CLEANING, "filters": {"min_side_pixels": 16}}
    out = tmp_path / "out"
    manifest = prepare_own(spec("captions", raw, cleaning=cleaning), str(out), data_root)
    assert manifest.documents == 12
    assert manifest.dropped_images == {"exact_copy": 1, "too_small": 1, "truncated": 1}
    assert sum(manifest.dropped.values()) == 3
    assert manifest.quarantined_images == {"truncated": 1}
    (line,) = (out / "quarantine" / "00001.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["index"] == 1
    strict = {**cleaning, "quota": {"share": 0.01, "minimum": 0}}
    with pytest.raises(UserError, match=r"1 of 15 images cannot be used .1 truncated"):
        prepare_own(spec("captions", raw, cleaning=strict), str(tmp_path / "strict"), data_root)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_depth_and_broken_metadata_lose_no_document_and_what_has_no_white_is_told(
    tmp_path, data_root
):
    tiles = np.random.default_rng(0).integers(0, 65536, (5, 6, 5)).astype(np.uint16)
    big = [np.kron(one, np.ones((8, 8), np.uint16)) for one in tiles]
    # Of type ASCII, where an orientation is a number.
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 2, b"6\0\0\0", 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    eight = Image.fromarray((big[3] >> 8).astype(np.uint8))
    lying = Image.fromarray((big[4] >> 8).astype(np.uint8)).transpose(Image.Transpose.ROTATE_90)
    pictures = {
        **{f"{n}.png": saved(Image.fromarray(big[n]), "PNG") for n in range(3)},
        "3.jpg": saved(eight, "JPEG", exif=exif),
        "4.tif": saved(lying, "TIFF", exif=turned),
        "5.tif": saved(Image.fromarray(big[0].astype(np.int32)), "TIFF"),
    }
    samples = [
        (f"{n:09d}", {name[2:]: content, "txt": b"tiles"})
        for n, (name, content) in enumerate(pictures.items())
    ]
    write_tar(tmp_path / "a.tar", samples)
    for stored in ("encoded", "pixels"):
        out = tmp_path / stored
        asked = spec(
            "captions",
            tmp_path / "a.tar",
            cleaning={"filters": {"min_side_pixels": 16}},
            stored_images=stored,
        )
        manifest = prepare_own(asked, str(out), data_root)
        assert manifest.documents == 5
        assert manifest.quarantined_images == {"unknown_range": 1}
        (line,) = (out / "quarantine" / "00000.jsonl").read_text("utf-8").splitlines()
        assert json.loads(line)["index"] == 5
        parts = [pq.read_table(index) for index in sorted((out / "index").iterdir())]
        rows = [row for part in parts for row in part.to_pylist()]
        assert [(row["image_width"], row["image_height"]) for row in rows] == [([40], [48])] * 5
        shards = [members(shard) for shard in sorted((out / "shards").iterdir())]
        kept = [c for shard in shards for n, c in shard.items() if ".0." in n]
        for content, one in zip(kept, big, strict=True):
            grey = np.asarray(upright_rgb(content, formats=STORED_FORMATS)).astype(int)
            assert np.abs(grey - (one >> 8)[..., None]).mean() < 4


def test_images_may_be_stored_smaller(raw_captions, tmp_path, data_root):
    asked = spec("captions", raw_captions, stored_side_pixels=12)
    manifest = prepare_own(asked, str(tmp_path / "out"), data_root)
    assert manifest.images == 80
    for index in (tmp_path / "out" / "index").iterdir():
        for row in pq.read_table(index).to_pylist():
            assert (row["image_width"], row["image_height"]) == ([12], [12])
    content = members(next((tmp_path / "out" / "shards").iterdir()))
    assert Image.open(io.BytesIO(content["000000.0.jpg"])).size == (12, 12)


def test_images_may_be_stored_uncompressed(raw_captions, tmp_path, data_root):
    def first(**settings: Any) -> tuple[str, Image.Image]:
        out = tmp_path / str(len(settings))
        prepare_own(spec("captions", raw_captions, **settings), str(out), data_root)
        found = members(sorted((out / "shards").iterdir())[0])
        (name,) = (name for name in found if name.startswith("000000.0."))
        return name, Image.open(io.BytesIO(found[name]))

    _, as_it_came = first()
    name, stored = first(stored_images="pixels")
    assert name == "000000.0.ppm"
    assert np.array_equal(np.asarray(stored), np.asarray(as_it_came.convert("RGB")))
    name, stored = first(stored_images="pixels", stored_side_pixels=12)
    assert (name, stored.size) == ("000000.0.ppm", (12, 12))


def test_uncompressed_images_keep_their_transparency():
    drawing = Image.new("RGBA", (9, 7), (10, 20, 30, 40))
    file = io.BytesIO()
    drawing.save(file, "PNG")
    part = RawImage(file.getvalue())
    raw = RawDocument("a", (part,), Origin("a.tar", 0))
    (content,) = images_of(raw, None, "pixels")
    with Image.open(io.BytesIO(content)) as image:
        assert image.getpixel((3, 3)) == (10, 20, 30, 40)
    assert len(content) > 4 * 9 * 7


def test_only_answers_bear_loss_in_conversations(tmp_path, data_root):
    raw = own_data.write_conversations(tmp_path / "raw")
    out = tmp_path / "out"
    prepare_own(spec("conversations", raw), str(out), data_root)
    (index,) = (out / "index").iterdir()
    (tokens,) = (out / "tokens").iterdir()
    ids, tokenizer = np.fromfile(tokens, "<u2"), load(out / "tokenizer.json")
    start = 0
    for number, row in enumerate(pq.read_table(index).to_pylist()):
        places = np.arange(row["text_tokens"])
        given = np.searchsorted(row["given"], places, side="right") % 2 == 1
        learnt = tokenizer.decode(ids[start : start + len(places)][~given])
        assert own_data.caption(number) in learnt
        assert "yes" in learnt
        assert "sure" not in learnt
        assert "what" not in learnt
        start += len(places)


def test_conversations_have_the_words_of_a_template(tmp_path, data_root):
    raw = own_data.write_conversations(tmp_path / "raw", count=1)
    prepare_own(spec("conversations", raw, template="vicuna"), str(tmp_path / "out"), data_root)
    (tar,) = (tmp_path / "out" / "shards").iterdir()
    parts = json.loads(members(tar)["000000.json"])["parts"]
    answers = [part["text"] for part in parts if part.get("loss") and "text" in part]
    assert answers == [f" {own_data.caption(0)}", " yes"]
    assert parts[-2]["text"] == "USER: sure? ASSISTANT:"


def test_an_address_serves_as_input_and_output(raw_captions, own_captions, data_root):
    files = fsspec.filesystem("memory")
    for path in raw_captions.iterdir():
        files.pipe_file(f"/raw/{path.name}", path.read_bytes())
    given = spec("captions", Path("x"), urls=("memory://raw/*.tar",))
    manifest = prepare_own(given, "memory://prepared", data_root)
    assert manifest.fingerprint == read_manifest(str(own_captions)).fingerprint
    assert not files.exists("/prepared/unfinished")


def test_records_that_cannot_be_of_the_kind_are_refused(raw_captions, tmp_path, data_root):
    texts, out = spec("text", raw_captions, format="webdataset"), str(tmp_path / "own")
    told = r"00000\.tar, record 0: kind text has no images, found 1; nearest: kind captions"
    with pytest.raises(UserError, match=told):
        prepare_own(texts, out, data_root)
    assert prepare_own(spec("captions", raw_captions), out, data_root).images == 80


@pytest.mark.parametrize(
    ("kind", "format", "told"),
    [
        ("captions", "conversations", "not what format conversations holds; valid: conversations"),
        ("conversations", "jsonl", "jsonl holds no conversations; valid: conversations, array_rec"),
    ],
)
def test_a_format_that_cannot_be_the_kind_is_refused(tmp_path, kind, format, told):
    with pytest.raises(ValueError, match=told):
        spec(kind, tmp_path, format=format)


def test_an_empty_result_is_told_with_the_reasons(raw_captions, tmp_path, data_root):
    large = {"filters": {"min_side_pixels": 1000}}
    told = r"no document of kind captions is left of 80 records \(documents dropped: 80 too_small"
    with pytest.raises(UserError, match=told):
        prepare_own(spec("captions", raw_captions, cleaning=large), str(tmp_path / "a"), data_root)
    told = r"; cleaning\.filters\.min_side_pixels: 1000 drops too_small, null turns it off;"
    with pytest.raises(UserError, match=told):
        prepare_own(spec("captions", raw_captions, cleaning=large), str(tmp_path / "a"), data_root)
    texts = own_data.write_texts(tmp_path / "raw")
    with pytest.raises(UserError, match=r"record 0: kind captions needs an image, found none"):
        prepare_own(spec("captions", texts, format="jsonl"), str(tmp_path / "b"), data_root)
    assert not (tmp_path / "b" / "manifest.json").exists()


def test_interleaved_documents_that_lost_all_images_are_told(tmp_path, data_root):
    own_data.write_texts(tmp_path / "raw")
    lines = [json.dumps({"image": f"{n}.png", "caption": "a dog"}) for n in range(3)]
    with (tmp_path / "raw" / "0.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    pages = spec("interleaved", tmp_path / "raw", format="jsonl")
    with pytest.raises(UserError, match=r"no image of kind interleaved .*bad images: 3 unavail"):
        prepare_own(pages, str(tmp_path / "own"), data_root)


@pytest.mark.parametrize("count", ["documents", "images"])
def test_a_plan_refuses_a_manifest_with_nothing_in_it(own_captions, tmp_path, count):
    manifest = json.loads((own_captions / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, count: 0}), encoding="utf-8")
    sources = {"mine": {"folder": str(tmp_path), "kind": "captions"}}
    data = DataConfig.model_validate({"sources": sources, "mixture": {"mine": 1.0}})
    with pytest.raises(
        UserError, match=rf"data\.sources\.mine: .*no {count[:-1]} of kind captions"
    ):
        check_sources(data, None)


def test_a_plan_refuses_texts_with_images(own_captions, tmp_path):
    manifest = json.loads((own_captions / "manifest.json").read_text(encoding="utf-8"))
    (tmp_path / "manifest.json").write_text(
        json.dumps({**manifest, "kind": "text"}), encoding="utf-8"
    )
    sources = {"mine": {"folder": str(tmp_path), "kind": "text"}}
    data = DataConfig.model_validate({"sources": sources, "mixture": {"mine": 1.0}})
    with pytest.raises(UserError, match="is of kind text and has 80 images; prepare it again"):
        check_sources(data, None)
