"""MMC4 JSONL: sentences of a web page, and images matched to them by CLIP similarity.

The images of a record are in no order. As OpenFlamingo does, they are assigned anew, one image a
sentence, among those that have bytes or an address; an image comes before its sentence.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mm1_jax.data.files.urls import absolute, folder_of
from mm1_jax.data.own.raw import BadRecord, Origin, RawDocument, RawImage, RecordError
from mm1_jax.data.own.readers import fields
from mm1_jax.data.own.readers.lines import objects

MIN_SIMILARITY = 0.24  # OpenFlamingo's recipe


def read(
    file: str, image_folder: str | None, min_similarity: float = MIN_SIMILARITY
) -> Iterator[RawDocument | BadRecord]:
    """One document a line. Its `facts["left_out"]` counts the images that were not assigned.

    An image is its bytes; else its file below `image_folder`, where one is given; else its address;
    else its file beside the shard.

    Raises:
        UserError: the file cannot be read, or its first object is of another format.
    """
    stem = PurePosixPath(file).name.partition(".")[0]
    for item in objects(file, ("text_list", "image_info"), "MMC4 JSON lines"):
        if isinstance(item, BadRecord):
            yield item
            continue
        origin, record = item
        try:
            yield from _document(stem, record, origin, image_folder, min_similarity)
        except RecordError as error:
            yield BadRecord(origin, error.reason, error.detail)


def _document(
    stem: str,
    record: Mapping[str, Any],
    origin: Origin,
    image_folder: str | None,
    min_similarity: float,
) -> Iterator[RawDocument | BadRecord]:
    sentences, infos = fields.entry(record, "text_list"), fields.entry(record, "image_info")
    for name, values in (("text_list", sentences), ("image_info", infos)):
        if not isinstance(values, list):
            raise RecordError("malformed", f"{name} is no list")
    similarity = _similarity(record, infos, len(sentences))
    beside = folder_of(absolute(origin.file))

    images: dict[int, RawImage] = {}
    for number, info in enumerate(infos):
        try:
            images[number] = _image(info, f"image_info[{number}]", image_folder, beside)
        except RecordError as error:
            yield BadRecord(origin, error.reason, error.detail, part=number)
    left_out: Counter[str] = Counter()
    before: dict[int, RawImage] = {}
    for number, sentence in _assigned(similarity, [*images]).items():
        if similarity[number, sentence] < min_similarity:
            left_out["below_similarity"] += 1
        else:
            before[sentence] = images[number]
    left_out["no_sentence_left"] = len(images) - len(before) - left_out["below_similarity"]

    parts: list[str | RawImage] = []
    for place, sentence in enumerate(sentences):
        if place in before:
            parts.append(before[place])
        parts.append(fields.text(sentence, f"text_list[{place}]"))
    if not parts:
        raise RecordError("empty_text", "text_list is empty")
    facts: dict[str, Any] = {"left_out": {k: n for k, n in left_out.items() if n}}
    if isinstance(record.get("url"), str):
        facts["url"] = record["url"]
    yield RawDocument(f"{stem}/{origin.index}", tuple(parts), origin, facts=facts)


def _similarity(record: Mapping[str, Any], infos: Sequence[Any], sentences: int) -> np.ndarray:
    """Images × sentences. A record without the matrix has each image's own match only."""
    if "similarity_matrix" in record:
        matrix = _matrix(record["similarity_matrix"])
        if len(infos) == 0 and matrix.size == 0:
            return np.zeros((0, sentences))
        if matrix.shape != (len(infos), sentences):
            raise RecordError(
                "malformed",
                f"similarity_matrix is {' × '.join(map(str, matrix.shape))}, expected "
                f"{len(infos)} images × {sentences} sentences",
            )
    else:
        matrix = np.full((len(infos), sentences), -1.0)
        for number, info in enumerate(infos):
            if not isinstance(info, dict):
                raise RecordError("malformed", f"image_info[{number}] is no object")
            sentence = fields.entry(info, "matched_text_index")
            if type(sentence) is not int or not 0 <= sentence < sentences:
                raise RecordError(
                    "malformed",
                    f"image_info[{number}] matches sentence {str(sentence)[:40]} of {sentences}",
                )
            value = fields.entry(info, "matched_sim")
            matrix[number, sentence] = _number(
                value, f"image_info[{number}].matched_sim is no number"
            )
    if not np.isfinite(matrix).all():
        raise RecordError("not_a_number", "a similarity is NaN or infinite")
    return matrix


def _matrix(rows: Any) -> np.ndarray:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise RecordError("malformed", "similarity_matrix is no matrix of numbers")
    if len({len(row) for row in rows}) > 1:
        raise RecordError("malformed", "similarity_matrix is no matrix of numbers")
    values = [
        [_number(value, "similarity_matrix is no matrix of numbers") for value in row]
        for row in rows
    ]
    return np.array(values, np.float64).reshape(len(rows), -1 if values else 0)


def _number(value: Any, otherwise: str) -> float:
    if type(value) not in (int, float):
        raise RecordError("malformed", otherwise)
    try:
        return float(value)
    except OverflowError:
        raise RecordError("not_a_number", "a similarity is larger than any float") from None


def _assigned(similarity: np.ndarray, images: list[int]) -> dict[int, int]:
    """Image → sentence, at most one each, of the largest summed similarity."""
    # Half a second to import: only who reads this format pays.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity[images], maximize=True)
    return {images[row]: int(column) for row, column in zip(rows, columns, strict=True)}


def _image(info: Any, what: str, image_folder: str | None, beside: str) -> RawImage:
    if not isinstance(info, dict):
        raise RecordError("malformed", f"{what} is no object")
    address = info.get("raw_url")
    address = address if isinstance(address, str) else ""
    folder = beside if image_folder is None else image_folder
    if info.get("image_base64"):
        try:
            return RawImage(base64.b64decode(info["image_base64"], validate=True), address)
        except (TypeError, ValueError, binascii.Error) as error:
            told = f"{what}.image_base64 is not base64: {error}"
            raise RecordError("malformed", told) from None
    if address and (image_folder is None or not info.get("image_name")):
        return fields.located(address, f"{what}.raw_url", folder)
    return fields.located(fields.entry(info, "image_name"), f"{what}.image_name", folder)
