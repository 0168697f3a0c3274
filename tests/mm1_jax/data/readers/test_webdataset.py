from __future__ import annotations

import pytest
from http_server import serving
from raw_files import captioned, picture, write_tar

from mm1_jax.data.raw import BadRecord, Origin, RawImage
from mm1_jax.data.readers import read
from mm1_jax.errors import UserError


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


def test_what_is_no_tar_or_of_another_layout_is_told(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"PAR1" * 1000)
    with pytest.raises(UserError, match=r"a\.tar: expected a tar archive, found none"):
        [*read("webdataset", str(tmp_path / "a.tar"))]
    write_tar(tmp_path / "a.tar", [("x", {"flac": b"sound", "cls": b"7"})])
    with pytest.raises(UserError, match=r"expected samples of .*\.jpg.*, found \.cls, \.flac"):
        [*read("webdataset", str(tmp_path / "a.tar"))]
    (tmp_path / "a.tar").rename(tmp_path / "a.zip")
    with pytest.raises(UserError, match=r"expected webdataset files \(\*\.tar\), found 1 \.zip"):
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
