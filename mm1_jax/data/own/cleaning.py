"""What is dropped from raw data, and why: filters, evaluation images and copies together.

Decided for all shards at once from the survey, so a document loses the same images whoever reads
it and in whichever order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as with_fields
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field

from ablations.schema import Config
from mm1_jax.data.own import duplicates
from mm1_jax.data.own.filters import ImageFilters, filtered
from mm1_jax.data.own.image_survey import PerceptualHash
from mm1_jax.data.own.quarantine import Quota
from mm1_jax.data.own.raw import RawDocument, RawImage

# Null turns a step off, as it does filters.
OrOff = Annotated[bool, BeforeValidator(lambda value: False if value is None else value)]


class CleaningConfig(Config):
    """Filters, copies, and how many bad records are endured.

    `exact_copies` and `near_copies` keep the first of each; `near_distance` (bits of 64) is also
    what is too near to an image of an evaluation.
    """

    filters: ImageFilters = ImageFilters()
    quota: Quota = Quota()
    exact_copies: OrOff = Field(True, description="drop images with the bytes of an earlier one")
    near_copies: OrOff = Field(True, description="drop images that look like an earlier one")
    near_distance: int = Field(4, ge=0, le=16, description="bits of 64 in which hashes may differ")
    perceptual_hash: PerceptualHash = "dhash"
    text_left: Literal["keep", "drop"] = Field(
        "keep", description="an interleaved document all of whose images were dropped"
    )


@dataclass(frozen=True)
class Decisions:
    """Why each image of the survey is dropped, in its rows' order; "" = it is kept.

    copy_of     row of the image that is kept instead, -1 = none
    """

    images: pa.Table
    reasons: np.ndarray
    copy_of: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Dropped images by reason, most first."""
        return dict(Counter(self.reasons[self.reasons != ""].tolist()).most_common())

    def of_file(self, file: str) -> dict[int, dict[int, str]]:
        """What one shard loses: index of the document → place of the image → reason."""
        files = self.images["file"].combine_chunks()
        named = files.dictionary.to_pylist()
        here = files.indices.to_numpy() == (named.index(file) if file in named else -1)
        rows = np.flatnonzero(here & (self.reasons != ""))
        found: dict[int, dict[int, str]] = {}
        chosen = self.images.take(rows)
        for index, part, reason in zip(
            chosen["index"].to_pylist(), chosen["part"].to_pylist(), self.reasons[rows], strict=True
        ):
            found.setdefault(index, {})[part] = str(reason)
        return found


def decide(
    images: pa.Table, config: CleaningConfig, evaluation: pa.Table | None = None
) -> Decisions:
    """Decide about every image of all shards (tables of `image_survey.survey`, one after another).

    The first reason counts: bad, in an evaluation, a filter, an exact copy, a near copy. A copy is
    one of an image that is kept, not of one that is dropped itself.
    """
    images = images.unify_dictionaries().combine_chunks()
    reasons = np.array(images["bad"].fill_null("").to_pylist(), dtype=object)
    copy_of = np.full(images.num_rows, -1, np.int64)

    def drop(reason: str, where: np.ndarray) -> None:
        reasons[where & (reasons == "")] = reason

    if evaluation is not None:
        near = duplicates.near_evaluation(images, evaluation, config.near_distance)
        drop("in_evaluation", near)
    for reason, where in filtered(images, config.filters).items():
        drop(reason, where)
    if config.exact_copies:
        copies = duplicates.exact_copies(images, reasons == "")
        copy_of = np.maximum(copy_of, copies)
        drop("exact_copy", copies >= 0)
    if config.near_copies:
        copies = duplicates.near_copies(images, reasons == "", config.near_distance)
        copy_of = np.maximum(copy_of, copies)
        drop("near_copy", copies >= 0)
    return Decisions(images, reasons, copy_of)


def cleaned(
    document: RawDocument, dropped: Mapping[int, str], config: CleaningConfig
) -> RawDocument | str:
    """The document without the images at the places `dropped`, or why nothing is left of it.

    An interleaved document loses the image, not its text. A pair of image and caption is nothing
    without the image; a conversation about images is not to be answered without one of them.
    """
    gone = {
        place: reason
        for place, reason in dropped.items()
        if place < len(document.parts) and isinstance(document.parts[place], RawImage)
    }
    if not gone:
        return document
    reason = min(gone.items())[1]
    parts = tuple(part for place, part in enumerate(document.parts) if place not in gone)
    if document.answers is not None or len(document.texts) < 1:
        return reason
    if len(gone) == len(document.images) and (
        len(document.parts) == 2 or config.text_left == "drop"
    ):
        return reason
    return with_fields(document, parts=parts)
