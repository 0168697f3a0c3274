"""Which images are not worth training on: the filters that MM1 is remembered to have used."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, PositiveInt

from ablations.schema import Config
from mm1_jax.data.own.duplicates import same_bytes


class ImageFilters(Config):
    """Limits on single images and on how often one occurs; null turns a filter off.

    Words are looked for in web addresses only, in any case: a local folder may be called icons.
    """

    max_aspect: float | None = Field(2.0, ge=1, description="longest side / shortest side")
    min_side_pixels: PositiveInt | None = Field(100, description="of the shortest side")
    max_side_pixels: PositiveInt | None = Field(10_000, description="of the longest side")
    max_file_bytes: PositiveInt | None = 20_000_000
    url_words: Annotated[tuple[str, ...], BeforeValidator(lambda words: words or ())] = (
        "logo",
        "button",
        "icon",
        "plugin",
        "widget",
    )
    max_occurrences: PositiveInt | None = Field(
        10, description="of the same bytes in all shards; what occurs more often is dropped wholly"
    )


def filtered(images: pa.Table, filters: ImageFilters) -> dict[str, np.ndarray]:
    """Reason → which images it applies to: bool [images]; one image may have several.

    `images` has the columns of `image_survey.SCHEMA`, of all shards. Bad images have no size: no
    filter applies to them.
    """
    good = images["bad"].is_null().to_numpy()
    width, height, size = (
        images[name].fill_null(1).to_numpy() for name in ("width", "height", "bytes")
    )
    longest, shortest = np.maximum(width, height), np.minimum(width, height)
    found: dict[str, np.ndarray] = {}
    if filters.max_aspect is not None:
        found["aspect"] = longest > filters.max_aspect * shortest
    if filters.min_side_pixels is not None:
        found["too_small"] = shortest < filters.min_side_pixels
    if filters.max_side_pixels is not None:
        found["too_large"] = longest > filters.max_side_pixels
    if filters.max_file_bytes is not None:
        found["file_too_large"] = size > filters.max_file_bytes
    if filters.url_words:
        words = "|".join(map(re.escape, filters.url_words))
        worded = re.compile(f"https?://.*({words})", re.IGNORECASE)
        addresses = images["url"].fill_null("").to_pylist()
        found["url_word"] = np.array([bool(worded.match(url)) for url in addresses], bool)
    if filters.max_occurrences is not None:
        found["repeated"] = occurrences(images) > filters.max_occurrences
    return {reason: where & good for reason, where in found.items()}


def occurrences(images: pa.Table) -> np.ndarray:
    """How often each image's bytes occur: int [images]; 0 for bad ones."""
    numbers = same_bytes(images)
    counts = np.bincount(numbers[numbers >= 0], minlength=1)
    return np.where(numbers >= 0, counts[numbers], 0)
