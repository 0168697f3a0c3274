from __future__ import annotations

import hashlib
import io
import json
import warnings

import fsspec
import pytest
from http_server import serving
from PIL import Image
from raw_files import bomb, captioned, picture, write_lines, write_tar

from ablations.errors import UserError
from mm1_jax.data.files import urls
from mm1_jax.data.own import image_survey
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.image_survey import (
    examine,
    fetched,
    images_named,
    perceptual_hash,
    survey,
    survey_images,
)
from mm1_jax.data.own.quarantine import Quarantine, Quota
from mm1_jax.data.own.raw import Origin, RawDocument, RawImage, RecordError

JPEG, PNG = picture(1, 400, 300), picture(1, 400, 300, "PNG")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_size_and_hash_of_an_image(kind):
    content = picture(1, 400, 300, kind)
    facts = examine(content)
    assert (facts.width, facts.height, facts.bytes) == (400, 300, len(content))
    assert facts.sha256 == hashlib.sha256(content).digest()


def test_a_photograph_taken_sideways_is_measured_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.open(io.BytesIO(JPEG)).save(file, "JPEG", exif=exif)
    facts = examine(file.getvalue())
    assert (facts.width, facts.height) == (300, 400)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-40], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (bomb(60_000), "bomb"),
        (bomb(12_000), "bomb"),
        (b"", "unreadable"),
        (b"<html>404</html>", "unreadable"),
        (EPS, "unreadable"),
        (picture(kind="PPM"), "unreadable"),
        (JPEG[:20], "unreadable"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_is_no_whole_image_says_why(content, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RecordError) as told:
            examine(content)
    assert told.value.reason == reason
    assert "\n" not in told.value.detail


def test_a_bomb_is_refused_before_its_pixels_are_decoded(monkeypatch):
    def decoded(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    with pytest.raises(RecordError, match="pixels"):
        examine(bomb(12_000))


def test_transparency_is_seen_on_white():
    opaque = Image.new("RGB", (90, 80), "white")
    opaque.paste((0, 0, 0), (20, 10, 60, 50))
    transparent = Image.new("RGBA", (90, 80), (0, 0, 0, 0))
    transparent.paste((0, 0, 0, 255), (20, 10, 60, 50))
    assert perceptual_hash(transparent) == perceptual_hash(opaque) != 0
    assert perceptual_hash(opaque, "phash") != perceptual_hash(opaque)


def test_images_by_path_and_address_are_fetched_and_missing_ones_told(tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "FIRST_WAIT_SECONDS", 0.001)
    for n in range(3):
        (tmp_path / f"{n}.jpg").write_bytes(picture(n))
    with serving(tmp_path) as server:
        server.failures["1.jpg"] = 2
        server.failures["2.jpg"] = 3
        names = [f"{server.url}/1.jpg", f"{server.url}/2.jpg", f"{tmp_path}/none.jpg"]
        documents = [
            RawDocument("local", ("text", RawImage(None, f"{tmp_path}/0.jpg")), Origin("a", 0)),
            RawDocument("web", (*(RawImage(None, name) for name in names), "text"), Origin("a", 1)),
            RawDocument("with bytes", (RawImage(picture(3)), "text"), Origin("a", 2)),
        ]
        (local, none), (web, missing), (same, _) = fetched(documents, tries=3)
    assert local.images[0].content == picture(0)
    assert not none
    assert web.images[0].content == picture(1)
    assert {place: error.reason for place, error in missing.items()} == {
        1: "unavailable",
        2: "unavailable",
    }
    assert names[1] in missing[1].detail
    assert "after 3 tries" in missing[1].detail
    assert same == documents[2]


def test_the_survey_has_a_row_for_every_image_and_bad_ones_are_put_away(tmp_path, monkeypatch):
    monkeypatch.setattr(image_survey, "_ROWS_AT_A_TIME", 2)
    samples = [captioned(n, f"number {n}") for n in range(5)]
    samples[1][1]["jpg"] = picture(1)[:-200]
    samples[3][1]["jpg"] = bomb()
    tar = str(write_tar(tmp_path / "a.tar", samples))
    with Quarantine(tmp_path / "bad.jsonl") as quarantine:
        table = survey(quarantine.kept(read("webdataset", tar)), quarantine)
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["bad"] for row in rows] == [None, "truncated", None, "bomb", None]
    assert rows[2]["width"] == 120
    assert rows[2]["url"] == "https://example.org/2.jpg"
    assert rows[2]["file"] == tar
    listed = [
        json.loads(line)
        for line in (tmp_path / "bad.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(line["file"], line["index"], line["part"], line["reason"]) for line in listed] == [
        (tar, 1, 0, "truncated"),
        (tar, 3, 0, "bomb"),
    ]
    with (
        Quarantine(tmp_path / "bad.jsonl", Quota(share=0.2, minimum=0)) as strict,
        pytest.raises(UserError, match="1 of the first 2 images cannot be used"),
    ):
        survey(strict.kept(read("webdataset", tar)), strict)


def test_evaluation_images_come_from_folders_files_and_lists(tmp_path):
    (tmp_path / "eval" / "deep").mkdir(parents=True)
    for name in ("eval/a.jpg", "eval/deep/b.png", "c.jpg"):
        (tmp_path / name).write_bytes(picture(ord(name[-5])))
    write_lines(tmp_path / "list.txt", [b"eval/a.jpg", b"c.jpg"])
    found = survey_images([str(tmp_path / "eval"), str(tmp_path / "list.txt")])
    assert sorted(url.removeprefix(f"{tmp_path}/") for url in found["url"].to_pylist()) == [
        "c.jpg",
        "eval/a.jpg",
        "eval/deep/b.png",
    ]
    (tmp_path / "eval" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"eval/a\.jpg: no image"):
        survey_images(str(tmp_path / "eval"))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "x.txt").touch()
    with pytest.raises(UserError, match=r"expected images .*found 1 \.txt"):
        survey_images(str(tmp_path / "texts"))


def test_images_of_an_evaluation_are_named_as_they_are_called(tmp_path):
    for folder in ("[D]", "D"):
        (tmp_path / folder).mkdir()
        for name in ("[a].png", "a.png"):
            (tmp_path / folder / name).write_bytes(picture(1))
    listed = tmp_path / "[D]" / "list.txt"
    listed.write_bytes("\ufeff[a].png\r\n\r\n".encode())
    one = [f"{tmp_path}/[D]/[a].png"]
    assert images_named(str(listed)) == images_named(f"{tmp_path}/[D]/[a].png") == one
    assert images_named(f"{tmp_path}/[D]") == [*one, f"{tmp_path}/[D]/a.png"]
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.txt" / "b.png").touch()
    assert images_named(f"{tmp_path}/folder.txt") == [f"{tmp_path}/folder.txt/b.png"]
    store = fsspec.filesystem("memory")
    store.pipe("/asked/list.txt", b"deep/a.png")
    store.pipe("/asked/deep/a.png", picture(1))
    assert images_named("memory://asked/list.txt") == ["memory://asked/deep/a.png"]
    listed.write_bytes(b"caf\xe9.png")
    with pytest.raises(UserError, match="is not UTF-8: byte 3"):
        images_named(str(listed))
