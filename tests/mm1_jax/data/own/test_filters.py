from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mm1_jax.data.own.filters import ImageFilters, filtered
from mm1_jax.data.own.image_survey import SCHEMA


def images(*rows: dict) -> pa.Table:
    usual = {"file": "a", "part": 0, "url": "", "bytes": 1000, "width": 200, "height": 200}
    return pa.Table.from_pylist(
        [
            {**usual, "index": n, "sha256": bytes([n]) * 32, "perceptual": n, **row}
            for n, row in enumerate(rows)
        ],
        SCHEMA,
    )


def dropped(table: pa.Table, filters: ImageFilters | None = None) -> dict[str, list[int]]:
    found = filtered(table, filters or ImageFilters())
    return {reason: np.flatnonzero(where).tolist() for reason, where in found.items()}


def test_the_limits_themselves_are_kept_and_what_lies_beyond_is_dropped():
    kept = images(
        {"width": 400},
        {"height": 400},
        {"width": 100, "height": 100},
        {"width": 10_000, "height": 5_000},
        {"bytes": 20_000_000},
    )
    assert not any(dropped(kept).values())
    beyond = images(
        {"width": 401},
        {"height": 401},
        {"width": 100, "height": 99},
        {"width": 10_001, "height": 6_000},
        {"bytes": 20_000_001},
    )
    assert dropped(beyond) == {
        "aspect": [0, 1],
        "too_small": [2],
        "too_large": [3],
        "file_too_large": [4],
        "url_word": [],
        "repeated": [],
    }


def test_words_are_looked_for_in_web_addresses_only_and_in_any_case():
    table = images(
        {"url": "https://example.org/LOGO.png"},
        {"url": "http://example.org/a.jpg?from=widget"},
        {"url": "/data/icons/dog.jpg"},
        {"url": "https://example.org/dog.jpg"},
        {"url": "s3://buttons/dog.jpg"},
        {"url": None},
    )
    assert dropped(table)["url_word"] == [0, 1]
    assert dropped(table, ImageFilters(url_words=("dog",)))["url_word"] == [3]
    assert dropped(table, ImageFilters(url_words=(".jpg?",)))["url_word"] == [1]


def test_bytes_that_occur_too_often_are_dropped_wholly():
    often = [{"sha256": b"x" * 32}] * 11
    seldom = [{"sha256": b"y" * 32}] * 10
    table = images(*often, *seldom)
    assert dropped(table)["repeated"] == [*range(11)]
    assert dropped(table, ImageFilters(max_occurrences=9))["repeated"] == [*range(21)]


def test_a_filter_that_is_null_is_off_and_bad_images_are_not_judged():
    table = images(
        {"width": 10_001, "height": 1, "bytes": 10**9, "url": "https://icon"},
        {"bad": "truncated", "sha256": None, "width": None, "height": None, "bytes": None},
    )
    off = ImageFilters(
        max_aspect=None,
        min_side_pixels=None,
        max_side_pixels=None,
        max_file_bytes=None,
        url_words=(),
        max_occurrences=None,
    )
    assert filtered(table, off) == {}
    assert all(rows in ([0], []) for rows in dropped(table).values())


def test_limits_that_cannot_be_meant_are_refused():
    for wrong in ({"max_aspect": 0.5}, {"min_side_pixels": 0}, {"min_side": 100}):
        with pytest.raises(ValidationError):
            ImageFilters.model_validate(wrong)
