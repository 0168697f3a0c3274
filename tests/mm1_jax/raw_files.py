"""Tiny files in the published formats of raw data, made for the tests."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int = 0, width: int = 120, height: int = 100, kind: str = "JPEG") -> bytes:
    """Coloured tiles that no other seed has."""
    tiles = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    image = Image.fromarray(tiles).resize((width, height), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of 70 bytes that says it has `side`² pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    )


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for key, members in samples:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def captioned(number: int, caption: str, **facts: Any) -> tuple[str, dict[str, bytes]]:
    """A sample as img2dataset writes it."""
    key = f"{number:09d}"
    said = {"url": f"https://example.org/{number}.jpg", "caption": caption, "key": key, **facts}
    said["status"] = "success"
    return key, {
        "jpg": picture(number),
        "json": json.dumps(said).encode(),
        "txt": caption.encode(),
    }


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    """JSON lines; bytes are written as they are."""
    with path.open("wb") as file:
        for record in records:
            line = record if isinstance(record, bytes) else json.dumps(record).encode()
            file.write(line + b"\n")
    return path
