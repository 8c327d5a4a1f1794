"""Image files of kinds that Pillow reads and doesn't write, byte by byte."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

Values = np.ndarray[Any, Any]


def png(values: Values, extra: bytes = b"", size: tuple[int, int] | None = None) -> bytes:
    """A PNG of 16 bits: `values` (h, w) or (h, w, channels) of grey, grey and alpha, colours, or colours and
    alpha; `extra` are chunks, `size` a width and height that it says it has."""
    height, width = values.shape[:2]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[values[0, 0].size]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", *(size or (width, height)), 16, colour_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def tiff(values: Values, *, order: str = "<", compressed: bool = False, **tags: int) -> bytes:
    """A TIFF of `values` (h, w) or (h, w, 3), of numpy's type; `tags` are sample_max and photometric.

    After TIFF 6.0: header, image, one directory.
    """
    height, width = values.shape[:2]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    return _tiff(
        zlib.compress(data) if compressed else data,
        order,
        size=(width, height),
        bits=values.dtype.itemsize * 8,
        channels=values[0, 0].size,
        compression=8 if compressed else 1,
        kind={"u": 1, "i": 2, "f": 3}[values.dtype.kind],
        **tags,
    )


def tiff_of_12_bits(values: Values) -> bytes:
    """A TIFF of `values` (h, w), an even width, packed two to three bytes."""
    left, right = values[:, ::2].astype(np.uint16), values[:, 1::2].astype(np.uint16)
    packed = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=2).astype(np.uint8)
    height, width = values.shape
    return _tiff(packed.tobytes(), "<", size=(width, height), bits=12, channels=1, compression=1, kind=1)


def _tiff(
    data: bytes,
    order: str,
    *,
    size: tuple[int, int],
    bits: int,
    channels: int,
    compression: int,
    kind: int,
    photometric: int | None = None,
    sample_max: int | None = None,
) -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    bits_at = 8 + len(data) + len(data) % 2
    usual = 1 if channels == 1 else 2
    short, long = 3, 4
    entries = [
        (256, short, 1, size[0]),
        (257, short, 1, size[1]),
        (258, short, channels, bits if channels == 1 else bits_at),
        (259, short, 1, compression),
        (262, short, 1, usual if photometric is None else photometric),
        (273, long, 1, 8),
        (277, short, 1, channels),
        (278, short, 1, size[1]),
        (279, long, 1, len(data)),
        (339, short, 1, kind),
        *([] if sample_max is None else [(341, short, 1, sample_max)]),
    ]
    out = (start + struct.pack(order + "I", bits_at + 2 * channels) + data).ljust(bits_at, b"\0")
    out += struct.pack(f"{order}{channels}H", *[bits] * channels) + struct.pack(order + "H", len(entries))
    for tag, of, count, value in entries:
        packed = struct.pack(order + ("HH" if of == short and count == 1 else "I"), *_pair(of, count, value))
        out += struct.pack(order + "HHI", tag, of, count) + packed
    return out + struct.pack(order + "I", 0)


def _pair(of: int, count: int, value: int) -> tuple[int, ...]:
    return (value, 0) if of == 3 and count == 1 else (value,)
