from __future__ import annotations

import gzip
import random

import pytest
from raw_files import write_lines

from ablations.errors import UserError
from mm1_jax.data.files import urls
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.raw import BadRecord, Origin, RawImage


def test_texts_and_captioned_images(tmp_path):
    lines = [{"text": "long text"}, b"", {"image": "a/1.jpg", "caption": "a dog"}]
    file = str(write_lines(tmp_path / "a.jsonl", lines))
    text, pair = read("jsonl", file)
    assert text.parts == ("long text",)
    assert pair.parts == (RawImage(None, f"{tmp_path}/a/1.jpg"), "a dog")
    assert [document.origin for document in (text, pair)] == [Origin(file, 0), Origin(file, 2)]


def test_columns_of_other_names(tmp_path):
    lines = [{"img": "1.jpg", "alt": "a dog", "body": "long text"}, {"alt": "no image"}]
    file = str(write_lines(tmp_path / "a.jsonl", lines))
    pair, bad = read("jsonl", file, {"image": "img", "text": "alt"})
    assert pair.parts == (RawImage(None, f"{tmp_path}/1.jpg"), "a dog")
    assert (bad.reason, bad.detail) == ("missing_field", "no img; found alt")
    text, bad = read("jsonl", file, {"text": "body"})
    assert text.parts == ("long text",)
    assert bad.detail == "no body; found alt"


def test_one_column_named_leaves_the_others_their_names(tmp_path):
    lines = [{"image": "1.jpg", "text": "a dog"}, {"text": "a cat"}]
    file = str(write_lines(tmp_path / "a.jsonl", lines))
    pair, text = read("jsonl", file, {"text": "text"})
    assert pair.parts == (RawImage(None, f"{tmp_path}/1.jpg"), "a dog")
    assert text.parts == ("a cat",)
    alone, _ = read("jsonl", file, {"image": None})
    assert alone.parts == ("a dog",)
    with pytest.raises(UserError, match=r"columns\.text: null is not valid.* null may be: image"):
        [*read("jsonl", file, {"text": None})]


@pytest.mark.parametrize(
    ("line", "reason", "told"),
    [
        (b'{"text": NaN}', "not_a_number", "text is NaN"),
        (b'{"text": "NaN"}', "not_a_number", "text is 'NaN'"),
        (b'{"text": null}', "missing_field", "text is null"),
        (b'{"body": "x"}', "missing_field", "no text; found body"),
        (b'{"image": "1.jpg"}', "missing_field", "no caption; found image"),
        (b'{"text": 3}', "malformed", "text is a number, expected text"),
        (b'{"text": "x"', "malformed", "the line is not JSON"),
        (b"[1]", "malformed", "the line is no JSON object"),
        (b'{"text": "\\n "}', "empty_text", "text is empty"),
        (b'{"text": "caf\xe9"}', "encoding", "the line is not UTF-8: byte 0xe9 at 13"),
        (b'{"text": "half \\ud83d"}', "encoding", "U+D83D"),
        (b"[" * 100_000, "malformed", "the line is not JSON"),
        (b'{"text": "a", "text": "b"}', "malformed", "the line has the key 'text' twice"),
        (b'{"text": "a", "x": {"y": 1, "y": 1}}', "malformed", "the key 'y' twice in one object"),
    ],
)
def test_a_bad_line_says_why_and_the_next_is_read(tmp_path, line, reason, told):
    file = str(write_lines(tmp_path / "a.jsonl", [{"text": "one"}, line, {"text": "two"}]))
    first, bad, last = read("jsonl", file)
    assert isinstance(bad, BadRecord)
    assert (bad.origin, bad.reason) == (Origin(file, 1), reason)
    assert told in bad.detail
    assert "\n" not in bad.detail
    assert first.texts + last.texts == ("one", "two")


def test_lines_of_another_format_are_told(tmp_path):
    file = str(write_lines(tmp_path / "a.jsonl", [{"content": "x", "id": 1}]))
    with pytest.raises(UserError, match="with text, image, caption; found content, id"):
        [*read("jsonl", file)]


def test_compressed_shards_of_a_folder(tmp_path):
    write_lines(tmp_path / "b.jsonl", [{"text": "two"}])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'\xef\xbb\xbf{"text": "one"}\n'))
    assert [document.texts[0] for document in read("jsonl", str(tmp_path))] == ["one", "two"]


def test_a_damaged_compressed_shard_is_no_silent_end(tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "_CHUNK_BYTES", 4096)
    draws = random.Random(0)
    lines = b"".join(b'{"text": "%f"}\n' % draws.random() for _ in range(5000))
    content = gzip.compress(lines, 1)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content[: len(content) * 3 // 4])
    *good, bad = read("jsonl", str(path))
    assert 2500 < len(good) < 5000
    assert bad.reason == "truncated"
    assert "what follows is lost" in bad.detail
    assert bad.origin.index == len(good)
