"""Whatever type or text stands in a field: a bad record or a document, never a traceback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import picture, write_lines, write_tar

from mm1_jax.data.own.formats import Format, read
from mm1_jax.data.own.quarantine import Quarantine, Quota
from mm1_jax.data.own.raw import BadRecord, RawDocument
from mm1_jax.data.own.readers import array_record, parquet_rows

ODD = [
    None,
    0,
    1,
    -1,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    True,
    False,
    [],
    [None],
    [[1]],
    ["human"],
    {},
    {"a": 1},
    {"bytes": 5, "path": 5},
    "",
    " ",
    "nan",
    "\ud800",
    "a\0b",
    "/etc/passwd",
    "../up.jpg",
    "file:///etc/passwd",
    "simplecache::file:///etc/passwd",
    "x" * 300,
    "http://[",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, the value itself too."""
    yield path
    listed = list(enumerate(value)) if isinstance(value, list) else []
    for key, inner in value.items() if isinstance(value, dict) else listed:
        yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], odd)
    return copy


def without(value: Any, path: tuple[Any, ...]) -> Any:
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = without(value[path[0]], path[1:])
    return copy


def variants(record: Any) -> list[Any]:
    """The record with each field replaced by each odd value, and without it."""
    changed = [replaced(record, path, odd) for path in places(record) for odd in ODD]
    return [*changed, *(without(record, path) for path in places(record) if path)]


def check(found: list[RawDocument | BadRecord], tmp_path: Path) -> None:
    """What every document promises, and that the quarantine takes the rest."""
    quota = Quota(share=1.0)
    with Quarantine(tmp_path / "quarantine.jsonl", quota) as quarantine:
        kept = list(quarantine.kept(found))
    for line in (tmp_path / "quarantine.jsonl").read_bytes().splitlines():
        assert len(line) < 3000
        json.loads(line)
    for document in kept:
        document.name.encode()
        for part in document.parts:
            if isinstance(part, str):
                part.encode()
                assert part.strip()
                continue
            assert isinstance(part.content, bytes | None)
            # Nothing of this machine but what is in the folder of the images.
            inside = part.url.startswith((f"{tmp_path}/", "http://", "https://"))
            assert part.content is not None or inside, part.url
        if document.answers is not None:
            assert len(document.answers) == len(document.texts)
            assert all(isinstance(answer, bool) for answer in document.answers)


CONVERSATION = {
    "id": "a",
    "image": ["a.jpg"],
    "conversations": [
        {"from": "human", "value": "<image>\nwhat?"},
        {"from": "gpt", "value": "a dog"},
    ],
}
MMC4 = {
    "text_list": ["one", "two"],
    "image_info": [{"image_name": "a.jpg", "raw_url": "http://a/b.jpg"}],
    "similarity_matrix": [[0.5, 0.3]],
    "url": "http://a",
}
MMC4_MATCHED = {
    "text_list": ["one", "two"],
    "image_info": [
        {
            "image_base64": base64.b64encode(b"picture").decode(),
            "matched_text_index": 1,
            "matched_sim": 0.5,
        }
    ],
}
LINES: list[tuple[Format, Any]] = [
    ("jsonl", {"text": "a dog"}),
    ("jsonl", {"image": "a.jpg", "caption": "a dog"}),
    ("mmc4", MMC4),
    ("mmc4", MMC4_MATCHED),
    ("conversations", CONVERSATION),
]


@pytest.mark.parametrize(("form", "record"), LINES)
def test_lines_with_odd_fields(tmp_path, form, record):
    path = write_lines(tmp_path / "a.jsonl", [record, *variants(record)])
    first, *rest = found = [*read(form, str(path))]
    assert isinstance(first, RawDocument)
    check(found, tmp_path)
    assert {one.origin.index for one in rest} == {*range(1, len(variants(record)) + 1)}


def test_a_list_of_odd_conversations_is_read_to_its_end(tmp_path):
    listed = [CONVERSATION, *variants(CONVERSATION), CONVERSATION]
    (tmp_path / "a.json").write_text(json.dumps(listed), encoding="utf-8")
    found = [*read("conversations", str(tmp_path / "a.json"))]
    check(found, tmp_path)
    assert isinstance(found[-1], RawDocument)
    assert found[-1].origin.index == len(listed) - 1


def test_a_turn_from_a_list_is_one_bad_record(tmp_path):
    odd = replaced(CONVERSATION, ("conversations", 0, "from"), ["human"])
    (tmp_path / "a.json").write_text(json.dumps([CONVERSATION, odd, CONVERSATION]), "utf-8")
    good, bad, next_good = read("conversations", str(tmp_path / "a.json"))
    assert isinstance(bad, BadRecord)
    assert (bad.origin.index, bad.reason) == (1, "malformed")
    assert bad.detail == "conversations[0] is from ['human'], expected human or gpt"
    assert isinstance(good, RawDocument)
    assert isinstance(next_good, RawDocument)


def test_samples_with_odd_members(tmp_path):
    said = {"caption": "a dog", "url": "http://a", "key": "0", "sha256": "0", "width": 5}
    samples = [
        (f"{n:05d}", {"jpg": picture(), "json": json.dumps(odd).encode()})
        for n, odd in enumerate(variants(said))
    ]
    names = ["\udcff", "nan", "a b", "[a]", "ü"]
    samples += [(name, {"jpg": picture(), "txt": b"a dog"}) for name in names]
    found = [*read("webdataset", str(write_tar(tmp_path / "a.tar", samples)))]
    check(found, tmp_path)
    assert len(found) == len(samples)
    assert [type(one).__name__ for one in found[-5:]] == ["BadRecord"] + ["RawDocument"] * 4


def test_array_records_with_odd_fields(tmp_path):
    pytest.importorskip("array_record")
    from array_record.python.array_record_module import ArrayRecordWriter

    record = {
        "name": "a",
        "parts": [{"image": b"picture", "url": "http://a"}, "what?", "a dog", {"url": "a.jpg"}],
        "answers": [False, True],
        "facts": {"left_out": {"a": 1}},
    }
    writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    odd = [v for v in variants(record) if not _has_huge(v)]
    for value in (record, *odd, {5: 5}, {b"a": 5}, [5]):
        writer.write(msgpack.packb(value, unicode_errors="surrogatepass"))
    writer.close()
    found = [*read("array_record", str(tmp_path / "a.array_record"))]
    assert isinstance(found[0], RawDocument)
    assert found[0].images[1].url == f"{tmp_path}/a.jpg"
    assert len(found) == len(odd) + 4
    check(found, tmp_path)


def _has_huge(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value == 10**400 or any(map(_has_huge, inner))


def test_an_answer_that_is_a_word_is_no_truth_value(tmp_path):
    pytest.importorskip("array_record")
    path = tmp_path / "a.array_record"
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(msgpack.packb({"name": "a", "parts": ["q", "a"], "answers": ["false", "true"]}))
    writer.close()
    (bad,) = array_record.read(str(path), "")
    assert isinstance(bad, BadRecord)
    assert bad.detail == "answers is no list of truth values"


TEXTS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "binary_view": pa.binary_view(),
    "category": pa.dictionary(pa.int8(), pa.string()),
    "large_category": pa.dictionary(pa.int32(), pa.large_string()),
}
OTHERS = {
    "integers": pa.array([1, 2, 3]),
    "null": pa.nulls(3),
    "floats": pa.array([1.5, float("nan"), None]),
    "truth": pa.array([True, False, None]),
    "lists": pa.array([["a"], [], None]),
    "objects": pa.array([{"a": 1}, None, {"a": 2}]),
    "times": pa.array([2**62, 1, 2], pa.timestamp("ns")),
    "bytes_that_are_numbers": pa.array([{"bytes": 5, "path": "a"}] * 3),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_and_paths_of_every_type_that_arrow_has(tmp_path, kind):
    def column(*values: str) -> pa.Array:
        return pa.array(values).cast(TEXTS[kind])

    file = tmp_path / "a.parquet"
    table = {"image": [b"p"] * 2, "caption": column("a", "b"), "url": column("u", "v")}
    pq.write_table(pa.table(table), file)
    found = [*read("parquet", str(file))]
    assert [(one.texts, one.images[0].url) for one in found] == [(("a",), "u"), (("b",), "v")]
    if "binary" in kind:
        return
    pq.write_table(pa.table({"image": column("0.jpg", "1.jpg"), "caption": ["a", "b"]}), file)
    found = [*read("parquet", str(file))]
    assert [one.images[0].url for one in found] == [f"{tmp_path}/0.jpg", f"{tmp_path}/1.jpg"]
    values = pa.array(["0.jpg", None, None, "1.jpg"]).cast(TEXTS[kind])
    images = pa.ListArray.from_arrays([0, None, 2, 4], values)
    texts = [[None, "t"], ["u"], ["v", None]]
    pq.write_table(pa.table({"images": images, "texts": texts}), file)
    first, missing, last = read("obelics", str(file))
    assert (first.images[0].url, first.texts) == (f"{tmp_path}/0.jpg", ("t",))
    assert missing.detail == "images is null"
    assert (last.texts, last.images[0].url) == (("v",), f"{tmp_path}/1.jpg")


@pytest.mark.parametrize("kind", OTHERS)
def test_columns_of_another_type_are_bad_records(tmp_path, kind):
    file, odd = tmp_path / "a.parquet", OTHERS[kind]
    usual = {"image": pa.array([b"p"] * 3), "caption": pa.array(["a"] * 3), "url": odd}
    pq.write_table(pa.table(usual), file)
    found = [*read("parquet", str(file))]
    assert kind == "times" or [one.images[0].url for one in found] == [""] * 3
    for name in ("image", "caption"):
        pq.write_table(pa.table({**usual, "url": ["u"] * 3, name: odd}), file)
        found = [*read("parquet", str(file))]
        assert found
        assert all(isinstance(one, BadRecord) for one in found)
    lists = {"images": [["a.jpg", None]] * 3, "texts": [[None, "t"]] * 3}
    for name in ("images", "texts", "metadata", "general_metadata"):
        pq.write_table(pa.table({**lists, name: odd}), file)
        check([*read("obelics", str(file))], tmp_path)
    pq.write_table(pa.table([["a"], ["b"], [b"p"]], names=["caption", "caption", "image"]), file)
    with pytest.raises(Exception, match="has several columns 'caption'"):
        [*read("parquet", str(file))]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("a.jpg", True),
        ("deep/a.jpg", True),
        ("http://example.org/a::b.jpg", True),
        ("s3://bucket/a.jpg", True),
        ("{top}/images/a.jpg", True),
        ("file://{top}/images/a.jpg", True),
        ("{top}/images/../a.jpg", False),
        ("{top}/images-2/a.jpg", False),
        ("{top}/a.jpg", False),
        ("../a.jpg", False),
        ("file:///etc/passwd", False),
        ("FILE:///etc/passwd", False),
        ("local:///etc/passwd", False),
        ("memory://a.jpg", False),
        ("simplecache::file:///etc/passwd", False),
        ("zip://a.jpg::/etc/passwd", False),
        ("s3://bucket/a::file:///etc/passwd", False),
    ],
)
def test_a_record_names_images_of_its_folder_and_of_the_web_alone(tmp_path, path, allowed):
    path = path.format(top=tmp_path)
    file = str(write_lines(tmp_path / "a.jsonl", [{"image": path, "caption": "a dog"}]))
    (found,) = read("jsonl", file, image_folder=str(tmp_path / "images"))
    assert isinstance(found, RawDocument) == allowed
    if isinstance(found, BadRecord):
        assert found.reason == "outside"


def test_values_that_would_fill_the_memory_are_one_bad_record(tmp_path):
    bomb = b'{"text": [' + b"[]," * 6_000_000 + b"[]]}"
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}, bomb, {"text": "b"}])
    first, bad, last = read("jsonl", str(path))
    assert (first.texts, bad.reason, last.texts) == (("a",), "bomb", ("b",))


def test_one_value_for_all_rows_is_not_unpacked_for_all_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "_LIMIT_BYTES", 10_000_000)
    picture = pa.DictionaryArray.from_arrays([0] * 64, pa.array([bytes(5_000_000)]))
    table = pa.table({"image": picture, "caption": ["a"] * 64})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    before = pa.total_allocated_bytes()
    held = []
    for document in read("parquet", str(tmp_path / "a.parquet")):
        assert len(document.images[0].content) == 5_000_000
        held.append(pa.total_allocated_bytes() - before)
    assert len(held) == 64
    assert max(held) < 50_000_000
