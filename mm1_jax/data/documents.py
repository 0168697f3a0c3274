"""Documents: images and text in reading order, and their tokenised form as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mm1_jax.data.draws import generator
from mm1_jax.data.tokenizer import END, Tokenizer


@dataclass(frozen=True)
class Document:
    """`parts` in reading order: an int is a row of the image table, a str is text.

    The text of the first `given` parts bears no loss: a model has to answer questions, not to ask
    them, and learning to ask would take eight ninths of the gradient.
    """

    name: str
    parts: tuple[int | str, ...]
    given: int = 0


@dataclass(frozen=True)
class DocumentTable:
    """Tokenised documents as flat arrays, so that thousands load in milliseconds.

    Document d owns `tokens[token_starts[d]:token_starts[d + 1]]`, the last of them `<|end|>`, and
    likewise its images; `image_at` counts the document's own text tokens before the image.
    """

    names: list[str]
    tokens: np.ndarray  # int32 [tokens of all documents]
    token_starts: np.ndarray  # int64 [documents + 1]
    images: np.ndarray  # int32 [images of all documents], rows of the image table
    image_at: np.ndarray  # int32 [images of all documents]
    image_starts: np.ndarray  # int64 [documents + 1]
    given: np.ndarray  # int32 [documents], leading text tokens that bear no loss

    def __len__(self) -> int:
        return len(self.names)

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
    given: list[int] = []
    for document in documents:
        given.append(0)
        for number, part in enumerate(document.parts):
            if number == document.given:
                given[-1] = len(tokens) - token_starts[-1]
            if isinstance(part, str):
                tokens.extend(encoded[part])
            else:
                images.append(part)
                image_at.append(len(tokens) - token_starts[-1])
        tokens.append(END)
        token_starts.append(len(tokens))
        image_starts.append(len(images))
    return DocumentTable(
        names=[document.name for document in documents],
        tokens=np.array(tokens, np.int32),
        token_starts=np.array(token_starts, np.int64),
        images=np.array(images, np.int32),
        image_at=np.array(image_at, np.int32),
        image_starts=np.array(image_starts, np.int64),
        given=np.array(given, np.int32),
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
    return DocumentTable(
        names=table.names,
        tokens=tokens,
        token_starts=token_starts,
        images=images,
        image_at=image_at,
        image_starts=image_starts,
        given=np.where(taken, other.given, table.given).astype(np.int32),
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
        "given": pa.array(table.given),
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
        given=table.column("given").to_numpy(),
    )
