"""The one way from the bytes of a picture to its pixels: upright, and as a viewer shows it.

No other module opens pictures. Colour profiles, gamma and HDR curves are not applied, as in the
image processors of the reference models. Of an animation it is the first frame, of a file of
several pages the first page.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from ablations.errors import UserError

# No other decoder of Pillow's gets to see any bytes: some call other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
STORED_FORMATS = (*FORMATS, "PPM")  # PPM is how preparation writes uncompressed pixels
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
LIMIT_BYTES = 256 << 20  # of the file; larger ones are not read
LIMIT_PIXELS = 89_478_485  # Pillow's
WHITE = (255, 255, 255)

Colour = tuple[int, int, int]
Reason = Literal["bomb", "truncated", "unreadable", "unknown_range"]

# What of EXIF's orientations brings a picture upright; 1 is upright already.
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT = 262, 258, 339  # tags of TIFF
_WHITE_IS_ZERO, _UNSIGNED = 0, 1

# Not in a `catch_warnings`, which threads would undo for each other. Pillow warns of metadata that
# are broken, which are ignored, and of large pictures, which are refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PictureError(Exception):
    """Why bytes are no picture that can be shown, on one line."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(" ".join(detail.split()))
        self.reason: Reason = reason

    @property
    def detail(self) -> str:
        """What was found."""
        return str(self)


def upright_rgb(
    content: bytes, background: Colour = WHITE, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """A picture in RGB, decoded to its last pixel, a colour behind what is transparent.

    Raises:
        PictureError: it is no picture of `formats`, is cut short, has more pixels or bytes than
            are read, or numbers of which nobody says which are black and white.
    """
    return on_colour(upright(content, formats), background)


def upright(content: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """As `upright_rgb`, but what may be transparent stays so: RGB or RGBA."""
    if len(content) > LIMIT_BYTES:
        raise PictureError("bomb", f"the picture has more than {LIMIT_BYTES} bytes")
    try:
        with _opened(content, formats) as image:
            picture = _coloured(image)
            turned = _TRANSPOSED.get(_orientation(image))
    except (PictureError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("bomb", str(error)) from None
    except Exception as error:  # decoders raise whatever the bytes lead them to
        if "truncated" in str(error).lower():
            raise PictureError("truncated", str(error)) from None
        unknown = isinstance(error, UnidentifiedImageError)
        why = f"of {', '.join(formats)}" if unknown else f"({type(error).__name__})"
        what = f"{len(content)} bytes that begin with {bytes(content[:8])!r}"
        raise PictureError("unreadable", f"no image {why}: {what}") from None
    return picture if turned is None else picture.transpose(turned)


def on_colour(picture: Image.Image, colour: Colour) -> Image.Image:
    """RGB, with a colour behind what is transparent in RGBA."""
    if picture.mode == "RGB":
        return picture
    whole = Image.new("RGB", picture.size, colour)
    whole.paste(picture, mask=picture)
    return whole


def read_picture(path: Path, background: Colour = WHITE) -> Image.Image:
    """The picture in a file, as `upright_rgb`. `UserError`, with its name, if there is none."""
    if not path.exists():
        raise UserError(f"no image {str(path)!r}")
    if not path.is_file():
        raise UserError(f"{path} is not a file, and no image")
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise PictureError("bomb", f"it has more than {LIMIT_BYTES} bytes")
        return upright_rgb(path.read_bytes(), background)
    except (PictureError, OSError) as error:
        raise UserError(f"{path} is not an image that can be read: {error}") from None


def header(content: bytes, formats: tuple[str, ...] = STORED_FORMATS) -> tuple[str, int, int]:
    """Of a picture that can be decoded: Pillow's name of its format, upright width and height."""
    with _opened(content, formats) as image:
        width, height = image.size
        # Pillow brings TIFF upright by itself, the size first.
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
        return str(image.format), width, height


def _opened(content: bytes, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """With its header read alone."""
    image = Image.open(io.BytesIO(content), formats=formats)
    if math.prod(image.size) > LIMIT_PIXELS:
        raise PictureError("bomb", f"{image.width} × {image.height} pixels, over {LIMIT_PIXELS}")
    if not all(image.size):
        raise PictureError("unreadable", f"{image.width} × {image.height} pixels")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF's, else XMP's: 1 to 8. Metadata that are broken, or of a wrong type, say nothing."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever the bytes lead the parser to
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _coloured(image: ImageFile.ImageFile) -> Image.Image:
    """Decoded, in RGB, or in RGBA if anything of it may be transparent."""
    _check_range(image)
    key, depth = _transparent_colour(image)
    frame = image.tile[0].extents if image.format == "GIF" and image.tile else None
    image.load()
    if image.mode.startswith("I;16"):
        return _of_16_bits(image, key)
    if not image.has_transparency_data:
        picture = image.convert("RGB")
        return picture if frame is None else _on_screen(picture, frame)
    if key is not None:
        # Pillow widens the pixels of few bits, and narrows those of many, but not this colour.
        image.info["transparency"] = _in_8_bits(key, depth)
    straight = image.convert("LA") if image.mode == "La" else image  # La knows no other way
    picture = straight.convert("RGBA")
    if image.format == "BMP" and picture.getchannel("A").getextrema() == (0, 0):
        return picture.convert("RGB")  # a fourth byte that nobody filled
    return picture


def _check_range(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    formats = tags.get(_SAMPLE_FORMAT, ())
    formats = formats if isinstance(formats, tuple) else (formats,)
    if image.mode in ("I", "F") or any(one != _UNSIGNED for one in formats):
        kind = "fractions" if image.mode == "F" else "whole numbers of 32 bits or with a sign"
        raise PictureError(
            "unknown_range",
            f"its pixels are {kind} (mode {image.mode}), and which of them is white is not said; "
            "save it with 8 or 16 bits without a sign",
        )


def _of_16_bits(image: Image.Image, transparent: int | tuple[int, ...] | None) -> Image.Image:
    """The upper eight bits of greys, as Pillow takes of the colours of 16 bits."""
    greys = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if tags.get(_BITS) == (12,):
        greys = greys << 4
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        greys = ~greys
    narrow = Image.fromarray((greys >> 8).astype(np.uint8))
    if transparent is None:
        return narrow.convert("RGB")
    shown = Image.fromarray(np.where(greys == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (narrow, shown)).convert("RGBA")


def _transparent_colour(image: ImageFile.ImageFile) -> tuple[int | tuple[int, ...] | None, int]:
    """The colour that PNG declares transparent, as the file has it, and its bits a channel."""
    found = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB", "I;16") or not image.tile:
        return None, 8
    _, _, bits = str(image.tile[0].args).partition(";")  # the raw mode: L;2, L;4, RGB;16B
    return found, int(bits.rstrip("B") or 8)


def _in_8_bits(colour: int | tuple[int, ...], depth: int) -> int | tuple[int, ...]:
    if isinstance(colour, tuple):
        return tuple(channel >> 8 for channel in colour) if depth == 16 else colour
    return colour * (255 // (2**depth - 1))


def _on_screen(picture: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A GIF's first frame may be a part of its screen; nothing is on the rest."""
    if frame == (0, 0, *picture.size):
        return picture
    whole = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    whole.paste(picture.crop(frame), frame)
    return whole
