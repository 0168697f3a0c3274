"""Documents: images and text in reading order, and their tokenised form as flat arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm1_jax.data.draws import generator
from mm1_jax.data.tokenizer import Marker, Tokenizer


@dataclass(frozen=True)
class Document:
    """`parts` in reading order: an int is a row of the image table, all else is text.

    `answers` says of each text part whether it bears loss; None means that all do. A model has to
    answer questions, not to ask them, and learning to ask would take eight ninths of the gradient.
    Raises ValueError where there are not as many answers as text parts.
    """

    name: str
    parts: tuple[int | str | Marker, ...]
    answers: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        texts = sum(not isinstance(part, int) for part in self.parts)
        if self.answers is not None and len(self.answers) != texts:
            raise ValueError(f"{self.name}: {len(self.answers)} answers for {texts} text parts")


@dataclass(frozen=True)
class DocumentTable:
    """Tokenised documents as flat arrays, so that thousands load in milliseconds.

    Document d owns `tokens[token_starts[d]:token_starts[d + 1]]`, the last of them `<|end|>`, and
    likewise its images; `image_at` counts the document's own text tokens before the image.
    `<|end|>` always bears loss: to stop is part of the last answer.
    """

    names: list[str]
    tokens: np.ndarray  # int32 [tokens of all documents]
    token_starts: np.ndarray  # int64 [documents + 1]
    images: np.ndarray  # int32 [images of all documents], rows of the image table
    image_at: np.ndarray  # int32 [images of all documents]
    image_starts: np.ndarray  # int64 [documents + 1]
    given: np.ndarray  # bool [tokens of all documents], no part of an answer: bears no loss

    def __len__(self) -> int:
        return len(self.token_starts) - 1

    def tokens_of(self, document: int) -> np.ndarray:
        """Token ids of one document: int32 [its tokens]."""
        return self.tokens[self.token_starts[document] : self.token_starts[document + 1]]


def tokenize(documents: Sequence[Document], tokenizer: Tokenizer) -> DocumentTable:
    """Encode every text part and end every document with `<|end|>`."""
    # Each text once: questions and names come thousands of times.
    texts = list(dict.fromkeys(p for d in documents for p in d.parts if isinstance(p, str)))
    encoded = dict(zip(texts, tokenizer.encode_batch(texts), strict=True))
    tokens: list[int] = []
    images: list[int] = []
    image_at: list[int] = []
    token_starts, image_starts = [0], [0]
    given: list[bool] = []
    for document in documents:
        answers = itertools.repeat(True) if document.answers is None else iter(document.answers)
        for part in document.parts:
            if isinstance(part, int):
                images.append(part)
                image_at.append(len(tokens) - token_starts[-1])
                continue
            ids = [tokenizer.marker(part)] if isinstance(part, Marker) else encoded[part]
            tokens += ids
            given += [not next(answers)] * len(ids)
        tokens.append(tokenizer.end)
        given.append(False)
        token_starts.append(len(tokens))
        image_starts.append(len(images))
    return DocumentTable(
        names=[document.name for document in documents],
        tokens=np.array(tokens, np.int32),
        token_starts=np.array(token_starts, np.int64),
        images=np.array(images, np.int32),
        image_at=np.array(image_at, np.int32),
        image_starts=np.array(image_starts, np.int64),
        given=np.array(given, bool),
    )


def replaced(table: DocumentTable, other: DocumentTable, share: float) -> DocumentTable:
    """`share` of the documents as `other` has them, which holds the same in the same order.

    Which ones is drawn once, for all seeds; a larger share replaces the same and more.
    """
    order = generator(0, "replaced documents").permutation(len(table))
    taken = np.zeros(len(table), bool)
    taken[order[: round(share * len(table))]] = True

    def merged(values: str, starts: str) -> tuple[np.ndarray, np.ndarray]:
        rows = [np.split(getattr(t, values), getattr(t, starts)[1:-1]) for t in (table, other)]
        chosen = [rows[int(take)][number] for number, take in enumerate(taken)]
        ends = np.cumsum([0, *(len(row) for row in chosen)])
        return np.concatenate(chosen), ends.astype(np.int64)

    tokens, token_starts = merged("tokens", "token_starts")
    images, image_starts = merged("images", "image_starts")
    image_at, _ = merged("image_at", "image_starts")
    given, _ = merged("given", "token_starts")
    return DocumentTable(
        names=table.names,
        tokens=tokens,
        token_starts=token_starts,
        images=images,
        image_at=image_at,
        image_starts=image_starts,
        given=given,
    )


def write(table: DocumentTable, path: Path) -> None:
    """Write one Parquet row per document."""

    def lists(values: np.ndarray, starts: np.ndarray) -> pa.ListArray:
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(values))

    columns = {
        "name": pa.array(table.names, pa.string()),
        "tokens": lists(table.tokens, table.token_starts),
        "images": lists(table.images, table.image_starts),
        "image_at": lists(table.image_at, table.image_starts),
        "given": lists(table.given, table.token_starts),
    }
    pq.write_table(pa.table(columns), path)


def read(path: Path) -> DocumentTable:
    """Read what `write` wrote."""
    table = pq.read_table(path).combine_chunks()

    def column(name: str) -> pa.ListArray:
        chunks = table.column(name).chunks
        return chunks[0] if chunks else pa.array([], pa.list_(pa.int32()))

    tokens, images, image_at = column("tokens"), column("images"), column("image_at")
    return DocumentTable(
        names=table.column("name").to_pylist(),
        tokens=tokens.values.to_numpy(),
        token_starts=tokens.offsets.to_numpy().astype(np.int64),
        images=images.values.to_numpy(),
        image_at=image_at.values.to_numpy(),
        image_starts=images.offsets.to_numpy().astype(np.int64),
        given=column("given").values.to_numpy(zero_copy_only=False).astype(bool),
    )
