from __future__ import annotations

import msgpack
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from http_server import serving
from raw_files import picture

from ablations.errors import UserError
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage
from mm1_jax.data.own.readers import array_record

DOCUMENTS = [
    RawDocument("pair", (RawImage(picture()), "a dog"), Origin("x", 0)),
    RawDocument(
        "asked",
        (RawImage(None, "https://example.org/1.jpg"), "What is it?", "A dog."),
        Origin("x", 1),
        answers=(False, True),
        facts={"roles": ["human", "gpt"]},
    ),
] + [RawDocument(f"text {n}", (f"number {n}",), Origin("x", n)) for n in range(2, 200)]


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "a.array_record"
    array_record.write(DOCUMENTS, file)
    read_back = [*read("array_record", str(file))]
    assert [(d.name, d.parts, d.answers, dict(d.facts)) for d in read_back] == [
        (d.name, d.parts, d.answers, dict(d.facts)) for d in DOCUMENTS
    ]
    assert [d.origin for d in read_back] == [Origin(str(file), n) for n in range(200)]
    with serving(tmp_path) as server:
        there = [*read("array_record", f"{server.url}/a.array_record")]
    assert [d.parts for d in there] == [d.parts for d in DOCUMENTS]


@pytest.mark.parametrize(
    ("record", "reason", "told"),
    [
        (b"\xc1", "malformed", "not MessagePack"),
        (msgpack.packb([1]), "malformed", "no map"),
        (msgpack.packb({"name": "x"}), "missing_field", "no parts; found name"),
        (msgpack.packb({"name": "x", "parts": []}), "malformed", "parts is no list, or empty"),
        (msgpack.packb({"name": "x", "parts": [""]}), "empty_text", "parts[0] is empty"),
        (msgpack.packb({"name": "x", "parts": [float("nan")]}), "not_a_number", "parts[0] is NaN"),
        (msgpack.packb({"name": "x", "parts": [{}]}), "missing_field", "neither image nor url"),
        (
            msgpack.packb({"name": "x", "parts": [{"image": 3}]}),
            "malformed",
            "parts[0] is no image",
        ),
        (b"\x82\xa4name\xa1x\xa5parts\x91\xa2\xff\xfe", "encoding", "parts[0] has the code point"),
        (
            msgpack.packb({"name": "x", "parts": ["a"], "answers": [True, False]}),
            "malformed",
            "2 answers, 1 texts",
        ),
    ],
)
def test_a_bad_record_says_why_and_the_next_is_read(tmp_path, record, reason, told):
    good = msgpack.packb({"name": "good", "parts": ["text"]})
    path = str(tmp_path / "a.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for content in (good, record, good):
        writer.write(content)
    writer.close()
    first, bad, last = read("array_record", path)
    assert first.parts == last.parts == ("text",)
    assert (bad.origin, bad.reason) == (Origin(path, 1), reason)
    assert told in bad.detail


def test_what_is_no_array_record_is_told(tmp_path):
    for content in (b"", b"something else " * 10_000):
        (tmp_path / "a.array_record").write_bytes(content)
        with pytest.raises(UserError, match="expected an ArrayRecord file, found none"):
            [*read("array_record", str(tmp_path))]


def test_damaged_records_are_told_one_by_one(tmp_path):
    file = tmp_path / "a.array_record"
    array_record.write(
        [RawDocument(str(n), (f"{n} {picture(n)!r}",), Origin("x", n)) for n in range(100)], file
    )
    content = bytearray(file.read_bytes())
    content[100_000:100_010] = bytes(10)
    file.write_bytes(content)
    records = [*read("array_record", str(file))]
    (bad,) = [record for record in records if isinstance(record, BadRecord)]
    assert bad.reason == "unreadable"
    names = [record.name for record in records if not isinstance(record, BadRecord)]
    assert names == [str(n) for n in range(100) if n != bad.origin.index]
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="expected an ArrayRecord file, found none"):
        [*read("array_record", str(file))]
