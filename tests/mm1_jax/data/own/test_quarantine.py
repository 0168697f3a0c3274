from __future__ import annotations

import json

import pytest
from raw_files import write_lines

from ablations.errors import UserError
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.quarantine import Quarantine, Quota
from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage


def test_every_bad_record_is_listed_with_shard_index_and_reason(tmp_path):
    lines = [
        {"text": "one"},
        b'{"text": "\xff"}',
        {"text": ""},
        b"{",
        {"text": "two"},
        {"text": ""},
    ]
    shard = str(write_lines(tmp_path / "a.jsonl", lines))
    with Quarantine(tmp_path / "bad" / "a.jsonl") as quarantine:
        kept = [document.texts[0] for document in quarantine.kept(read("jsonl", shard))]
    assert kept == ["one", "two"]
    listed = [
        json.loads(line)
        for line in (tmp_path / "bad" / "a.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(line["file"], line["index"], line["reason"]) for line in listed] == [
        (shard, 1, "encoding"),
        (shard, 2, "empty_text"),
        (shard, 3, "malformed"),
        (shard, 5, "empty_text"),
    ]
    assert listed[1]["detail"] == "text is empty"
    assert quarantine.seen == 6
    assert quarantine.bad == {"encoding": 1, "empty_text": 2, "malformed": 1}


def records(*bad: bool) -> list[RawDocument | BadRecord]:
    return [
        BadRecord(Origin("a", n), "empty_text", "text is empty")
        if is_bad
        else RawDocument(str(n), ("text",), Origin("a", n))
        for n, is_bad in enumerate(bad)
    ]


def test_more_than_the_quota_stops_with_one_line_that_says_where_to_look(tmp_path):
    path = tmp_path / "bad.jsonl"
    every_second = records(*[True, False] * 50)
    with Quarantine(path, Quota(share=0.4, minimum=10)) as quarantine:
        with pytest.raises(UserError) as told:
            [*quarantine.kept(every_second)]
        # What is named is written already.
        assert len(path.read_text(encoding="utf-8").splitlines()) == 11
    assert str(told.value) == (
        "11 of the first 21 records cannot be used (11 empty_text), more than the quota of 40.00%; "
        f"each is listed in {path}"
    )
    with Quarantine(path, Quota(share=0.6, minimum=10)) as quarantine:
        assert len([*quarantine.kept(every_second)]) == 50


def test_a_bad_beginning_within_the_minimum_stops_nothing(tmp_path):
    with Quarantine(tmp_path / "bad.jsonl", Quota(share=0.1, minimum=10)) as quarantine:
        assert len([*quarantine.kept(records(*[True] * 10, *[False] * 90))]) == 90


def test_bad_images_of_good_documents_have_the_same_quota_of_their_own(tmp_path):
    document = RawDocument("x", (RawImage(b"a"), RawImage(b"b"), "text"), Origin("a", 0))
    with Quarantine(tmp_path / "bad.jsonl", Quota(share=0.5, minimum=0)) as quarantine:
        [*quarantine.kept([document])]
        quarantine.add(BadRecord(Origin("a", 0), "truncated", "cut", part=0))
        assert not quarantine.bad
        assert quarantine.bad_images == {"truncated": 1}
        with pytest.raises(UserError, match="2 of the first 2 images cannot be used"):
            quarantine.add(BadRecord(Origin("a", 0), "truncated", "cut", part=1))


def test_images_that_match_no_sentence_are_counted(tmp_path):
    record = {
        "text_list": ["one"],
        "image_info": [{"raw_url": f"https://example.org/{n}.jpg"} for n in range(3)],
        "similarity_matrix": [[0.3], [0.2], [0.1]],
    }
    shard = str(write_lines(tmp_path / "a.jsonl", [record, {**record, "text_list": ["two"]}]))
    with Quarantine(tmp_path / "bad.jsonl") as quarantine:
        [*quarantine.kept(read("mmc4", shard))]
        [*quarantine.kept(read("mmc4", shard, min_similarity=0.5))]
    assert quarantine.left_out == {"no_sentence_left": 8, "below_similarity": 2}
    assert quarantine.seen_images == 2


def test_secrets_of_an_address_are_not_listed(tmp_path):
    listed = tmp_path / "bad.jsonl"
    origin = Origin("https://me:planted@host/a.tar?sig=planted", 3)
    with Quarantine(listed) as quarantine:
        quarantine.add(BadRecord(origin, "unreadable", "403, url='https://host/b?sig=planted'"))
    told = listed.read_text(encoding="utf-8")
    assert "planted" not in told
    assert json.loads(told)["file"] == "https://me:***@host/a.tar?sig=***"
