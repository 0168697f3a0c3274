"""Documents → packed sequences of fixed budgets → batches laid out for an arm.

Packing fills a text budget T and an image budget I and knows nothing of tokens per image, so arms
that differ there see the same documents in the same order (`packing: budgets`). The paper's way,
filling a total length, makes the documents depend on the arm (`packing: total`).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ablations.errors import UserError
from mm1_jax.config.data import MixtureConfig
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.data.documents import DocumentTable

Batch = dict[str, np.ndarray]

SOURCES = tuple(MixtureConfig.model_fields)  # without a user's own

_LOOK_AHEAD = 256  # pieces


@dataclass(frozen=True)
class Budget:
    """What one sequence may hold. Without a `total`, tokens per image do not matter."""

    text: int
    images: int
    total: int | None = None
    tokens_per_image: int = 0

    def fits(self, text: int, images: int) -> bool:
        """Whether so many text tokens and images fit into one sequence."""
        return (
            text <= self.text
            and images <= self.images
            and (self.total is None or text + images * self.tokens_per_image <= self.total)
        )

    def fits_all(self, text: np.ndarray, images: np.ndarray) -> np.ndarray:
        """The same of many: int [n], int [n] → bool [n]."""
        fit = (text <= self.text) & (images <= self.images)
        if self.total is not None:
            fit &= text + images * self.tokens_per_image <= self.total
        return fit

    def text_room(self, images: int) -> int:
        """How many text tokens fit beside so many images, which fit."""
        if self.total is None:
            return self.text
        return min(self.text, self.total - images * self.tokens_per_image)


def budget_of(config: TrainConfig) -> Budget:
    """The packing budget that a config asks for. UserError if no image fits into the total."""
    data, k = config.data, config.image_tokens
    if data.total_tokens is None:
        return Budget(data.text_tokens, data.images)
    if k >= data.total_tokens:
        raise UserError(
            f"data.total_tokens {data.total_tokens} holds no image of {k} tokens with a text; "
            f"nearest possible: {k + 1}"
        )
    return Budget(data.text_tokens, data.images, data.total_tokens, k)


@dataclass(frozen=True)
class Pieces:
    """Documents, cut where one alone exceeds the budget. Arrays are int64 [pieces].

    Pieces of one document follow each other; each trains as a document of its own, and only the
    last one has the `<|end|>` token.
    """

    document: np.ndarray
    text_start: np.ndarray  # absolute, in DocumentTable.tokens
    text_end: np.ndarray
    image_start: np.ndarray  # absolute, in DocumentTable.images
    image_end: np.ndarray

    def __len__(self) -> int:
        return len(self.document)

    def take(self, order: np.ndarray) -> Pieces:
        """The same pieces in another order."""
        columns = (self.document, self.text_start, self.text_end, self.image_start, self.image_end)
        return Pieces(*(column[order] for column in columns))


def cut(table: DocumentTable, budget: Budget) -> Pieces:
    """Cut documents that exceed the budget; nothing is dropped.

    A cut falls before an image where there is one, so that an image stays with the text after it,
    and else where the text budget ends.
    """
    text, image = table.token_starts, table.image_starts
    whole = budget.fits_all(np.diff(text), np.diff(image))  # nearly all
    columns = np.stack([np.arange(len(table)), text[:-1], text[1:], image[:-1], image[1:]])
    rows = columns[:, whole]
    too_long = np.flatnonzero(~whole).tolist()
    if too_long:
        cut_rows = [row for document in too_long for row in _cut_one(table, document, budget)]
        rows = np.concatenate([rows, np.array(cut_rows, np.int64).T], axis=1)
        rows = rows[:, np.argsort(rows[0], kind="stable")]
    return Pieces(*(np.ascontiguousarray(column, np.int64) for column in rows))


def _cut_one(
    table: DocumentTable, document: int, budget: Budget
) -> Iterator[tuple[int, int, int, int, int]]:
    text, text_end = table.token_starts[document : document + 2].tolist()
    image, image_end = table.image_starts[document : document + 2].tolist()
    places = (text + table.image_at[image:image_end]).tolist()
    first_image = image
    while text < text_end or image < image_end:
        t, i = _piece_end(text, text_end, image - first_image, places, budget)
        yield document, text, t, image, first_image + i
        text, image = t, first_image + i


def _piece_end(
    text: int, text_end: int, image: int, places: list[int], budget: Budget
) -> tuple[int, int]:
    """Where the piece that starts at (text, image) ends. `places` are the images' text places."""
    t, i = text, image
    while True:
        stop = places[i] if i < len(places) else text_end
        t = max(t, min(stop, text + budget.text_room(i - image)))
        if t < stop:
            break
        if i == len(places):
            return t, i
        # An image goes in together with at least one token after it.
        if not budget.fits(t - text + (t < text_end), i + 1 - image):
            return (t, i) if (t, i) != (text, image) else (t, i + 1)
        i += 1
    # The budget ended within a run of text: go back to the last image, if that is any progress.
    boundary = [j for j in range(image, i) if places[j] > text]
    if boundary:
        j = places.index(places[boundary[-1]])
        return places[j], j
    return t, i


class ImageFile(NamedTuple):
    """Where an encoded image lies: in which shard of a source, and which bytes of its tar.

    Width and height are those of the upright image, in pixels.
    """

    shard: int
    offset: int
    size: int
    width: int
    height: int


@dataclass(frozen=True)
class Packed:
    """One sequence, the same in every arm. T text tokens and I image slots, filled from the left.

    tokens          int32 [T]   0 is padding
    segments        int32 [T]   the documents count from 1; 0 is padding
    image_ids       int32 [I]   row of the image table, or of `image_files`; -1 is an empty slot
    image_at        int32 [I]   the image stands before the text token with this index, 0…T
    image_segments  int32 [I]   the document that an image belongs to
    given           bool [T]    part of a question, bears no loss; None where nothing is
    image_views     int32 [I]   which view of the image, 0 is the whole; None where all are whole
    """

    tokens: np.ndarray
    segments: np.ndarray
    image_ids: np.ndarray
    image_at: np.ndarray
    image_segments: np.ndarray
    given: np.ndarray | None = None
    source: str = ""
    documents: tuple[str, ...] = ()
    image_views: np.ndarray | None = None
    image_files: tuple[ImageFile, ...] = ()  # of a user's own source


def fill(pieces: Pieces, budget: Budget) -> list[np.ndarray]:
    """Fill sequences in the given order: piece numbers of each sequence.

    A sequence takes the pieces in their order as long as they fit and leave it an image slot; what
    is then left is filled with the longest text that fits, out of the next `_LOOK_AHEAD` pieces,
    until none does. Of the text positions of the demo captions, 99 % are used so, where a strict
    order uses 77 % and the first piece that fits 97 %. UserError if a piece fits no empty sequence.
    """
    fits = budget.fits_all(
        pieces.text_end - pieces.text_start, pieces.image_end - pieces.image_start
    )
    if not fits.all():
        first = int(np.argmin(fits))
        raise UserError(
            f"document {pieces.document[first]} has "
            f"{pieces.text_end[first] - pieces.text_start[first]} text tokens and "
            f"{pieces.image_end[first] - pieces.image_start[first]} images in one piece, and an "
            f"empty sequence holds {budget.text} and {budget.images}"
            + (f", {budget.total} together" if budget.total is not None else "")
        )
    text = (pieces.text_end - pieces.text_start).tolist()
    images = (pieces.image_end - pieces.image_start).tolist()
    count, fewest_images = len(text), min(images, default=0)
    waiting: list[tuple[int, int]] = []  # (text tokens, piece), shortest first
    taken = bytearray(count)
    following = oldest = 0
    sequences = []

    def place_of_next(filled_text: int, filled_images: int) -> int | None:
        """Where in `waiting` the piece stands that goes into the sequence; None if none fits."""
        first_images = images[oldest]
        if budget.fits(filled_text + text[oldest], filled_images + first_images) and (
            not first_images or not filled_images or filled_images + first_images < budget.images
        ):
            return bisect.bisect_left(waiting, (text[oldest], oldest))
        if not budget.fits(filled_text, filled_images + fewest_images):
            return None
        room = budget.text_room(filled_images) - filled_text
        for place in range(bisect.bisect_right(waiting, (room, count)) - 1, -1, -1):
            piece = waiting[place][1]
            if budget.fits(filled_text + text[piece], filled_images + images[piece]):
                return place
        return None

    while oldest < count:
        chosen: list[int] = []
        filled_text = filled_images = 0
        while oldest < count:
            while len(waiting) < _LOOK_AHEAD and following < count:
                bisect.insort(waiting, (text[following], following))
                following += 1
            place = place_of_next(filled_text, filled_images)
            if place is None:
                break
            piece = waiting.pop(place)[1]
            taken[piece] = True
            filled_text += text[piece]
            filled_images += images[piece]
            chosen.append(piece)
            while oldest < count and taken[oldest]:
                oldest += 1
        sequences.append(np.array(chosen, np.int64))
    return sequences


def pack(
    table: DocumentTable, pieces: Pieces, chosen: np.ndarray, budget: Budget, source: str = ""
) -> Packed:
    """Put the chosen pieces, which must fit, into one sequence."""
    tokens, segments = np.zeros((2, budget.text), np.int32)
    given = np.zeros(budget.text, bool)
    image_ids = np.full(budget.images, -1, np.int32)
    image_at, image_segments = np.zeros((2, budget.images), np.int32)
    text = image = 0
    for segment, piece in enumerate(chosen.tolist(), start=1):
        start, end = pieces.text_start[piece], pieces.text_end[piece]
        more = int(end - start)
        tokens[text : text + more] = table.tokens[start:end]
        segments[text : text + more] = segment
        first, last = pieces.image_start[piece], pieces.image_end[piece]
        slots = slice(image, image + int(last - first))
        document = pieces.document[piece]
        cut_before = int(start - table.token_starts[document])
        given[text : text + more] = table.given[start:end]
        image_ids[slots] = table.images[first:last]
        image_at[slots] = table.image_at[first:last] - cut_before + text
        image_segments[slots] = segment
        text, image = text + more, slots.stop
    names = tuple(table.names[document] for document in pieces.document[chosen])
    return Packed(tokens, segments, image_ids, image_at, image_segments, given, source, names)


def with_views(sequence: Packed, counts: Sequence[int], slots: int) -> Packed:
    """Each image as its views, one after the other where the image stood, in so many slots.

    `counts` has the views of each slot of the sequence that holds an image. Text and documents
    stay as they are.
    """
    views = np.concatenate([np.arange(count, dtype=np.int32) for count in [0, *counts]])
    empty = slots - len(views)

    def spread(values: np.ndarray, filler: int) -> np.ndarray:
        return np.pad(np.repeat(values[: len(counts)], counts), (0, empty), constant_values=filler)

    return replace(
        sequence,
        image_ids=spread(sequence.image_ids, -1),
        image_at=spread(sequence.image_at, 0),
        image_segments=spread(sequence.image_segments, 0),
        image_views=np.pad(views, (0, empty)),
    )


def lay_out(
    sequences: Sequence[Packed],
    tokens_per_image: int,
    length: int | None = None,
    sources: Sequence[str] = SOURCES,
) -> Batch:
    """Lay sequences out for an arm with k tokens per image; S = `length` or T + I·k.

    tokens        int32 [B, T]    as packed
    gather        int32 [B, S]    index into concat(text embeddings [T], image tokens [I·k])
    segments      int32 [B, S]    document at each position, 0 for padding
    positions     int32 [B, S]    count from 0 in each document
    predictors    int32 [B, T]    the position in S that predicts text token t: the one before it
    loss_weights  float32 [B, T]  1 where text token t is predicted within its document, not given
    sources       int32 [B]       each sequence's place in `sources`, -1 if it has none

    One document of an image and two tokens, then one of three tokens; T = 6, I = 2, k = 2. The
    first token of the second document has nothing before it, so it bears no loss:

        text token t      0  1  2  3  4            image 0 stands before text token 0
        S position    0 1 2  3  4  5  6  7 8 9
        holds         a a t0 t1 t2 t3 t4 . . .
        gather        6 7 0  1  2  3  4  0 0 0
        segments      1 1 1  1  2  2  2  0 0 0
        positions     0 1 2  3  0  1  2  0 0 0
        predictors        1  2  0  4  5            (of t0 … t4)
        loss_weights      1  1  0  1  1
    """
    tokens = np.stack([sequence.tokens for sequence in sequences])
    text_segments = np.stack([sequence.segments for sequence in sequences])
    given = np.stack(
        [np.zeros(len(s.tokens), bool) if s.given is None else s.given for s in sequences]
    )
    image_ids = np.stack([sequence.image_ids for sequence in sequences])
    image_at = np.stack([sequence.image_at for sequence in sequences])
    image_segments = np.stack([sequence.image_segments for sequence in sequences])
    rows, text = tokens.shape
    images, k = image_ids.shape[1], tokens_per_image
    length = text + images * k if length is None else length

    # Before text token t stand t text tokens and the images placed at or before it; before image i
    # stand the text tokens up to its place and i images. What is not used goes to a column beyond
    # the end, which is then dropped.
    used = image_ids >= 0
    before = (used[:, None, :] & (image_at[:, None, :] <= np.arange(text)[:, None])).sum(-1)
    place_of_text = np.where(text_segments > 0, np.arange(text) + k * before, length)
    place_of_image = (image_at + k * np.arange(images))[:, :, None] + np.arange(k)
    place_of_image = np.where(used[:, :, None], place_of_image, length).reshape(rows, images * k)
    places = np.concatenate([place_of_text, place_of_image], axis=1)

    def placed(values: np.ndarray) -> np.ndarray:
        result = np.zeros((rows, length + 1), np.int32)
        np.put_along_axis(result, places, values.astype(np.int32), axis=1)
        return np.ascontiguousarray(result[:, :length])

    gather = placed(np.broadcast_to(np.arange(text + images * k), places.shape))
    segments = placed(np.concatenate([text_segments, np.repeat(image_segments, k, axis=1)], axis=1))
    index = np.arange(length)
    first = np.ones_like(segments, bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    start = np.maximum.accumulate(np.where(first, index, 0), axis=1)
    positions = np.where(segments > 0, index - start, 0).astype(np.int32)

    places_of_source = {source: place for place, source in enumerate(sources)}
    predictors = np.maximum(place_of_text - 1, 0)
    previous = np.take_along_axis(segments, predictors, axis=1)
    predicted = (text_segments > 0) & (place_of_text > 0) & (previous == text_segments)
    return {
        "tokens": tokens,
        "gather": gather,
        "segments": segments,
        "positions": positions,
        "predictors": np.where(predicted, predictors, 0).astype(np.int32),
        "loss_weights": (predicted & ~given).astype(np.float32),
        "sources": np.array([places_of_source.get(s.source, -1) for s in sequences], np.int32),
    }


def lay_out_texts(sequences: Sequence[Packed]) -> Batch:
    """Lay sequences without images out for the language model alone; S = T.

    As `lay_out`, less what says where images stand: text token t is predicted from t - 1.
    """
    batch = lay_out(sequences, tokens_per_image=0)
    return {name: batch[name] for name in ("tokens", "segments", "positions", "loss_weights")}
