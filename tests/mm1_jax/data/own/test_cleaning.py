from __future__ import annotations

import pyarrow as pa
import pytest
from raw_files import captioned, picture, write_tar

from mm1_jax.data.own.cleaning import CleaningConfig, cleaned, decide
from mm1_jax.data.own.filters import ImageFilters
from mm1_jax.data.own.formats import files, read_file
from mm1_jax.data.own.image_survey import survey, survey_images
from mm1_jax.data.own.quarantine import Quarantine, Quota
from mm1_jax.data.own.raw import Origin, RawDocument, RawImage

LOOSE = CleaningConfig(quota=Quota(share=1))


def sample(number: int, content: bytes, **facts):
    key, members = captioned(number, f"number {number}", **facts)
    return key, {**members, "jpg": content}


@pytest.fixture
def shards(tmp_path):
    """Two shards with something to drop for every reason."""
    good = [picture(n) for n in range(8)]
    write_tar(
        tmp_path / "b.tar",
        [
            sample(0, good[0]),
            sample(1, good[0]),  # a copy of the one before
            sample(2, good[1]),  # a copy of one in a.tar
            sample(3, picture(20, 300, 100), url="https://example.org/icon.jpg"),
            sample(4, picture(21, 120, 90)),
            sample(5, good[2], url="https://example.org/logo.jpg"),
        ],
    )
    write_tar(
        tmp_path / "a.tar",
        [
            sample(0, good[1]),
            sample(1, picture(1, 240, 200)),  # looks like the one before
            sample(2, good[3][:-100]),
            sample(3, good[4]),
            *(sample(n, good[5]) for n in range(10, 14)),
        ],
    )
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "x.png").write_bytes(picture(4, kind="PNG"))
    return tmp_path


def surveyed(shards, tars) -> pa.Table:
    tables = []
    for tar in tars:
        with Quarantine(shards / "bad.jsonl", LOOSE.quota) as quarantine:
            tables.append(survey(quarantine.kept(read_file("webdataset", tar)), quarantine))
    return pa.concat_tables(tables)


def test_everything_dropped_is_counted_with_its_reason_in_whichever_order_it_was_read(shards):
    config = CleaningConfig(filters=ImageFilters(max_occurrences=3))
    evaluation = survey_images(str(shards / "evaluation"))
    tars = files("webdataset", str(shards))
    expected = {
        "a.tar": {1: "near_copy", 2: "truncated", 3: "in_evaluation"}
        | dict.fromkeys(range(4, 8), "repeated"),
        "b.tar": {1: "exact_copy", 2: "exact_copy", 3: "aspect", 4: "too_small", 5: "url_word"},
    }
    for order in (tars, tars[::-1]):
        table = surveyed(shards, order)
        decisions = decide(table, config, evaluation)
        for tar in tars:
            found = {index: parts[0] for index, parts in decisions.of_file(tar).items()}
            assert found == expected[tar.rpartition("/")[2]]
        assert decisions.counts == {
            "repeated": 4,
            "exact_copy": 2,
            "near_copy": 1,
            "truncated": 1,
            "in_evaluation": 1,
            "aspect": 1,
            "too_small": 1,
            "url_word": 1,
        }
        copies = [
            (table["file"][n].as_py()[-5:], table["file"][of].as_py()[-5:])
            for n, of in enumerate(decisions.copy_of.tolist())
            if of >= 0
        ]
        assert sorted(copies) == [("a.tar", "a.tar"), ("b.tar", "a.tar"), ("b.tar", "b.tar")]


def test_a_copy_of_a_dropped_image_is_kept(tmp_path):
    # The first is dropped for its address; the second has the same bytes and a good address.
    tar = str(
        write_tar(
            tmp_path / "a.tar",
            [sample(0, picture(0), url="https://example.org/icon.png"), sample(1, picture(0))],
        )
    )
    decisions = decide(surveyed(tmp_path, [tar]), LOOSE)
    assert decisions.of_file(tar) == {0: {0: "url_word"}}


def test_what_is_switched_off_drops_nothing(shards):
    off = ImageFilters(max_aspect=None, min_side_pixels=None, url_words=(), max_occurrences=None)
    config = CleaningConfig(filters=off, exact_copies=False, near_copies=False)
    decisions = decide(surveyed(shards, files("webdataset", str(shards))), config)
    assert decisions.counts == {"truncated": 1}


IMAGES = tuple(RawImage(bytes([n]), str(n)) for n in range(3))


def document(*parts, answers=None) -> RawDocument:
    return RawDocument("x", parts, Origin("a", 0), answers)


def test_an_interleaved_document_loses_the_image_and_keeps_the_rest():
    page = document(IMAGES[0], "one", IMAGES[1], "two", IMAGES[2])
    kept = cleaned(page, {2: "aspect", 4: "too_small"}, LOOSE)
    assert isinstance(kept, RawDocument)
    assert kept.parts == (IMAGES[0], "one", "two")
    text = cleaned(page, {0: "aspect", 2: "aspect", 4: "too_small"}, LOOSE)
    assert isinstance(text, RawDocument)
    assert text.parts == ("one", "two")
    strict = CleaningConfig(text_left="drop")
    assert cleaned(page, {0: "aspect", 2: "aspect", 4: "too_small"}, strict) == "aspect"
    assert cleaned(page, {}, LOOSE) is page


def test_a_caption_without_its_image_and_a_conversation_without_one_of_its_are_dropped():
    assert cleaned(document(IMAGES[0], "a dog"), {0: "near_copy"}, LOOSE) == "near_copy"
    asked = document(IMAGES[0], IMAGES[1], "Which?", "The first.", answers=(False, True))
    assert cleaned(asked, {1: "aspect"}, LOOSE) == "aspect"


def test_null_turns_every_step_off():
    off = {"exact_copies": None, "near_copies": None, "filters": {"url_words": None}}
    config = CleaningConfig.model_validate(off)
    assert (config.exact_copies, config.near_copies, config.filters.url_words) == (False, False, ())
    for name in ImageFilters.model_fields:
        ImageFilters.model_validate({name: None})
