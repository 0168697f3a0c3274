from __future__ import annotations

import base64
import math
import zipfile
from itertools import permutations

import numpy as np
import pytest
from raw_files import picture, write_lines

from ablations.errors import UserError
from mm1_jax.data.own.formats import read
from mm1_jax.data.own.raw import RawImage


def record(similarity, **fields):
    similarity = np.asarray(similarity, float).tolist()
    infos = [
        {"image_name": f"{n}.jpg", "raw_url": f"https://example.org/{n}.jpg"}
        for n in range(len(similarity))
    ]
    texts = [f"sentence {n}" for n in range(len(similarity[0]))]
    return {
        "text_list": texts,
        "image_info": infos,
        "similarity_matrix": similarity,
        "url": "https://example.org",
        **fields,
    }


def image(number: int) -> RawImage:
    return RawImage(None, f"https://example.org/{number}.jpg")


def test_images_come_before_the_sentence_they_match_in_reading_order(tmp_path):
    similarity = [[0.1, 0.2, 0.3], [0.4, 0.1, 0.1]]
    file = str(write_lines(tmp_path / "a.jsonl", [record(similarity)]))
    (document,) = read("mmc4", file)
    assert document.parts == (image(1), "sentence 0", "sentence 1", image(0), "sentence 2")
    assert document.facts == {"left_out": {}, "url": "https://example.org"}


def test_no_two_images_share_a_sentence_and_the_summed_similarity_is_the_largest(tmp_path):
    draws = np.random.default_rng(0)
    for trial in range(20):
        similarity = draws.uniform(0.3, 0.5, (3, 4))
        file = write_lines(tmp_path / f"{trial}.jsonl", [record(similarity)])
        (document,) = read("mmc4", str(file))
        best = max(permutations(range(4), 3), key=lambda p: sum(similarity[range(3), p]))
        expected: list = []
        for sentence in range(4):
            expected += [image(best.index(sentence))] if sentence in best else []
            expected.append(f"sentence {sentence}")
        assert [*document.parts] == expected


def test_images_below_the_similarity_or_without_a_sentence_are_counted(tmp_path):
    file = str(write_lines(tmp_path / "a.jsonl", [record([[0.23], [0.2], [0.1]])]))
    (document,) = read("mmc4", file)
    assert document.parts == ("sentence 0",)
    assert document.facts["left_out"] == {"below_similarity": 1, "no_sentence_left": 2}
    (document,) = read("mmc4", file, min_similarity=0.23)
    assert document.parts == (image(0), "sentence 0")


def test_without_the_matrix_each_image_keeps_its_own_match(tmp_path):
    value = record([[0.0, 0.0], [0.0, 0.0]])
    del value["similarity_matrix"]
    for info, (sentence, similarity) in zip(value["image_info"], [(1, 0.3), (1, 0.4)], strict=True):
        info |= {"matched_text_index": sentence, "matched_sim": similarity}
    (document,) = read("mmc4", str(write_lines(tmp_path / "a.jsonl", [value])))
    assert document.parts == ("sentence 0", image(1), "sentence 1")
    assert document.facts["left_out"] == {"below_similarity": 1}


def test_images_are_bytes_addresses_or_names_below_a_folder(tmp_path):
    value = record(np.eye(3))
    value["image_info"][0]["image_base64"] = base64.b64encode(picture(7)).decode()
    del value["image_info"][1]["raw_url"]
    file = str(write_lines(tmp_path / "a.jsonl", [value]))
    (document,) = read("mmc4", file, image_folder="/images")
    inside, named = RawImage(picture(7), image(0).url), RawImage(None, "/images/1.jpg")
    assert document.images == (inside, named, RawImage(None, "/images/2.jpg"))
    (document,) = read("mmc4", file)
    assert document.images == (inside, RawImage(None, f"{tmp_path}/1.jpg"), image(2))


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        ({"similarity_matrix": [[math.nan, 0.1]]}, "not_a_number", "NaN"),
        ({"similarity_matrix": [[0.1]]}, "malformed", "1 × 1, expected 1 images × 2 sentences"),
        ({"similarity_matrix": [["x", 0.1]]}, "malformed", "no matrix of numbers"),
        ({"text_list": ["", "b"]}, "empty_text", "text_list[0] is empty"),
        ({"text_list": ["a\ud800", "b"]}, "encoding", "U+D800"),
        ({"text_list": "a"}, "malformed", "text_list is no list"),
        ({"text_list": [None, "b"]}, "missing_field", "text_list[0] is null"),
    ],
)
def test_a_bad_document_says_why(tmp_path, change, reason, told):
    good = record([[0.3, 0.1]])
    missing = {k: v for k, v in good.items() if k != "image_info"}
    lines = [good, {**good, **change}, b"{", b"\xff\xfe", missing, good]
    first, bad, *others, last = read("mmc4", str(write_lines(tmp_path / "a.jsonl", lines)))
    assert first.parts == last.parts
    assert bad.reason == reason
    assert told in bad.detail
    assert [other.reason for other in others] == ["malformed", "encoding", "missing_field"]


def test_an_image_that_is_none_is_told_and_the_others_are_assigned_without_it(tmp_path):
    value = record([[0.9, 0.8], [0.7, 0.1]])
    value["image_info"][0]["image_base64"] = "%%%"
    bad, document = read("mmc4", str(write_lines(tmp_path / "a.jsonl", [value])))
    assert (bad.reason, bad.part) == ("malformed", 0)
    assert document.parts == (image(1), "sentence 0", "sentence 1")


def test_zipped_shards_as_published(tmp_path):
    write_lines(tmp_path / "shard.jsonl", [record([[0.3, 0.1]])])
    with zipfile.ZipFile(tmp_path / "shard.jsonl.zip", "w") as archive:
        archive.write(tmp_path / "shard.jsonl", "shard.jsonl")
    (tmp_path / "shard.jsonl").unlink()
    (document,) = read("mmc4", str(tmp_path))
    assert document.texts == ("sentence 0", "sentence 1")


def test_json_lines_of_another_format_are_told(tmp_path):
    file = str(write_lines(tmp_path / "a.jsonl", [{"text": "x", "id": 1}]))
    with pytest.raises(UserError, match=r"expected MMC4 .* text_list, image_info; found text, id"):
        [*read("mmc4", file)]
