"""Each file is built here and compared with the picture that it was made of."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ablations.errors import UserError
from mm1_jax.images.pictures import (
    FORMATS,
    LIMIT_PIXELS,
    STORED_FORMATS,
    PictureError,
    header,
    read_picture,
    upright,
    upright_rgb,
)

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 128, 0)
RAMP = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))  # grey, 48 × 64
# How a camera that was held so lays the picture down.
LAID = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}


def three_colours():
    """Red on top, blue below, green at the left: no orientation looks like another."""
    picture = Image.new("RGB", (48, 64), BLUE)
    picture.paste(RED, (0, 0, 48, 32))
    picture.paste(GREEN, (0, 0, 16, 64))
    return picture


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(colour_type, depth, width, height, rows, *chunks):
    """`rows` are the bytes of each row, `chunks` (name, content) stand before the pixels."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(tags, width, height, pixels):
    """Uncompressed, little-endian; `tags` are numbers by tag."""
    every = {256: width, 257: height, 259: 1, 277: 1, 278: height, 279: len(pixels), **tags}
    size = 2 + 12 * (len(every) + 1) + 4
    extra, later = b"", 8 + size
    entries = {**every, 273: None}
    for tag, value in every.items():
        if isinstance(value, tuple) and len(value) > 2:
            entries[tag] = (len(value), later + len(extra))
            extra += struct.pack(f"<{len(value)}H", *value)
    entries[273] = later + len(extra)
    directory = struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        if isinstance(every.get(tag), tuple) and len(every[tag]) > 2:
            directory += struct.pack("<HHII", tag, 3, *value)
        elif isinstance(value, tuple):
            directory += struct.pack("<HHI2H", tag, 3, 2, *value)
        else:
            directory += struct.pack("<HHII", tag, 4, 1, value)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + extra + pixels


def close_to(content, expected, within=6.0):
    found = np.asarray(upright_rgb(content)).astype(int)
    expected = np.asarray(expected.convert("RGB")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < within


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", LAID)
def test_a_picture_is_seen_as_the_camera_was_held(kind, orientation):
    way, exif = LAID[orientation], Image.Exif()
    lying = three_colours() if way is None else three_colours().transpose(Image.Transpose(way))
    exif[0x0112] = orientation
    more = {"save_all": True, "append_images": [Image.new("RGB", lying.size)]}
    content = saved(lying, kind, exif=exif, **(more if kind == "MPO" else {}))
    close_to(content, three_colours())
    assert header(content)[1:] == (48, 64)


def test_the_orientation_of_xmp_counts_where_exif_has_none():
    lying = three_colours().transpose(Image.Transpose.ROTATE_90)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    close_to(saved(lying, "JPEG", xmp=xmp), three_colours())


def exif_of(kind, count, value):
    """EXIF with one tag, Orientation, of a type (2 ASCII, 1 BYTE, 3 SHORT, 7 UNDEFINED, …)."""
    entry = struct.pack("<HHI4s", 0x0112, kind, count, value)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        exif_of(2, 2, b"6\0\0\0"),
        exif_of(1, 1, b"\6\0\0\0"),
        exif_of(7, 1, b"\6\0\0\0"),
        exif_of(5, 1, b"\xff\xff\xff\xff"),
        exif_of(3, 1, struct.pack("<HH", 9, 0)),
        exif_of(99, 1, b"\6\0\0\0"),
        exif_of(3, 1 << 30, b"\6\0\0\0"),
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0no tags at all",
        b"Exif\0\0",
    ],
    ids=[
        "ascii",
        "byte",
        "undefined",
        "rational",
        "9",
        "type 99",
        "long",
        "far",
        "text",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_that_are_broken_say_nothing(kind, exif):
    content = saved(three_colours(), kind, exif=exif)
    close_to(content, three_colours())
    assert header(content)[1:] == (48, 64)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_16_bits_look_as_those_of_8(kind):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    found = upright_rgb(saved(deep, kind))
    assert np.array_equal(np.asarray(found), np.asarray(Image.fromarray(RAMP).convert("RGB")))


GREY_TAGS = {258: 16, 262: 1}
WIDE = RAMP.astype("<u2") * 257
TWELVE = np.stack([RAMP[:, ::2], RAMP[:, 1::2]], axis=-1).astype(np.uint16) * 16


def packed_12(pairs):
    """Two numbers of 12 bits in three bytes."""
    first, second = pairs[..., 0], pairs[..., 1]
    parts = [first >> 4, ((first & 15) << 4) | (second >> 8), second & 255]
    return np.stack(parts, axis=-1).astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        tiff(GREY_TAGS, 64, 48, WIDE.tobytes()),
        tiff({**GREY_TAGS, 262: 0}, 64, 48, (~WIDE).tobytes()),
        tiff({258: 12, 262: 1}, 64, 48, packed_12(TWELVE)),
        tiff({258: 8, 262: 0}, 64, 48, (~RAMP).tobytes()),
        saved(Image.frombytes("I;16B", (64, 48), WIDE.astype(">u2").tobytes()), "TIFF"),
        saved(Image.fromarray(WIDE), "TIFF", compression="tiff_adobe_deflate"),
        png(0, 16, 64, 48, [row.tobytes() for row in WIDE.astype(">u2")]),
        png(2, 16, 64, 48, [np.repeat(row, 3).tobytes() for row in WIDE.astype(">u2")]),
        png(4, 16, 64, 48, [np.stack([r, r * 0 - 1], 1).tobytes() for r in WIDE.astype(">u2")]),
        saved(Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (64, 48), 255)]), "PNG"),
        saved(Image.merge("LA", [Image.fromarray(RAMP), Image.new("L", (64, 48), 255)]), "TIFF"),
        saved(Image.fromarray(RAMP).convert("P"), "GIF"),
        saved(Image.fromarray(RAMP).convert("YCbCr"), "TIFF"),
        saved(Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "TIFF"),
        saved(Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "JPEG", quality=95),
    ],
    ids=[
        "tiff 16",
        "tiff 16, white is 0",
        "tiff 12",
        "tiff 8, white is 0",
        "tiff 16, big-endian",
        "tiff 16, compressed",
        "png 16",
        "png rgb 16",
        "png la 16",
        "png la",
        "tiff la",
        "gif",
        "tiff ycbcr",
        "tiff cmyk",
        "jpeg cmyk",
    ],
)
def test_a_ramp_of_greys_is_the_same_ramp_in_every_mode(content):
    found = np.asarray(upright_rgb(content)).astype(int)
    assert np.abs(found - RAMP[..., None]).max() <= 2


def test_colours_of_other_spaces_are_those_of_rgb():
    for mode, kind in (("LAB", "TIFF"), ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("P", "PNG")):
        close_to(saved(three_colours().convert(mode), kind), three_colours(), within=8)


@pytest.mark.parametrize("zero", [0, 1])
def test_one_bit_is_black_and_white_as_the_file_says(zero):
    bits = np.tile(np.repeat([0, 255], 32).astype(np.uint8), (48, 1))
    pixels = np.packbits(bits > 0, axis=1).tobytes()
    content = tiff({258: 1, 262: zero}, 64, 48, pixels)
    found = np.asarray(upright_rgb(content))[..., 0]
    assert np.array_equal(found, bits if zero else 255 - bits)


@pytest.mark.parametrize(
    ("content", "clear"),
    [
        # Left half of the transparent colour, right half of another.
        (png(0, 8, 8, 8, [b"\7\7\7\7\0\0\0\0"] * 8, (b"tRNS", b"\0\7")), 4),
        (png(0, 2, 8, 8, [b"\x55\0"] * 8, (b"tRNS", b"\0\1")), 4),
        (png(0, 4, 8, 8, [b"\x77\x77\0\0"] * 8, (b"tRNS", b"\0\7")), 4),
        (png(0, 1, 8, 8, [b"\xf0"] * 8, (b"tRNS", b"\0\1")), 4),
        (png(0, 16, 8, 8, [b"\7\7" * 4 + bytes(8)] * 8, (b"tRNS", b"\7\7")), 4),
        (png(0, 16, 8, 8, [b"\7\7" * 4 + bytes(8)] * 8, (b"tRNS", b"\7\6")), 0),
        (png(2, 16, 8, 8, [b"\7\7" * 12 + bytes(24)] * 8, (b"tRNS", b"\7\7" * 3)), 4),
        (
            png(3, 8, 8, 8, [b"\1" * 4 + bytes(4)] * 8, (b"PLTE", bytes(6)), (b"tRNS", b"\xff\0")),
            4,
        ),
        (saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "WEBP", lossless=True), 8),
        (tiff({258: (8, 8), 262: 1, 277: 2, 338: 1}, 8, 8, bytes(128)), 8),
        (tiff({258: (8,) * 4, 262: 2, 277: 4, 338: 1}, 8, 8, bytes(256)), 8),
    ],
    ids=[
        "png 8",
        "png 2",
        "png 4",
        "png 1",
        "png 16",
        "png 16, near",
        "png rgb 16",
        "palette",
        "webp",
        "tiff La",
        "tiff RGBa",
    ],
)
def test_the_background_is_behind_what_a_file_says_is_transparent(content, clear):
    found = np.asarray(upright_rgb(content, (10, 200, 30)))
    assert (found[:, :clear] == (10, 200, 30)).all()
    assert (found[:, clear:] <= 7).all()
    assert upright(content).mode == "RGBA"


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (saved(Image.fromarray(RAMP.astype(np.int32) * 257), "TIFF"), "mode I"),
        (saved(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"), "fractions"),
        (tiff({**GREY_TAGS, 339: 2}, 64, 48, WIDE.tobytes()), "with a sign"),
        (tiff({258: 8, 262: 1, 339: 2}, 64, 48, RAMP.tobytes()), "with a sign"),
    ],
    ids=["int32", "float", "int16", "int8"],
)
def test_numbers_of_which_nobody_says_what_is_white_are_refused(content, mode):
    with pytest.raises(PictureError, match=mode) as told:
        upright_rgb(content)
    assert told.value.reason == "unknown_range"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_in_a_file_the_first_is_seen(kind):
    others = [Image.new("RGB", (48, 64), colour) for colour in ("white", "black")]
    content = saved(three_colours(), kind, save_all=True, append_images=others)
    close_to(content, three_colours())


def test_what_a_gif_does_not_draw_on_is_background():
    gif = bytearray(saved(Image.new("P", (8, 8), 1), "GIF"))
    gif[6:10] = struct.pack("<HH", 16, 16)  # a larger screen
    found = np.asarray(upright_rgb(bytes(gif), (10, 200, 30)))
    assert (found[8:] == (10, 200, 30)).all()
    assert (found[:8, :8] != (10, 200, 30)).any()


def test_a_bmp_whose_fourth_byte_nobody_filled_is_no_blank():
    head = struct.pack("<IiiHHIIiiII", 56, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0)
    head += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    place = 14 + len(head)
    content = b"BM" + struct.pack("<IHHI", place + 16, 0, 0, place) + head + b"\0\0\xff\0" * 4
    assert (np.asarray(upright_rgb(content)) == RED).all()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def test_postscript_under_another_name_starts_no_program(tmp_path, monkeypatch):
    def started(*command, **_):
        raise AssertionError(command)

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(subprocess, "check_call", started)
    (tmp_path / "photo.jpg").write_bytes(EPS)
    with pytest.raises(UserError, match=r"photo\.jpg is not .*: no image of JPEG, PNG, .*%!PS-Ado"):
        read_picture(tmp_path / "photo.jpg")
    assert not {"EPS", "PDF", "PSD", "FPX", "WMF"} & {*FORMATS, *STORED_FORMATS}


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    side = int(LIMIT_PIXELS**0.5) + 1
    for width in (side, 2 * side):  # Pillow warns of the first and refuses the second
        content = png(0, 1, width, side, [])
        with pytest.raises(PictureError, match="pixels") as told:
            upright_rgb(content)
        assert told.value.reason == "bomb"
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.png is not an image that can be read: .*pixels"):
            read_picture(tmp_path / "x.png")


def test_of_pillows_warnings_nothing_reaches_the_terminal(tmp_path):
    (tmp_path / "x.jpg").write_bytes(
        saved(three_colours(), "JPEG", exif=exif_of(3, 1 << 30, b"\6\0\0\0"))
    )
    program = (
        "from pathlib import Path; from mm1_jax.images.pictures import read_picture; "
        f"read_picture(Path({str(tmp_path / 'x.jpg')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no image"),
        ("folder", "is not a file"),
        (b"", "is not an image that can be read"),
        (b"no image", "is not an image that can be read"),
        (saved(three_colours(), "JPEG")[:-40], "truncated"),
        (saved(three_colours(), "PNG")[:-40], "truncated"),
        (png(0, 8, 0, 8, []), "is not an image that can be read"),
    ],
    ids=["missing", "folder", "empty", "text", "cut jpeg", "cut png", "no width"],
)
def test_a_file_that_holds_no_picture_is_named_in_one_line(tmp_path, content, told):
    path = tmp_path / "x.png"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read_picture(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
