from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import picture

from ablations.errors import UserError
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.raw import Origin, RawImage

GENERAL = json.dumps({"url": "https://example.org/page", "warc_filename": "x.warc"})


def write(path, rows, image_type=None) -> str:
    columns = {
        "images": pa.array([row[0] for row in rows], pa.list_(image_type or pa.string())),
        "texts": pa.array([row[1] for row in rows], pa.list_(pa.binary())).cast(
            pa.list_(pa.string()), safe=False
        )
        if not any(b"\xe9" in (text or b"") for row in rows for text in row[1] or [])
        else _unchecked([row[1] for row in rows]),
        "metadata": [json.dumps(row[2]) if len(row) > 2 else None for row in rows],
        "general_metadata": [GENERAL] * len(rows),
    }
    pq.write_table(pa.table(columns), path)
    return str(path)


def _unchecked(texts) -> pa.Array:
    lists = pa.array(texts, pa.list_(pa.binary()))
    return pa.ListArray.from_arrays(lists.offsets, lists.values.view(pa.string()))


def test_images_and_texts_are_in_reading_order(tmp_path):
    urls = ["https://example.org/1.jpg", None, "https://example.org/2.jpg"]
    file = write(tmp_path / "a.parquet", [(urls, [None, b"between", None])])
    (document,) = read("obelics", file)
    assert document.parts == (RawImage(None, urls[0]), "between", RawImage(None, urls[2]))
    assert document.facts == {"url": "https://example.org/page"}
    assert document.origin == Origin(file, 0)


def test_fetched_images_keep_their_address_from_the_metadata(tmp_path):
    about = [{"src": "https://example.org/1.jpg", "alt_text": "x"}, None]
    row = ([picture(1), None], [None, b"text"], about)
    (document,) = read("obelics", write(tmp_path / "a.parquet", [row], pa.binary()))
    assert document.images == (RawImage(picture(1), "https://example.org/1.jpg"),)


@pytest.mark.parametrize(
    ("row", "reason", "told"),
    [
        ((["u", None], [None]), "malformed", "2 images, 1 texts"),
        ((["u"], [b"both"]), "malformed", "both an image and a text at place 0"),
        (([None], [None]), "malformed", "neither image nor text at place 0"),
        ((None, [b"text"]), "missing_field", "images is null"),
        ((["u"], [None], [None, None]), "malformed", "metadata has another length"),
        (([None], [b" "]), "empty_text", "texts[0] is empty"),
    ],
)
def test_a_page_of_another_shape_is_bad(tmp_path, row, reason, told):
    good = ([None], [b"good"])
    records = [*read("obelics", write(tmp_path / "a.parquet", [good, row, good]))]
    assert records[0].texts == records[-1].texts == ("good",)
    assert records[1].reason == reason
    assert told in records[1].detail


def test_a_bad_text_is_left_out_and_told_while_the_rest_of_its_page_stays(tmp_path):
    row = (["u1", None, "u2", None], [None, b"caf\xe9", None, b"end"])
    bad, document = read("obelics", write(tmp_path / "a.parquet", [row]), image_folder="/images")
    assert (bad.part, bad.reason) == (1, "encoding")
    assert document.parts == (RawImage(None, "/images/u1"), RawImage(None, "/images/u2"), "end")


def test_a_parquet_of_other_columns_is_told(tmp_path):
    pq.write_table(pa.table({"image": ["u"], "caption": ["text"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="expected a column 'images', found image, caption"):
        [*read("obelics", str(tmp_path))]
