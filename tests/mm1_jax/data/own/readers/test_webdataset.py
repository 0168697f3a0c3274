from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from http_server import serving
from raw_files import captioned, picture, write_tar

from ablations.errors import UserError
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.quarantine import Quarantine
from mm1_jax.data.own.raw import BadRecord, Origin, RawImage
from mm1_jax.data.own.readers import webdataset


def test_a_sample_is_its_image_and_its_caption(tmp_path):
    tar = str(write_tar(tmp_path / "00000.tar", [captioned(10, "a dog", width=256)]))
    (document,) = read("webdataset", tar)
    assert document.name == "000000010"
    assert document.parts == (RawImage(picture(10), "https://example.org/10.jpg"), "a dog")
    assert document.origin == Origin(tar, 0)
    assert document.facts["width"] == 256
    assert document.answers is None


def test_shards_are_read_in_order_and_samples_numbered_within_each(tmp_path):
    for shard in (1, 0):
        samples = [captioned(10 * shard + n, f"{shard} {n}") for n in range(2)]
        write_tar(tmp_path / f"0000{shard}.tar", samples)
    (tmp_path / "00000.parquet").touch()
    (tmp_path / "00000_stats.json").touch()
    documents = [*read("webdataset", str(tmp_path))]
    assert [document.texts[0] for document in documents] == ["0 0", "0 1", "1 0", "1 1"]
    assert [document.origin.index for document in documents] == [0, 1, 0, 1]
    assert [*read("webdataset", f"{tmp_path}/{{00000..00001}}.tar")] == documents


def test_columns_choose_the_member_or_a_key_of_the_json(tmp_path):
    key, members = captioned(0, "alt text", recaption="a dog that sleeps in the sun")
    tar = str(write_tar(tmp_path / "a.tar", [(key, {**members, "small.jpg": picture(5)})]))
    columns = {"image": "small.jpg", "text": "json.recaption"}
    (document,) = read("webdataset", tar, columns)
    assert document.images[0].content == picture(5)
    assert document.texts == ("a dog that sleeps in the sun",)
    del members["txt"]
    write_tar(tmp_path / "a.tar", [(key, members)])
    assert next(read("webdataset", tar)).texts == ("alt text",)
    with pytest.raises(UserError, match="has no column 'captoin'; valid: image, text"):
        [*read("webdataset", tar, {"captoin": "txt"})]


@pytest.mark.parametrize(
    ("members", "reason", "told"),
    [
        ({"jpg": picture(), "txt": b"  \n"}, "empty_text", ".txt is empty"),
        ({"jpg": picture(), "txt": b"caf\xe9"}, "encoding", ".txt is not UTF-8: byte 0xe9 at 3"),
        ({"jpg": picture(), "txt": b"nan"}, "not_a_number", ".txt is 'nan'"),
        ({"jpg": picture(), "json": b'{"caption": NaN}'}, "not_a_number", "json.caption is NaN"),
        ({"jpg": picture(), "json": b'{"caption": null}'}, "missing_field", "caption is null"),
        ({"jpg": picture(), "json": b"{"}, "malformed", "json is not JSON"),
        ({"jpg": picture()}, "missing_field", "neither .txt nor json.caption among .jpg"),
        ({"txt": b"a dog"}, "missing_field", "no image among .txt"),
    ],
)
def test_a_bad_sample_says_why_and_the_next_is_read(tmp_path, members, reason, told):
    samples = [captioned(0, "a cat"), ("000000001", members), captioned(2, "a cow")]
    tar = str(write_tar(tmp_path / "a.tar", samples))
    good, bad, next_good = read("webdataset", tar)
    assert isinstance(bad, BadRecord)
    assert (bad.origin, bad.reason) == (Origin(tar, 1), reason)
    assert told in bad.detail
    assert "000000001" in bad.detail
    assert good.texts + next_good.texts == ("a cat", "a cow")


@pytest.mark.parametrize(
    "damage", ["in a file", "in a header", "before a header", "overwritten", "zeroed"]
)
def test_a_tar_that_ends_early_is_no_silent_end(tmp_path, damage):
    path = write_tar(tmp_path / "a.tar", [captioned(n, f"number {n}") for n in range(3)])
    content = bytearray(path.read_bytes())
    last = content.index(b"000000002.jpg")
    match damage:
        case "in a file":
            del content[last + 700 :]
        case "in a header":
            del content[last + 100 :]
        case "before a header":
            del content[last:]
        case "overwritten":
            content[last : last + 512] = b"\xff" * 512
        case "zeroed":
            content[last : last + 512] = bytes(512)
    path.write_bytes(content)
    *good, bad = read("webdataset", str(path))
    assert isinstance(bad, BadRecord)
    assert bad.reason == "truncated"
    assert "what follows is lost" in bad.detail
    assert bad.origin.index == len(good) >= 1


def write_members(path, *members: tuple[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def test_a_member_that_is_there_again_is_a_bad_record_and_the_first_is_kept(tmp_path):
    first, second = ("0001.jpg", picture(1)), ("0001.jpg", picture(2))
    one, two = ("0001.txt", b"one"), ("0001.txt", b"two")
    upper = ("0001.JPG", picture(2))
    last = [("0002.jpg", picture(3)), ("0002.txt", b"three")]
    for odd in ([first, one, second, two], [first, second, one, two], [first, one, upper, two]):
        kept, bad, after = read("webdataset", write_members(tmp_path / "a.tar", *odd, *last))
        assert (kept.images[0].content, kept.texts) == (picture(1), ("one",))
        assert bad.reason == "malformed"
        assert bad.detail.startswith("0001: there again, the first is used: 0001.")
        assert after.texts == ("three",)


def test_members_of_no_sample_are_named_and_counted_and_end_no_run(tmp_path):
    members = []
    for n in range(100):
        for ending, content in (("jpg", picture(n)), ("txt", b"a dog")):
            members += [(f"./._{n:04d}.{ending}", b"\0\5\x16\7"), (f"./{n:04d}.{ending}", content)]
    members += [("README", b"text"), ("__meta__/a.json", b"{}"), (".DS_Store", b"")]
    path = write_members(tmp_path / "mac.tar", *members)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("0000.png")
        link.type, link.linkname = tarfile.LNKTYPE, "0000.jpg"
        archive.addfile(link)
    with Quarantine(tmp_path / "quarantine.jsonl") as quarantine:
        kept = [*quarantine.kept(read("webdataset", path))]
    assert len(kept) == 100
    assert (quarantine.seen, quarantine.bad, quarantine.left_out["no_sample"]) == (100, {}, 204)
    told = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").open(encoding="utf-8")]
    assert len(told) == 204
    assert told[0]["detail"] == "./._0000.jpg begins with a dot"
    assert told[-1]["detail"] == "0000.png is no file, a link to 0000.jpg"
    with pytest.raises(UserError, match=r"no member of the tar is part of a sample: README has no"):
        [*read("webdataset", write_members(tmp_path / "b.tar", ("README", b"text")))]


def test_endings_are_split_as_webdataset_does_and_compared_in_lower_case(tmp_path):
    dotted = [("v1.0/a.b.JPG", picture(1)), ("v1.0/a.TXT", b"a dog"), ("v1.0/a.Jpg", picture(2))]
    path = write_members(tmp_path / "a.tar", *dotted)
    (document,) = read("webdataset", path)
    assert (document.name, document.images[0].content) == ("v1.0/a", picture(2))
    (document,) = read("webdataset", path, {"image": "B.jpg", "text": "TXT"})
    assert document.images[0].content == picture(1)
    path = write_members(tmp_path / "b.tar", ("a.01.jpg", picture(1)), ("a.01.txt", b"a dog"))
    with pytest.raises(UserError, match=r"found \.01\.jpg, .* ending begins at the first dot"):
        [*read("webdataset", path)]


def test_a_sample_with_two_images_asks_which(tmp_path):
    members = ("a.png", picture(1)), ("a.jpg", picture(2)), ("a.txt", b"a dog")
    path = write_members(tmp_path / "a.tar", *members)
    (bad,) = read("webdataset", path)
    assert bad.detail == "a: 2 images (.jpg, .png); `columns: {image: jpg}` says which"
    (document,) = read("webdataset", path, {"image": "png"})
    assert document.images[0].content == picture(1)


def test_a_small_archive_of_gigabytes_is_read_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "LIMIT_BYTES", 1_000_000)
    monkeypatch.setattr(webdataset, "_LIMIT_TEXT_BYTES", 100_000)
    members = [("a.jpg", picture(1)), ("a.txt", b"a dog"), ("b.jpg", bytes(30_000_000))]
    members += [("b.txt", b"a cat"), ("c.jpg", picture(2)), ("c.txt", bytes(20_000_000))]
    members += [("d.jpg", picture(3)), ("d.txt", b"a cow")]
    path = Path(write_members(tmp_path / "a.tar", *members))
    small = tmp_path / "a.tar.gz"
    small.write_bytes(gzip.compress(path.read_bytes()))
    tracemalloc.start()
    found = [*read("webdataset", str(small))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [getattr(one, "reason", None) for one in found] == [None, "bomb", "bomb", None]
    assert found[1].detail == "b: b.jpg has 30,000,000 bytes"
    assert peak < 10_000_000


def test_a_header_of_gigabytes_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        long = tarfile.TarInfo("a.jpg")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2_000_000
        archive.addfile(long, io.BytesIO(b"a" * 2_000_000))
    with pytest.raises(UserError, match="a header of 2,000,000 bytes"):
        [*read("webdataset", str(tmp_path / "a.tar"))]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_compressed_tar_in_pieces_is_whole(tmp_path, compress):
    content = write_tar(tmp_path / "a", [captioned(n, "a dog") for n in range(3)]).read_bytes()
    name = {gzip.compress: "a.tar.gz", bz2.compress: "b.tar.bz2"}[compress]
    (tmp_path / name).write_bytes(compress(content[:3000]) + compress(content[3000:]))
    assert len([*read("webdataset", str(tmp_path))]) == 3


def test_what_is_no_tar_or_of_another_layout_is_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"PAR1" * 1000)
    with pytest.raises(UserError, match=r"a\.tar: expected a tar archive, found none"):
        [*read("webdataset", str(tmp_path / "a.tar"))]
    write_tar(tmp_path / "a.tar", [("x", {"flac": b"sound", "cls": b"7"})])
    with pytest.raises(UserError, match=r"expected samples of .*\.jpg.*, found \.cls, \.flac"):
        [*read("webdataset", str(tmp_path / "a.tar"))]
    (tmp_path / "a.tar").rename(tmp_path / "a.zip")
    with pytest.raises(
        UserError, match=r"expected webdataset files \(\*\.tar, .*\), found 1 \.zip"
    ):
        [*read("webdataset", str(tmp_path))]


def test_shards_behind_a_web_address_are_the_same(tmp_path):
    for shard in range(2):
        write_tar(tmp_path / f"0000{shard}.tar", [captioned(shard, "a dog")])
    here = [*read("webdataset", str(tmp_path))]
    with serving(tmp_path) as server:
        server.cut_after["00001.tar"] = 2000
        there = [*read("webdataset", f"{server.url}/{{00000..00001}}.tar")]
    assert [document.parts for document in there] == [document.parts for document in here]
    assert there[1].origin == Origin(f"{server.url}/00001.tar", 0)


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match="'webdatset' is not known; did you mean 'webdataset'"):
        [*read("webdatset", "a.tar")]
