"""The prepared images: memory-mapped at native size, resized once per process and size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from mm1_jax.data.batches.packing import Packed, with_views
from mm1_jax.images.sub_images import ImageViews


class ImageTable:
    """All images of a prepared folder; an image id is a row number of `images.parquet`."""

    def __init__(self, folder: Path):
        index = pq.read_table(folder / "images.parquet").to_pydict()
        arrays = {
            file: np.load(folder / file, mmap_mode="r") for file in dict.fromkeys(index["file"])
        }
        self.names: list[str] = index["name"]
        self._native = [arrays[f][row] for f, row in zip(index["file"], index["row"], strict=True)]
        self._seen: dict[ImageViews, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def native(self, image_id: int) -> np.ndarray:
        """One image as it was prepared: uint8 [height, width, 3]."""
        return self._native[image_id]

    def at_size(self, image_ids: np.ndarray, size: int) -> np.ndarray:
        """Whole images squashed to `size` pixels a side: int [...] → uint8 [..., size, size, 3].

        As `views`.
        """
        return self.views(image_ids, np.zeros_like(image_ids), ImageViews(size))

    def views(self, image_ids: np.ndarray, which: np.ndarray, seen: ImageViews) -> np.ndarray:
        """Views of images: int [...] and int [...] → uint8 [..., size, size, 3].

        Id -1 is black. Bicubic with antialiasing (Pillow) on first use, a copy later.
        """
        if seen not in self._seen:
            # The last row is never written: -1 reads it, and it is black.
            shape = (len(self) + 1, seen.most, seen.size, seen.size, 3)
            self._seen[seen] = np.zeros(shape, np.uint8), np.zeros(len(self) + 1, bool)
            self._seen[seen][1][-1] = True
        pixels, ready = self._seen[seen]
        if not ready[image_ids].all():
            for image_id in np.unique(image_ids[~ready[image_ids]]):
                views = seen.of(Image.fromarray(self.native(image_id)))
                pixels[image_id, : len(views)] = views
                ready[image_id] = True
        return pixels[image_ids, which]

    def in_views(
        self, sequence: Packed, seen: ImageViews, slots: int, sharp: int | None = None
    ) -> Packed:
        """A sequence whose images stand as all their views, in so many slots.

        With `sharp`, only the last so many do, and those before as their overview alone: mixed
        resolution, for prompts that would be too long otherwise (MM1 §7).
        """
        if seen.most == 1:
            return sequence
        shapes = [self.native(image_id).shape for image_id in sequence.image_ids if image_id >= 0]
        return sharp_views(sequence, [(wide, high) for high, wide, _ in shapes], seen, slots, sharp)


def sharp_views(
    sequence: Packed,
    sizes: Sequence[tuple[int, int]],
    seen: ImageViews,
    slots: int,
    sharp: int | None = None,
) -> Packed:
    """As `ImageTable.in_views`, of images of these sizes (width, height)."""
    blurred = 0 if sharp is None else max(0, len(sizes) - sharp)
    counts = [seen.count(*size) for size in sizes]
    return with_views(sequence, [1] * blurred + counts[blurred:], slots)


def view_slots(images: int, views: int, sharp: int | None = None) -> int:
    """Slots that suffice for so many images of at most so many views, the last `sharp` in all."""
    in_all = images if sharp is None else min(images, sharp)
    return images - in_all + in_all * views


def image_views(sequences: Sequence[Packed]) -> tuple[np.ndarray, np.ndarray]:
    """Image ids and which views of them: each int32 [sequences, slots]."""
    return (
        np.stack([sequence.image_ids for sequence in sequences]),
        np.stack(
            [
                np.zeros_like(s.image_ids) if s.image_views is None else s.image_views
                for s in sequences
            ]
        ),
    )


@lru_cache(maxsize=4)
def image_table(folder: Path) -> ImageTable:
    """The table of a prepared folder, one per process."""
    return ImageTable(folder)


def image_png(folder: Path, image_id: int) -> bytes:
    """One image at native size as a PNG file, for reports."""
    return png(image_table(folder).native(image_id))


def png(pixels: np.ndarray) -> bytes:
    """Encode uint8 [height, width, 3] or [height, width] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
