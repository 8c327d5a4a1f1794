"""Decodes image files of any mode and bit depth to pixels from black to white."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from wnexplore.errors import shown

Range = tuple[float, float]
"""The values of black and white."""
Ranges = Mapping[str, Range]
"""Kind of samples, "uint16", "int32" or "float32" -> their range where a file doesn't state it."""

USUAL_RANGES: Ranges = {"uint16": (0.0, 65535.0), "int32": (0.0, 65535.0), "float32": (0.0, 1.0)}
"""The ranges of kinds of samples that a data set lacks."""


def read_image(path: str, ranges: Ranges, size: tuple[int, int] | None = None) -> Image.Image:
    """The image in the file `path`, rotated upright by its EXIF data.

    It is not rotated if its stored width and height are `size`, and its rotated ones are not.

    - Up to 8 bits a sample, of any mode: "RGB", as Pillow converts to it; transparency is dropped, as in
      torchvision and timm.
    - Greyscale of more bits, or in floats: "F", from 0, black, to 255, white. 16-bit colours: "RGB".

    Black and white are never taken from a single image, which would make bright and dark images look alike.
    They are stated by the file: TIFF's SMinSampleValue and SMaxSampleValue, or its BitsPerSample where that
    is neither 16 nor 32; 65535 in PGM and JPEG 2000, to which Pillow scales them. Otherwise they are
    `ranges`, those of the data set, and `USUAL_RANGES` for kinds that it lacks: a 16-bit PNG may hold 12 bits
    without stating it. Nothing is clipped: an image with values outside is refused.

    Raises any error of a decoder on a broken file, and `ValueError` or `OSError` if it is no image; `reason`
    is the message in one line.
    """
    with opened(path) as image:
        deep = is_deep(image)
        kind = sample_kind(image)
        if (deep or kind is not None) and image.width * image.height > _MAX_DEEP_PIXELS:
            raise ValueError(f"more than {_MAX_DEEP_PIXELS:,} pixels of over 8 bits")
        _make_upright(image, size)
        if kind is not None:
            within = stated_range(image) or ranges.get(kind) or USUAL_RANGES[kind]
            grey = _scaled(sample_values(image), within)
            return Image.fromarray(255 - grey if _is_negative(image) else grey)
        if not deep:
            return image if image.mode == "RGB" else image.convert("RGB")
    values = _scaled(deep_values(path), ranges.get("uint16") or USUAL_RANGES["uint16"])
    return Image.fromarray(values if values.ndim == 2 else np.round(values).astype(np.uint8))


@contextmanager
def opened(path: str) -> Iterator[Image.Image]:
    """The file `path`, its header read. Raises as `read_image`."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        # Reading a pipe may block forever, and a device may be endless.
        raise OSError(_NO_FILES.get(stat.S_IFMT(found.st_mode), "it is not a regular file"))
    if not found.st_size:
        raise OSError("the file is empty")
    with warnings.catch_warnings():
        # Warnings about broken metadata, and about images half as large as Pillow's limit.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(path, formats=_formats())
        except UnidentifiedImageError:
            raise OSError("not an image of a supported format") from None
        with image:
            yield image


def reason(error: Exception) -> str:
    """Why an image can't be read, in one line."""
    if isinstance(error, MemoryError):
        return "out of memory"
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(" ".join(message.split()) or type(error).__name__, 300)


def sample_kind(image: Image.Image) -> str | None:
    """The kind of the samples of a grey image of more than 8 bits; None for any other image."""
    if image.mode.startswith("I;16"):
        return "uint16"
    if image.mode == "I":
        # Pillow reads these formats, of at most 16 bits, into 32.
        return "uint16" if image.format in ("PNG", "PPM") else "int32"
    return "float32" if image.mode == "F" else None


def stated_range(image: Image.Image) -> Range | None:
    """The range of a grey image of more than 8 bits, where its file states it."""
    if image.format == "TIFF":
        return _stated_by_tiff(getattr(image, "tag_v2", {}), sample_kind(image))
    # Pillow scales any maximum or depth to 16 bits.
    return (0.0, 65535.0) if image.format in ("PPM", "JPEG2000") and image.mode != "F" else None


def sample_values(image: Image.Image) -> np.ndarray[Any, Any]:
    """The samples (height, width) of a grey image of more than 8 bits. Raises `ValueError` for a NaN."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if values.dtype == np.int32 and image.format == "TIFF" and _first(tags, _SAMPLE_FORMAT, 1) == 1:
        values = values.view(np.uint32)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its values are not finite")
    return values


def is_deep(image: Image.Image) -> bool:
    """Whether an undecoded image has 16-bit colours, or 16-bit grey with alpha.

    Pillow doesn't support these and reads the upper 8 bits.
    """
    return any(_raw_mode(tile) in (*_OTHER_BYTE, _GREY_ALPHA) for tile in _tiles(image))


def deep_values(path: str) -> np.ndarray[Any, Any]:
    """The samples of an image that `is_deep`: (height, width, 3), or (height, width) if it is grey.

    Pillow reads their lower bytes if the raw mode has them first, or as colours.
    """
    with opened(path) as image:
        if any(_raw_mode(tile) == _GREY_ALPHA for tile in _tiles(image)):
            upper, lower = _bytes_of(image, lambda mode: "RGBA")[..., :2].transpose(2, 0, 1)
        else:
            upper = _bytes_of(image, lambda mode: mode)
            with opened(path) as again:
                lower = _bytes_of(again, lambda mode: _OTHER_BYTE[mode])
    values: np.ndarray[Any, Any] = upper.astype(np.uint16) * np.uint16(256) + lower
    return values


def range_of(kind: str, low: float, high: float) -> Range:
    """The smallest usual range of samples of `kind` that contains the values from `low` to `high`.

    0 to 2^b - 1, or -2^(b - 1) to 2^(b - 1) - 1 with negative values, for 8, 10, ... 34 bits b.
    Floats have further ranges: 0 to w, or -w to w, where w is 1, or a power of two up to 1/16, from 2 to 128,
    or from 2^35.
    """
    negative = low < 0
    bits = [(-(2.0 ** (b - 1)), 2.0 ** (b - 1) - 1) if negative else (0.0, 2.0**b - 1) for b in _BITS]
    small, large = ([(-(2.0**e) if negative else 0.0, 2.0**e) for e in part] for part in _EXPONENTS)
    for black, white in [*small, *bits, *large] if kind == "float32" else bits:
        if black <= low and high <= white:
            return black, white
    raise ValueError(f"values from {low:g} to {high:g} are in no usual range")


def is_of_unknown_range(path: str, known: Ranges) -> bool:
    """Whether an image has more than 8 bits, and neither its file `path` nor `known` gives its range.

    Raises as `read_image`.
    """
    with opened(path) as image:
        kind = "uint16" if is_deep(image) else sample_kind(image)
        return kind is not None and kind not in known and stated_range(image) is None


def ranges_of(paths: Sequence[str]) -> dict[str, Range]:
    """The ranges, by `range_of`, of grey images of more than 8 bits whose files don't state them.

    From the smallest and largest value in up to 256 of the files `paths`, evenly spaced: common to all images
    of a data set. Unreadable files are skipped; raises `ValueError` with the first one and the reason if none
    can be read.
    """
    ends: dict[str, Range] = {}
    some, first = False, ""
    for path in _spread(paths, _LOOKED_AT):
        try:
            with opened(path) as image:
                deep = is_deep(image)
                kind = "uint16" if deep else sample_kind(image)
                if kind is not None and stated_range(image) is None:
                    values = deep_values(path) if deep else sample_values(image)
                    low, high = float(values.min()), float(values.max())
                    seen = ends.get(kind, (low, high))
                    ends[kind] = range_of(kind, min(low, seen[0]), max(high, seen[1]))
                elif not some:
                    image.load()
                some = True
        except Exception as error:  # a decoder may raise anything on a broken file
            first = first or f"{shown(path, 300)}: {reason(error)}"
    if not some:
        raise ValueError(first)
    return ends


def _scaled(values: np.ndarray[Any, Any], within: Range) -> np.ndarray[Any, Any]:
    """`values` scaled to 0, black, to 255, white, in float32."""
    (black, white), low, high = within, float(values.min()), float(values.max())
    if low < black or high > white:
        raise ValueError(
            f"its values reach from {low:g} to {high:g}, and such images are read as {black:g} (black) to"
            f" {white:g} (white)"
        )
    scaled: np.ndarray[Any, Any] = values.astype(np.float32)
    scaled -= np.float32(black)
    scaled *= np.float32(255 / (white - black))
    return scaled


def _make_upright(image: Image.Image, size: tuple[int, int] | None = None) -> None:
    """Decode `image` and rotate it by its EXIF data, unless its stored size is `size` and the other isn't."""
    image.load()
    if image.format != "TIFF":  # which Pillow rotates itself
        with suppress(Exception):  # broken metadata is no reason to lose an image
            as_stored = image.size == size != (image.height, image.width)
            if not (as_stored and image.getexif().get(ExifTags.Base.Orientation) in _SIDES_TURNED):
                ImageOps.exif_transpose(image, in_place=True)


_SIDES_TURNED = (5, 6, 7, 8)
"""Orientations, as EXIF numbers them, that exchange width and height."""


def _is_negative(image: Image.Image) -> bool:
    """Whether the smallest value is white, which Pillow handles only up to 8 bits."""
    return image.format == "TIFF" and _first(getattr(image, "tag_v2", {}), _PHOTOMETRIC, 1) == 0


def _tiles(image: Image.Image) -> list[Any]:
    """The tiles of a file: codec, box, offset and arguments."""
    return list(getattr(image, "tile", ()))


def _raw_mode(tile: Any) -> str:
    """The raw mode of a tile: its first or only argument."""
    return str(tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3])


def _bytes_of(image: Image.Image, raw_mode: Callable[[str], str]) -> np.ndarray[Any, Any]:
    """The first three bytes of each pixel, the tiles decoded in another raw mode."""
    changed: list[Any] = []
    for tile in _tiles(image):
        mode, arguments = raw_mode(_raw_mode(tile)), tile[3]
        arguments = (mode, *arguments[1:]) if isinstance(arguments, tuple) else mode
        # Plain tuples in older versions of Pillow.
        changed.append(tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments))
    image.tile = changed  # type: ignore[attr-defined]
    _make_upright(image)
    return np.asarray(image)[..., :3]


def _stated_by_tiff(tags: Mapping[int, Any], kind: str | None) -> Range | None:
    low, high = _first(tags, _S_MIN, 0), _first(tags, _S_MAX, None)
    if isinstance(low, int | float) and isinstance(high, int | float) and low < high:
        return float(low), float(high)
    bits = _first(tags, _BITS_PER_SAMPLE, 16)
    return (0.0, 2.0**bits - 1) if kind == "uint16" and 8 < bits < 16 else None


def _first(tags: Mapping[int, Any], tag: int, default: Any) -> Any:
    value = tags.get(tag, default)
    return value[0] if isinstance(value, tuple) and value else value


def _spread(paths: Sequence[str], count: int) -> Iterator[str]:
    """At most `count` of `paths`, evenly spaced."""
    count = min(count, len(paths))
    return (paths[number * len(paths) // count] for number in range(count))


@cache
def _formats() -> tuple[str, ...]:
    """Formats to try: not those that Pillow passes to other programs, such as EPS to Ghostscript."""
    Image.preinit()  # the common ones first, as in Pillow
    Image.init()
    return tuple(name for name in Image.OPEN if name not in ("EPS", "WMF"))


_LOOKED_AT = 256
_MAX_DEEP_PIXELS = 2**26
"""Half a gigabyte while scaling; Pillow refuses more than 179 million of any kind."""
_BITS = range(8, 36, 2)
_EXPONENTS = (*range(-24, -3), *range(8)), range(35, 128)
_OTHER = "B" if sys.byteorder == "little" else "L"
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBX", "RGBA")
    for order, other in (("L", "B"), ("B", "L"), ("N", _OTHER))
}
"""Pillow's raw modes of 16-bit samples -> those that read the other bytes."""
_GREY_ALPHA = "LA;16B"
# Tags of TIFF 6.0.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _S_MIN, _S_MAX = 258, 262, 339, 340, 341
_NO_FILES = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a pipe, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}
