"""One image as several that the encoder sees at its own resolution: an overview and crops.

MM1 tunes on 1344 × 1344 pixels with an encoder of 672: an overview and four quarters, each with its
own tokens (§7; the way of SPHINX). LLaVA-NeXT chooses a grid by the image's aspect. Each view is
an image of its own to encoder and connector; in the sequence the views of one image follow each
other, the overview first, then the crops row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from mm1_jax.config.data import (
    AnyResolutionConfig,
    GridConfig,
    NoSubImagesConfig,
    SubImagesConfig,
)
from mm1_jax.config.train_config import TrainConfig
from mm1_jax.images.pictures import WHITE, Colour
from mm1_jax.images.preprocessing import Preprocessing, usual_preprocessing

Grid = tuple[int, int]  # rows, columns
WHOLE = NoSubImagesConfig()


@dataclass(frozen=True)
class ImageViews:
    """How an image becomes what the encoder sees: `size` pixels a side, each view.

    `fit` brings the image to a square: squash, crop of the middle, or pad with the encoder's mean
    colour; `background` is behind what is transparent in a file.
    """

    size: int
    fit: Literal["squash", "crop", "pad"] = "squash"
    sub_images: SubImagesConfig = WHOLE
    pixels: Literal["half", "clip", "imagenet"] = "half"
    background: Colour = WHITE

    @property
    def most(self) -> int:
        """Views of the image that has most."""
        return self.sub_images.views

    def count(self, width: int, height: int) -> int:
        """Views of an image of this size."""
        if isinstance(self.sub_images, AnyResolutionConfig):
            return 1 + math.prod(best_grid(width, height, self.sub_images.grids, self.size))
        return self.most

    def of(self, picture: Image.Image) -> np.ndarray:
        """The views of a picture in RGB, the overview first: uint8 [count, size, size, 3]."""
        views = [self._fitted(self.size).image(picture)]
        if isinstance(self.sub_images, GridConfig):
            side = self.sub_images.side
            whole = self._fitted(side * self.size).image(picture)
            views += crops(whole, (side, side))
        elif isinstance(self.sub_images, AnyResolutionConfig):
            grid = best_grid(*picture.size, self.sub_images.grids, self.size)
            views += crops(on_black(picture, grid, self.size), grid)
        return np.stack(views)

    def _fitted(self, size: int) -> Preprocessing:
        return usual_preprocessing(self.fit, size, self.pixels)


def views_of(config: TrainConfig) -> ImageViews:
    """What a config's encoder is shown of each image."""
    encoder = config.encoder
    tower = encoder.first if encoder.kind == "fused" else encoder
    data = config.data
    return ImageViews(encoder.image_size, data.fit, data.sub_images, tower.pixels, data.background)


def best_grid(width: int, height: int, grids: Sequence[Grid], size: int) -> Grid:
    """The grid of `size`-pixel tiles that keeps most of an image's pixels (LLaVA-NeXT's anyres).

    That is, of its area scaled into the grid, but not beyond its own; of equals the one with the
    least left over, of those the first.
    """

    def kept(grid: Grid) -> tuple[int, int]:
        rows, columns = grid
        wide, high = columns * size, rows * size
        scale = min(wide / width, high / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        return effective, effective - wide * high

    return max(grids, key=kept)


def on_black(picture: Image.Image, grid: Grid, size: int) -> np.ndarray:
    """The picture scaled into a grid of tiles, its aspect kept, in the middle of black.

    uint8 [rows * size, columns * size, 3].
    """
    rows, columns = grid
    wide, high = columns * size, rows * size
    across, down = wide / picture.width, high / picture.height
    if across < down:
        scaled = (wide, min(math.ceil(picture.height * across), high))
    else:
        scaled = (min(math.ceil(picture.width * down), wide), high)
    canvas = Image.new("RGB", (wide, high))
    middle = ((wide - scaled[0]) // 2, (high - scaled[1]) // 2)
    canvas.paste(picture.resize(scaled, Image.Resampling.BICUBIC), middle)
    return np.asarray(canvas)


def crops(pixels: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """The tiles of a grid, row by row; [rows * h, columns * w, 3] → rows * columns × [h, w, 3]."""
    return [
        tile for row in np.split(pixels, grid[0], axis=0) for tile in np.split(row, grid[1], axis=1)
    ]
