from __future__ import annotations

import gzip
import json
import random

import pytest
from raw_files import write_lines

from ablations.errors import UserError
from mm1_jax.data.files import urls
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.raw import BadRecord, Origin, RawImage
from mm1_jax.data.own.readers import llava


def conversation(*turns, image="coco/1.jpg", name="000000001"):
    said = [{"from": speaker, "value": words} for speaker, words in turns]
    return {"id": name, "conversations": said} | ({"image": image} if image else {})


ASKED = conversation(
    ("human", "<image>\nWhat is it?"), ("gpt", "A dog."), ("human", "Sure?"), ("gpt", "Yes.")
)


def write(path, entries) -> str:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return str(path)


def test_only_answers_bear_loss_and_the_image_stands_at_its_place(tmp_path):
    (document,) = read("conversations", write(tmp_path / "a.json", [ASKED]), image_folder="/images")
    image = RawImage(None, "/images/coco/1.jpg")
    assert document.parts == (image, "What is it?", "A dog.", "Sure?", "Yes.")
    assert document.answers == (False, True, False, True)
    assert document.facts["roles"] == ("human", "gpt", "human", "gpt")
    assert document.name == "000000001"


def test_an_image_after_or_within_the_words_stays_there(tmp_path):
    after = conversation(("human", "What is it?\n<image>"), ("gpt", "A dog."))
    two = conversation(
        ("system", "Be brief."),
        ("human", "Is <image> larger than <image>?"),
        ("gpt", "It is written <image> here."),
        image=["1.jpg", "2.jpg"],
    )
    first, second = read("conversations", write(tmp_path / "a.json", [after, two]), image_folder="")
    assert first.parts == ("What is it?", RawImage(None, "coco/1.jpg"), "A dog.")
    assert second.parts == (
        "Be brief.",
        "Is ",
        RawImage(None, "1.jpg"),
        " larger than ",
        RawImage(None, "2.jpg"),
        "?",
        "It is written <image> here.",
    )
    assert second.answers == (False, False, False, False, True)


def test_text_alone_and_json_lines_are_conversations_too(tmp_path):
    entries = [conversation(("human", "Hi"), ("gpt", "Hello"), image=None), ASKED]
    listed = [*read("conversations", write(tmp_path / "a.json", entries), image_folder="")]
    assert listed[0].parts == ("Hi", "Hello")
    lines = str(write_lines(tmp_path / "a.jsonl", entries))
    assert [d.parts for d in read("conversations", lines, image_folder="")] == [
        d.parts for d in listed
    ]


@pytest.mark.parametrize(
    ("entry", "reason", "told"),
    [
        (conversation(("human", "What?"), ("gpt", "A dog.")), "malformed", "1 images, 0 <image>"),
        (
            conversation(("human", "<image> <image> ?"), ("gpt", "A dog.")),
            "malformed",
            "1 images, 2 <image>",
        ),
        (
            conversation(("human", "<image> ?"), ("gpt", "A dog."), image=None),
            "malformed",
            "0 images, 1 <image>",
        ),
        (conversation(("human", "<image>What?"), ("gpt", "")), "empty_text", "[1].value is empty"),
        (conversation(("human", "<image>What?")), "missing_field", "no turn is from gpt"),
        (conversation(("robot", "<image>What?")), "malformed", "from 'robot'"),
        ({"id": "1", "conversations": "x"}, "malformed", "conversations is no list"),
        ({"id": "1"}, "missing_field", "no conversations; found id"),
        (["x"], "malformed", "no JSON object"),
        (conversation(("human", "\x00"), ("gpt", "x")), "encoding", "U+0000"),
        (
            conversation(("human", "<image>"), ("gpt", "x"), image=7),
            "malformed",
            "image is a number",
        ),
    ],
)
def test_a_bad_conversation_says_why_and_the_next_is_read(tmp_path, entry, reason, told):
    file = write(tmp_path / "a.json", [ASKED, entry, ASKED])
    first, bad, last = read("conversations", file)
    assert isinstance(bad, BadRecord)
    assert (bad.origin, bad.reason) == (Origin(file, 1), reason)
    assert told in bad.detail
    assert first.parts == last.parts


def test_a_byte_that_is_no_utf_8_spoils_one_conversation(tmp_path):
    good = json.dumps(ASKED).encode()
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf[" + good.replace(b"A dog", b"A d\xf6g") + b"," + good + b"]")
    bad, document = read("conversations", str(path))
    assert bad.reason == "encoding"
    assert document.texts[1] == "A dog."


def test_a_long_list_is_read_piece_by_piece(tmp_path, monkeypatch):
    entries = [conversation(("human", f"<image>{n}"), ("gpt", "é" * n)) for n in range(1, 60)]
    file = write(tmp_path / "a.json", entries)
    (tmp_path / "b.json").write_text(
        json.dumps(entries, indent=2, ensure_ascii=False), encoding="utf-8"
    )
    whole = [document.parts for document in read("conversations", file, image_folder="")]
    assert len(whole) == 59
    for chunk in (1, 7, 64):
        monkeypatch.setattr(llava, "_CHUNK_BYTES", chunk)
        for name in ("a.json", "b.json"):
            pieces = read("conversations", str(tmp_path / name), image_folder="")
            assert [document.parts for document in pieces] == whole


@pytest.mark.parametrize("cut", [200, 450])
def test_a_list_that_ends_early_is_no_silent_end(tmp_path, cut):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([ASKED, ASKED, ASKED])[:cut], encoding="utf-8")
    *good, bad = read("conversations", str(path))
    assert bad.reason == "truncated"
    assert "what follows is lost" in bad.detail
    assert bad.origin.index == len(good)


@pytest.mark.parametrize("behind", ["[{}]", " ,", "\n" * 70 + "{", "]"])
def test_what_stands_behind_a_list_is_no_silent_loss(tmp_path, monkeypatch, behind):
    monkeypatch.setattr(llava, "_CHUNK_BYTES", 32)
    path = tmp_path / "a.json"
    path.write_text(f"{json.dumps([ASKED, ASKED])}\n{behind}\n", encoding="utf-8")
    first, second, bad = read("conversations", str(path))
    assert first.parts == second.parts
    assert (bad.reason, bad.origin.index) == ("truncated", 2)
    assert f"{behind.strip()!r} stands behind the end of the list" in bad.detail


def test_a_key_that_is_there_twice_spoils_its_conversation(tmp_path):
    turns = '[{"from": "human", "value": "a", "value": "b"}, {"from": "gpt", "value": "c"}]'
    said = f'{{"conversations": {turns}}}'
    path = tmp_path / "a.json"
    path.write_text(f"[{said}, {json.dumps(ASKED)}]", encoding="utf-8")
    bad, good = read("conversations", str(path))
    assert bad.detail == "the entry has the key 'value' twice in one object"
    assert good.name == ASKED["id"]
    path.write_text(said, encoding="utf-8")
    (bad,) = read("conversations", str(path))
    assert "the key 'value' twice" in bad.detail


def test_a_damaged_compressed_file_is_no_silent_end(tmp_path, monkeypatch):
    monkeypatch.setattr(urls, "_CHUNK_BYTES", 4096)
    monkeypatch.setattr(llava, "_CHUNK_BYTES", 4096)
    path = tmp_path / "a.json.gz"
    turns = [("human", f"<image>{random.Random(n).random()}") for n in range(2000)]
    entries = [conversation(turn, ("gpt", "Yes.")) for turn in turns]
    path.write_bytes(gzip.compress(json.dumps(entries).encode(), 1)[:-10_000])
    *good, bad = read("conversations", str(path))
    assert bad.reason == "truncated"
    assert bad.origin.index == len(good)
    path.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be decompressed"):
        [*read("conversations", str(tmp_path))]


def test_files_of_another_format_are_told(tmp_path):
    for content, told in [
        ("id,text\n", "expected a JSON list of conversations, found b'id,text"),
        ("", "expected a JSON list of conversations, found b''"),
        ('[{"question": "x", "id": 1}]', "expected conversations, found entries with question, id"),
        ('{"images": [], "annotations": []}', "with conversations; found images, annotations"),
    ]:
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserError) as error:
            [*read("conversations", str(tmp_path))]
        assert told in str(error.value)
