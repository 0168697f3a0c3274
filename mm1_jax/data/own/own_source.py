"""A user's own prepared documents: which there are, and what a packed sequence needs of them.

Nothing is held for longer than it takes: the index of one window of shards, which packing goes
through, and the decoded images that were used last. Texts and images are ranges of files that are
read when a sequence is packed or laid out.
"""

from __future__ import annotations

import io
import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ablations.errors import UserError
from mm1_jax.config.data import DataConfig
from mm1_jax.data.batches.packing import Budget, ImageFile, Packed, Pieces, pack
from mm1_jax.data.documents import DocumentTable
from mm1_jax.data.files.folder import Folder, Range
from mm1_jax.data.own.manifest import (
    index_name,
    read_manifest,
    read_shards,
    sha256,
    tar_name,
    tokens_name,
)
from mm1_jax.data.own.suitability import check_filled, check_kind, check_template
from mm1_jax.data.tokenizer import tokenizer_file
from mm1_jax.images.pictures import STORED_FORMATS, PictureError, upright_rgb
from mm1_jax.images.sub_images import ImageViews

_CACHED_PIXELS = 256 * 2**20  # bytes of decoded images, per process and source
_IMAGE_COLUMNS = ["image_offset", "image_bytes", "image_width", "image_height"]
_INDEX_COLUMNS = ["text_tokens", "image_at", *_IMAGE_COLUMNS, "given"]


@dataclass(frozen=True)
class Window:
    """The index of some shards, whose documents are shuffled and packed together.

    `outline` counts tokens and images through all of them and holds no token. Per document 28
    bytes, per image 36: a million captions with an image each take 64 MB.
    """

    outline: DocumentTable
    shards: np.ndarray  # int32 [shards], their numbers
    first_documents: np.ndarray  # int64 [shards + 1], counted through the window
    images: np.ndarray  # int64 [images, 4]: place and bytes in the shard's tar, width, height
    given: np.ndarray  # int32 [n], places in a document's text where loss goes off and on again
    given_starts: np.ndarray  # int64 [documents + 1]

    def shard_of(self, document: int) -> int:
        """Which of `shards` a document is in, by place."""
        return int(np.searchsorted(self.first_documents, document, side="right")) - 1

    def toggles(self, document: int) -> np.ndarray:
        """Where in a document's text loss goes off and on again."""
        first, last = self.given_starts[document : document + 2].tolist()
        return self.given[first:last]

    def image_file(self, image: int, document: int) -> ImageFile:
        """Where an image of a document is; both counted through the window."""
        shard = int(self.shards[self.shard_of(document)])
        return ImageFile(shard, *self.images[image].tolist())


class OwnSource:
    """The prepared documents of one source of the mixture."""

    def __init__(self, name: str, folder: str):
        self.name = name
        self.folder = Folder(folder)
        self.manifest = read_manifest(folder)
        self._shards = read_shards(self.folder, self.manifest)
        self._token_type = np.dtype(self.manifest.token_type).newbyteorder("<")
        self._pixels = _Pixels()

    @property
    def shard_documents(self) -> list[int]:
        """How many documents each shard has."""
        return [shard.documents for shard in self._shards]

    @property
    def shard_images(self) -> list[int]:
        """How many images each shard has."""
        return [shard.images for shard in self._shards]

    @property
    def text_tokens(self) -> int:
        """All documents' text tokens."""
        return self.manifest.text_tokens

    def window(self, shards: Sequence[int]) -> Window:
        """Read the index of some shards."""
        columns: dict[str, list[np.ndarray]] = {}
        documents = [0]
        for shard in shards:
            content = self.folder.read(index_name(self._shards[shard].name))
            table = pq.read_table(io.BytesIO(content), columns=_INDEX_COLUMNS).combine_chunks()
            documents.append(documents[-1] + len(table))
            for name in _INDEX_COLUMNS:
                (column,) = table.column(name).chunks or [None]
                if column is None:
                    continue
                if name == "text_tokens":
                    columns.setdefault(name, []).append(column.to_numpy())
                    continue
                columns.setdefault(name, []).append(column.flatten().to_numpy())
                columns.setdefault(f"{name}_count", []).append(np.diff(column.offsets.to_numpy()))

        def joined(name: str, kind: type) -> np.ndarray:
            return np.concatenate([np.zeros(0, kind), *columns.get(name, [])]).astype(kind)

        def starts(name: str) -> np.ndarray:
            return np.concatenate([np.zeros(1, np.int64), np.cumsum(joined(name, np.int64))])

        outline = DocumentTable(
            names=[],
            tokens=np.zeros(0, np.int32),
            token_starts=starts("text_tokens"),
            images=np.zeros(0, np.int32),
            image_at=joined("image_at", np.int32),
            image_starts=starts("image_at_count"),
            given=np.zeros(0, bool),
        )
        return Window(
            outline=outline,
            shards=np.array(shards, np.int32),
            first_documents=np.array(documents, np.int64),
            images=np.stack([joined(name, np.int64) for name in _IMAGE_COLUMNS], axis=1),
            given=joined("given", np.int32),
            given_starts=starts("given_count"),
        )

    def pack(self, window: Window, pieces: Pieces, chosen: np.ndarray, budget: Budget) -> Packed:
        """Read the texts of the chosen pieces of a window and put them into one sequence."""
        outline = window.outline
        ranges, given, names = [], [], []
        image_at, image_starts, files = [], [0], []
        for piece in chosen.tolist():
            document = int(pieces.document[piece])
            start, end = int(pieces.text_start[piece]), int(pieces.text_end[piece])
            place = window.shard_of(document)
            shard_name = self._shards[int(window.shards[place])].name
            in_shard = document - int(window.first_documents[place])
            names.append(f"{self.name}/{shard_name}/{in_shard:06d}")
            ranges.append(self._text(window, document, start, end))
            before = start - int(outline.token_starts[document])
            given.append(_given(window.toggles(document), before, end - start))
            for image in range(int(pieces.image_start[piece]), int(pieces.image_end[piece])):
                image_at.append(int(outline.image_at[image]) - before)
                files.append(window.image_file(image, document))
            image_starts.append(len(image_at))
        tokens = self._read(ranges)
        lengths = [0, *(len(one) for one in tokens)]
        table = DocumentTable(
            names=names,
            tokens=np.concatenate([np.zeros(0, np.int32), *tokens]).astype(np.int32),
            token_starts=np.cumsum(lengths),
            images=np.arange(len(files), dtype=np.int32),
            image_at=np.array(image_at, np.int32),
            image_starts=np.array(image_starts, np.int64),
            given=np.concatenate([np.zeros(0, bool), *given]),
        )
        everything = Pieces(
            np.arange(len(chosen)),
            *(table.token_starts[:-1], table.token_starts[1:]),
            *(table.image_starts[:-1], table.image_starts[1:]),
        )
        packed = pack(table, everything, np.arange(len(chosen)), budget, self.name)
        return replace(packed, image_files=tuple(files))

    def answers(self, window: Window, documents: Sequence[int]) -> list[np.ndarray]:
        """What bears loss of some documents of a window, without the `<|end|>`: token ids of each.

        Of captions that is the caption, whatever words stand before it.
        """
        starts = window.outline.token_starts
        places = [(one, int(starts[one]), int(starts[one + 1]) - 1) for one in documents]
        texts = self._read([self._text(window, *place) for place in places])
        return [
            tokens[~_given(window.toggles(document), 0, len(tokens))].astype(np.int32)
            for tokens, (document, _, _) in zip(texts, places, strict=True)
        ]

    def _text(self, window: Window, document: int, start: int, end: int) -> Range:
        """Where the tokens from `start` to before `end` are, counted through the window."""
        place, size = window.shard_of(document), self._token_type.itemsize
        before = int(window.outline.token_starts[window.first_documents[place]])
        name = tokens_name(self._shards[int(window.shards[place])].name)
        return Range(name, (start - before) * size, (end - before) * size)

    def _read(self, texts: Sequence[Range]) -> list[np.ndarray]:
        return [np.frombuffer(read, self._token_type) for read in self.folder.read_ranges(texts)]

    def images(self, files: Sequence[ImageFile], seen: ImageViews) -> list[np.ndarray]:
        """The views of images: uint8 [views, size, size, 3] each.

        Fetched side by side. UserError names an image that cannot be decoded: it could when the
        shard was written, so the shard is damaged.
        """
        kept = {file: self._pixels.get((file, seen)) for file in files}
        found = {file: pixels for file, pixels in kept.items() if pixels is not None}
        missing = [file for file in kept if file not in found]
        ranges = [Range(self._tar(f), f.offset, f.offset + f.size) for f in missing]
        for file, content in zip(missing, self.folder.read_ranges(ranges), strict=True):
            try:
                pixels = seen.of(upright_rgb(content, seen.background, STORED_FORMATS))
            except PictureError as error:
                raise UserError(
                    f"{self.folder.place(self._tar(file))}: the image at byte {file.offset} "
                    f"cannot be decoded ({error}); `mm1 data validate` says what is damaged"
                ) from None
            self._pixels.put((file, seen), pixels)
            found[file] = pixels
        return [found[file] for file in files]

    def _tar(self, file: ImageFile) -> str:
        return tar_name(self._shards[file.shard].name)


def opened_source(name: str, data: DataConfig, prepared: Path | None) -> OwnSource:
    """One of `data.sources`.

    UserError where its folder holds another kind, or conversations in other words than the run's,
    or other token ids than those of its tokenizer, which is in `prepared`; null where no texts are
    read.
    """
    own = OwnSource(name, data.sources[name].folder)
    check_kind(name, data.sources[name], own.manifest)
    check_filled(f"data.sources.{name}: {own.folder.url}", own.manifest)
    if prepared is not None:
        check_template(name, own.folder.url, own.manifest, data.template, "the run's template")
        tokenizer = tokenizer_file(prepared)
        if sha256(tokenizer.read_bytes()) != own.manifest.tokenizer.sha256:
            raise UserError(
                f"data.sources.{name}: {own.folder.url} was tokenised by another tokenizer (of "
                f"{own.manifest.tokenizer.vocabulary} tokens) than this run's: prepare it again "
                f"with `tokenizer: {tokenizer}`"
            )
    return own


class _Pixels:
    """The images that were decoded last, up to some bytes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[ImageFile, ImageViews], np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[ImageFile, ImageViews]) -> np.ndarray | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: tuple[ImageFile, ImageViews], pixels: np.ndarray) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = pixels
            self._bytes += pixels.nbytes
            while self._bytes > _CACHED_PIXELS:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def _given(toggles: np.ndarray, before: int, length: int) -> np.ndarray:
    """bool [length] of a piece that starts `before` tokens into its document."""
    given = np.zeros(length, bool)
    places = [min(max(place - before, 0), length) for place in toggles.tolist()]
    for start, end in itertools.zip_longest(places[::2], places[1::2], fillvalue=length):
        given[start:end] = True
    return given
