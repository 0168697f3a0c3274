"""The prepared images: memory-mapped at native size, resized once per process and size."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageOps


class ImageTable:
    """All images of a prepared folder; an image id is a row number of `images.parquet`."""

    def __init__(self, folder: Path):
        index = pq.read_table(folder / "images.parquet").to_pydict()
        arrays = {
            file: np.load(folder / file, mmap_mode="r") for file in dict.fromkeys(index["file"])
        }
        self.names: list[str] = index["name"]
        self._native = [arrays[f][row] for f, row in zip(index["file"], index["row"], strict=True)]
        self._resized: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.names)

    def native(self, image_id: int) -> np.ndarray:
        """One image as it was prepared: uint8 [height, width, 3]."""
        return self._native[image_id]

    def at_size(self, image_ids: np.ndarray, size: int) -> np.ndarray:
        """Images resized to `size` pixels a side: int [...] → uint8 [..., size, size, 3].

        Id -1 is black. Bicubic with antialiasing (Pillow) on first use, a copy later.
        """
        if size not in self._resized:
            # The last row is never written: -1 reads it, and it is black.
            pixels = np.zeros((len(self) + 1, size, size, 3), np.uint8)
            self._resized[size] = pixels, np.zeros(len(self) + 1, bool)
            self._resized[size][1][-1] = True
        pixels, ready = self._resized[size]
        if not ready[image_ids].all():
            for image_id in np.unique(image_ids[~ready[image_ids]]):
                pixels[image_id] = resized(Image.fromarray(self.native(image_id)), size)
                ready[image_id] = True
        return pixels[image_ids]


def resized(
    image: Image.Image, size: int, background: tuple[int, int, int] = (255, 255, 255)
) -> np.ndarray:
    """An image, upright and on a background, as uint8 [size, size, 3].

    Bicubic with antialiasing (Pillow).
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.has_transparency_data:
        drawing = image.convert("RGBA")
        image = Image.new("RGB", image.size, background)
        image.paste(drawing, mask=drawing)
    image = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(size, size, 3)


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
