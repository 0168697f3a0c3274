from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from http_server import serving
from raw_files import picture

from ablations.errors import UserError
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.raw import BadRecord, Origin, RawImage


def write(path, **columns) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (picture(1), RawImage(picture(1), "https://example.org/1.jpg")),
        ("1.jpg", RawImage(None, "FOLDER/1.jpg")),
        ("FOLDER/deep/1.jpg", RawImage(None, "FOLDER/deep/1.jpg")),
        ("s3://bucket/1.jpg", RawImage(None, "s3://bucket/1.jpg")),
        (
            {"bytes": picture(1), "path": "1.jpg"},
            RawImage(picture(1), "https://example.org/1.jpg"),
        ),
        ({"bytes": None, "path": "1.jpg"}, RawImage(None, "FOLDER/1.jpg")),
    ],
)
def test_an_image_is_bytes_a_path_an_address_or_bytes_with_a_path(tmp_path, value, expected):
    urls = ["https://example.org/1.jpg"]
    value = value.replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value
    file = write(tmp_path / "a.parquet", image=[value], caption=["a dog"], url=urls)
    (document,) = read("parquet", file)
    image = RawImage(expected.content, expected.url.replace("FOLDER", str(tmp_path)))
    assert document.parts == (image, "a dog")
    assert document.name == "a/0"


def test_columns_of_other_names_and_text_alone(tmp_path):
    file = write(tmp_path / "a.parquet", jpg=[picture()], alt=["a dog"], body=["long text"])
    (document,) = read("parquet", file, {"image": "jpg", "text": "alt"})
    assert document.parts == (RawImage(picture()), "a dog")
    (document,) = read("parquet", file, {"image": None, "text": "body"})
    assert document.parts == ("long text",)
    with pytest.raises(UserError, match=r"expected a column 'image', .*`image: null`: texts alone"):
        [*read("parquet", file, {"text": "body"})]
    with pytest.raises(UserError, match=r"a\.parquet: expected a column 'image', found jpg, alt"):
        [*read("parquet", file)]


def test_one_column_named_leaves_the_others_their_names(tmp_path):
    file = write(tmp_path / "a.parquet", image=[picture()], text=["a dog"], url=["https://a.org"])
    (document,) = read("parquet", file, {"text": "text"})
    assert document.parts == (RawImage(picture(), "https://a.org"), "a dog")


def test_relative_paths_are_below_the_folder_of_the_images_and_never_leave_it(tmp_path):
    file = write(tmp_path / "a.parquet", image=["1.jpg", "../1.jpg"], caption=["one", "two"])
    good, bad = read("parquet", file, image_folder="gs://bucket/images")
    assert good.images[0].url == "gs://bucket/images/1.jpg"
    assert bad.reason == "outside"
    assert "leaves the folder of the images" in bad.detail


def test_a_bad_row_spoils_no_other_row_of_its_batch(tmp_path):
    captions = pa.array([b"one", b"caf\xe9", b"", None, b"five"], pa.binary()).view(pa.string())
    images = [picture(), picture(), picture(), picture(), None]
    file = write(tmp_path / "a.parquet", image=images, caption=captions)
    good, *bad = read("parquet", file)
    assert good.texts == ("one",)
    reasons = ["encoding", "empty_text", "missing_field", "missing_field"]
    assert [record.reason for record in bad] == reasons
    assert [record.origin for record in bad] == [Origin(file, n) for n in range(1, 5)]


def test_the_nan_of_a_data_frame_is_no_caption(tmp_path):
    file = write(tmp_path / "a.parquet", image=[picture()], caption=[math.nan])
    (bad,) = read("parquet", file)
    assert isinstance(bad, BadRecord)
    assert bad.reason == "not_a_number"


def test_what_is_no_parquet_is_told(tmp_path):
    (tmp_path / "a.parquet").write_text("image,caption\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.parquet: expected a Parquet file, found none"):
        [*read("parquet", str(tmp_path / "a.parquet"))]


def test_rows_behind_a_web_address_are_the_same(tmp_path):
    images = [picture(n) for n in range(100)]
    write(tmp_path / "a.parquet", image=images, caption=[f"number {n}" for n in range(100)])
    here = [document.parts for document in read("parquet", str(tmp_path))]
    with serving(tmp_path) as server:
        server.cut_after["a.parquet"] = 5000
        there = [document.parts for document in read("parquet", f"{server.url}/a.parquet")]
    assert len(here) == 100
    assert there == here


def test_damaged_rows_are_told_and_those_of_the_next_group_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    captions = [f"number {n} {picture(n)!r}" for n in range(30)]
    pq.write_table(pa.table({"caption": captions}), path, row_group_size=10)
    content = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[middle : middle + 30] = bytes(30)
    path.write_bytes(content)
    records = [*read("parquet", str(path), {"image": None})]
    (bad,) = [record for record in records if isinstance(record, BadRecord)]
    assert (bad.origin.index, bad.reason) == (10, "unreadable")
    assert "10 rows cannot be read" in bad.detail
    read_rows = [record.origin.index for record in records if record is not bad]
    assert read_rows == [*range(10), *range(20, 30)]
