"""Pixels of image files against numpy's arithmetic, Pillow's own conversion and what a file may not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.files import Values, png, tiff, tiff_of_12_bits
from tests.data.unreadable import unreadable
from tests.examples import examples
from wnexplore.data.decoding import range_of, ranges_of, read_image, reason

MANY = examples(80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pgm(values: Values) -> bytes:
    height, width = values.shape
    return f"P5 {width} {height} {values.max()}\n".encode() + values.astype(">u2").tobytes()


GREYS: dict[str, Callable[[Values], bytes]] = {
    "png": png,
    "png with alpha": lambda v: png(np.stack([v, np.full_like(v, 65535)], axis=2)),
    "tiff": tiff,
    "tiff, big-endian": lambda v: tiff(v, order=">"),
    "tiff, compressed": lambda v: tiff(v, compressed=True),
    "tiff of 32 bits": lambda v: tiff(v.astype(np.int32)),
    "tiff of 32 bits, unsigned": lambda v: tiff(v.astype(np.uint32)),
    "tiff of floats": lambda v: tiff(v.astype(np.float32)),
    "tiff of floats up to 1": lambda v: tiff((v / v.max()).astype(np.float32)),
    "pgm": pgm,
}


@MANY
@given(
    how=st.sampled_from(sorted(GREYS)),
    bits=st.sampled_from([10, 12, 14, 16]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
)
def test_grey_images_of_any_depth_reach_from_black_to_white(
    tmp_path: Path, how: str, bits: int, size: tuple[int, int], seed: int
) -> None:
    values = np.random.default_rng(seed).integers(2**bits, size=size, dtype=np.uint16)
    values.flat[seed % values.size] = 2**bits - 1
    path = str(tmp_path / "image")
    Path(path).write_bytes(GREYS[how](values))
    image = read_image(path, ranges_of([path]))
    assert image.mode == "F"
    np.testing.assert_allclose(np.asarray(image), values / (2**bits - 1) * 255, atol=0.01)


@MANY
@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    how=st.sampled_from(["png", "png with alpha", "<", ">", "compressed"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_colours_of_16_bits_reach_from_black_to_white(
    tmp_path: Path, bits: int, size: tuple[int, int], how: str, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(2**bits, size=(*size, 3), dtype=np.uint16)
    values.flat[seed % values.size] = 2**bits - 1
    alpha = np.full((*size, 1), 65535, np.uint16)
    path = str(tmp_path / "image")
    Path(path).write_bytes(
        png(values)
        if how == "png"
        else png(np.concatenate([values, alpha], axis=2))
        if how == "png with alpha"
        else tiff(values, compressed=True)
        if how == "compressed"
        else tiff(values, order=how)
    )
    pixels = np.asarray(read_image(path, ranges_of([path])))
    np.testing.assert_allclose(pixels, values / (2**bits - 1) * 255, atol=0.501)


def test_a_dark_image_stays_dark_next_to_a_bright_one(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("bright.png", "dark.png")]
    for path, largest in zip(paths, (4000, 40), strict=True):
        Path(path).write_bytes(png(np.array([[0, largest]], np.uint16)))
    ranges = ranges_of(paths)
    assert ranges == {"uint16": (0, 4095)}
    brightest = [np.asarray(read_image(path, ranges)).max() for path in paths]
    assert brightest == pytest.approx([4000 / 4095 * 255, 40 / 4095 * 255])


def test_what_a_file_says_goes_before_what_is_in_the_others(tmp_path: Path) -> None:
    values = np.array([[0, 100], [200, 300]], np.uint16)
    files = {"smax": tiff(values, sample_max=1000), "packed": tiff_of_12_bits(values)}
    for (name, content), white in zip(files.items(), (1000, 4095), strict=True):
        path = str(tmp_path / name)
        Path(path).write_bytes(content)
        assert ranges_of([path]) == {}
        pixels = np.asarray(read_image(path, {"uint16": (0, 65535)}))
        np.testing.assert_allclose(pixels, values / white * 255, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_where_the_smallest_value_is_white_it_stays_so(tmp_path: Path, kind: type) -> None:
    values: Values = np.array([[0, 1000], [3000, 4095]], kind)
    path = str(tmp_path / "negative.tif")
    Path(path).write_bytes(tiff(values, photometric=0))
    pixels = np.asarray(read_image(path, ranges_of([path])))
    np.testing.assert_allclose(pixels, 255 - values.astype(float) / 4095 * 255, atol=1e-3)


def test_negative_values_are_grey(tmp_path: Path) -> None:
    values = np.array([[-1024, 0], [1000, 3071]], np.int16)  # as computed tomography has them
    path = str(tmp_path / "ct.tif")
    Path(path).write_bytes(tiff(values))
    assert ranges_of([path]) == {"int32": (-8192, 8191)}
    pixels = np.asarray(read_image(path, ranges_of([path])))
    np.testing.assert_allclose(pixels, (values + 8192.0) / 16383 * 255, atol=1e-3)


def test_values_outside_of_the_range_are_refused_and_not_clipped(tmp_path: Path) -> None:
    path = str(tmp_path / "x.png")
    Path(path).write_bytes(png(np.array([[5, 5000]], np.uint16)))
    with pytest.raises(ValueError, match=r"\b5 to 5000\b.*\b0\b.*\b4095\b"):
        read_image(path, {"uint16": (0, 4095)})
    Path(path).write_bytes(tiff(np.array([[0, np.nan]], np.float32)))
    with pytest.raises(ValueError, match="finite"):
        read_image(path, {})


@MANY
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_images_of_8_bits_are_as_pillow_has_them_and_upright(
    tmp_path: Path, mode: str, size: tuple[int, int], orientation: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(256, size=(*size, 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA").convert("RGB" if mode not in ("LA", "RGBA") else "RGBA")
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    path, exif = str(tmp_path / f"image.{suffix}"), Image.Exif()
    exif[0x0112] = orientation
    image.convert(mode).save(path, exif=exif)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    # As the EXIF standard has it: what the first row and the first column of the file are.
    upright = {
        1: expected,
        2: expected[:, ::-1],
        3: expected[::-1, ::-1],
        4: expected[::-1],
        5: expected.transpose(1, 0, 2),
        6: expected.transpose(1, 0, 2)[:, ::-1],
        7: expected[::-1, ::-1].transpose(1, 0, 2),
        8: expected.transpose(1, 0, 2)[::-1],
    }[orientation]
    read = read_image(path, {})
    assert read.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(read), upright)


@given(low=st.floats(-(2.0**31), 2.0**31), high=st.floats(-(2.0**31), 2.0**31))
@settings(deadline=None)
def test_a_range_holds_the_values_that_it_was_found_from(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    for kind in ("int32", "float32"):
        black, white = range_of(kind, low, high)
        assert black <= low <= high <= white
        assert range_of(kind, black, white) == (black, white)
        if kind == "float32":
            # Never so much larger that the picture is black.
            assert max(abs(low), high) > white / 16.01 or white < 1e-6


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        *[(0, 0.7, (0, 1)), (0, 1, (0, 1)), (0, 1.02, (0, 2)), (0, 0.01, (0, 2**-6)), (-0.3, 1, (-1, 1))],
        *[(0, 200, (0, 255)), (-100, 200, (-512, 511)), (0, 1e12, (0, 2.0**40))],
    ],
)
def test_ranges_of_floats(low: float, high: float, expected: tuple[float, float]) -> None:
    assert range_of("float32", low, high) == expected


def test_what_is_no_image_is_reported_in_a_line(tmp_path: Path) -> None:
    for name, message in unreadable(tmp_path).items():
        line = ""
        try:
            read_image(f"{tmp_path}/{name}", {})
        except Exception as error:  # whatever a decoder may raise
            line = reason(error)
        assert message in line, name
        assert line.isprintable()
        assert 3 < len(line) < 400


def test_files_of_which_none_can_be_read_are_reported_with_the_first(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for path in paths:
        Path(path).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png: "):
        ranges_of(paths)
    Path(paths[2]).write_bytes(png(np.array([[5, 5000]], np.uint16)))
    assert ranges_of(paths) == {"uint16": (0, 2**14 - 1)}


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["png", "jpeg", "gif", "tiff", "bmp", "webp", "ppm", "grey png", "grey tiff"]),
    changes=st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 600),
)
def test_altered_files_give_an_image_or_a_reason(
    tmp_path: Path, kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path / "image"
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
    if kind.startswith("grey"):
        path.write_bytes(png(values) if "png" in kind else tiff(values))
    else:
        Image.fromarray(values.astype(np.uint8)).convert("RGB").save(path, kind)
    content = bytearray(path.read_bytes()[: max(cut, 40)])
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    line = "an image"
    try:
        assert read_image(str(path), {"uint16": (0, 4095)}).mode in ("RGB", "F")
    except Exception as error:  # whatever a decoder may raise
        line = reason(error)
    assert 3 < len(line) < 400
    assert line.isprintable()
