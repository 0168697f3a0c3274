"""From an image file to the pixels that an encoder was trained on: resize, crop, mean, deviation.

Resizing is Pillow's, because resampling of other libraries differs by several grey levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ablations.errors import UserError
from mm1_jax.weights.json_object import is_there, read_object, stating
from mm1_jax.weights.public_config import check_switch, is_number

# Channel means and standard deviations of pixels in [0, 1].
MEAN_AND_STD: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# Files that may say it, the first that is there, and the key of what is nested.
PREPROCESSOR_FILES = {"preprocessor_config.json": None, "processor_config.json": "image_processor"}


_LONGEST_SIDE = 16_384  # pixels


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an encoder's input.

    squash: to `height` × `width`, whatever the aspect. shortest: the shorter side to
    `shortest_edge`, then the central `height` × `width`. pad: squared with bars of the mean
    colour (LLaVA's), then squashed.
    """

    resize: Literal["squash", "shortest", "pad"]
    height: int
    width: int
    shortest_edge: int = 0
    mean: tuple[float, ...] = MEAN_AND_STD["half"][0]
    std: tuple[float, ...] = MEAN_AND_STD["half"][1]
    resample: int = Image.Resampling.BICUBIC

    def image(self, picture: Image.Image) -> np.ndarray:
        """The picture, in RGB, resized and cropped: uint8 [height, width, 3]."""
        if picture.mode != "RGB":
            raise ValueError(f"a picture in {picture.mode}: `pictures` opens it in RGB")
        resample = Image.Resampling(self.resample)
        if self.resize == "pad":
            picture = padded_to_square(picture, mean_colour(self.mean))
        if self.resize in ("squash", "pad"):
            return np.asarray(picture.resize((self.width, self.height), resample))
        wide, high = picture.size
        short, long = sorted((wide, high))
        longer = int(self.shortest_edge * long / short)
        size = (self.shortest_edge, longer) if wide <= high else (longer, self.shortest_edge)
        pixels = np.asarray(picture.resize(size, resample))
        top = (pixels.shape[0] - self.height) // 2
        left = (pixels.shape[1] - self.width) // 2
        return pixels[top : top + self.height, left : left + self.width]

    def pixels(self, picture: Image.Image) -> np.ndarray:
        """The encoder's input, float32 [height, width, 3]."""
        # Through float64, as image processors that work on numpy arrays do.
        unit = (self.image(picture).astype(np.float64) * (1 / 255)).astype(np.float32)
        mean, std = (np.array(row, np.float32) for row in (self.mean, self.std))
        return (unit - mean) / std


def mean_colour(mean: Sequence[float]) -> tuple[int, ...]:
    """The mean of normalisation as a colour, rounded down as LLaVA does."""
    return tuple(int(channel * 255) for channel in mean)


def padded_to_square(picture: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """The picture in the middle of a square of its longer side (LLaVA's `pad`)."""
    wide, high = picture.size
    side = max(wide, high)
    square = Image.new("RGB", (side, side), colour)
    square.paste(picture, ((side - wide) // 2, (side - high) // 2))
    return square


def stated_preprocessing(folder: Path, usual: Preprocessing) -> Preprocessing:
    """What a folder's `PREPROCESSOR_FILES` say; where they are silent, what is usual.

    UserError where they ask for what `Preprocessing` cannot do.
    """
    file = next((folder / n for n in PREPROCESSOR_FILES if is_there(folder / n)), None)
    if file is None:
        return usual
    stated = read_object(file)
    with stating(file):
        found = _stated(stated, file, usual)
        sides = (found.height, found.width)
        edge = found.shortest_edge if found.resize == "shortest" else max(sides)
        if min(sides) < 1 or not max(sides) <= edge <= _LONGEST_SIDE:
            raise ValueError(f"{found.height} × {found.width} pixels of a shorter side of {edge}")
        numbers = (*found.mean, *found.std)
        if len(found.mean) != 3 or len(found.std) != 3 or not all(map(is_number, numbers)):
            raise ValueError(f"image_mean {found.mean}, image_std {found.std}")
        if not all(one > 0 for one in found.std):
            raise ValueError(f"image_mean {found.mean}, image_std {found.std}")
        if isinstance(found.resample, bool):
            raise ValueError(f"resample {found.resample!r}")
        Image.Resampling(found.resample)
        return found


def _stated(stated: dict[str, Any], file: Path, usual: Preprocessing) -> Preprocessing:
    if (within := PREPROCESSOR_FILES[file.name]) is not None:
        stated = stated.get(within, {})
    mean, std = stated.get("image_mean", usual.mean), stated.get("image_std", usual.std)
    numbers: dict[str, Any] = {"mean": tuple(mean), "std": tuple(std)}
    numbers["resample"] = stated.get("resample", usual.resample)
    for key in ("do_resize", "do_rescale", "do_normalize", "do_pad", "do_center_crop"):
        check_switch(stated, key)
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if not stated.get(key, True):
            raise UserError(f"{file}: {key} false is not known; valid: true")
    if not math.isclose(stated.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-3):
        raise UserError(f"{file}: rescale_factor {stated['rescale_factor']}; valid: 1 / 255")
    size, crop = _size(stated.get("size")), _size(stated.get("crop_size"))
    if stated.get("do_pad", False):
        side = (crop or size or {}).get("height", usual.height)
        if (size or {}).get("shortest_edge", side) != side:
            raise UserError(f"{file}: do_pad with a crop of less than all is not known")
        return Preprocessing("pad", side, side, **numbers)
    if stated.get("do_center_crop", usual.resize == "shortest" and crop is not None):
        shortest = (size or {}).get("shortest_edge", usual.shortest_edge)
        height, width = (crop or {}).get("height", shortest), (crop or {}).get("width", shortest)
        return Preprocessing("shortest", height, width, shortest, **numbers)
    if size is not None and "height" in size:
        return Preprocessing("squash", size["height"], size["width"], **numbers)
    return Preprocessing(usual.resize, usual.height, usual.width, usual.shortest_edge, **numbers)


def _size(value: Any) -> dict[str, int] | None:
    """Sizes are written as a number (older files) or as named sides."""
    if type(value) is int:
        return {"shortest_edge": value, "height": value, "width": value}
    if value is None:
        return None
    sides = {name: side for name, side in value.items() if side is not None}
    if not all(type(side) is int for side in sides.values()):
        raise ValueError(f"size {value!r}")
    return sides


def usual_preprocessing(
    rule: Literal["squash", "pad", "crop", "crop_875"], size: int, pixels: str
) -> Preprocessing:
    """A family's way: squash (SigLIP), crop (CLIP, AIMv2), crop of the middle 7/8 (AIM, DINOv2).

    Or pad (LLaVA-1.5, on CLIP).
    """
    mean, std = MEAN_AND_STD[pixels]
    if rule in ("squash", "pad"):
        return Preprocessing(rule, size, size, mean=mean, std=std)
    shortest = size if rule == "crop" else math.ceil(size / 0.875)
    return Preprocessing("shortest", size, size, shortest, mean=mean, std=std)
