from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.design.data_source import DATA_SETS, DataSource, check_data, parse_data
from wnexplore.errors import InputError


@pytest.mark.parametrize(
    ("text", "path", "source", "label"),
    [
        ("digits", None, DataSource("digits"), "digits"),
        ("cifar10:a/b", None, DataSource("cifar10", Path("a/b")), "cifar10"),
        ("folder:C:/images", None, DataSource("folder", Path("C:/images")), "folder"),
        ("fashion_mnist", "x", DataSource("fashion_mnist", Path("x")), "fashion_mnist"),
        ("cifar100:x", "x", DataSource("cifar100", Path("x")), "cifar100"),
        ("shapes", None, DataSource("shapes", None, 10, 2000), "shapes"),
        ("shapes:10x2000", None, DataSource("shapes", None, 10, 2000), "shapes"),
        ("shapes:20", None, DataSource("shapes", None, 20, 2000), "shapes:20"),
        ("shapes:20x5000", None, DataSource("shapes", None, 20, 5000), "shapes:20x5000"),
    ],
)
def test_text_names_a_data_set(text: str, path: str | None, source: DataSource, label: str) -> None:
    assert parse_data(text, None if path is None else Path(path)) == source
    assert source.label == label
    assert check_data(text) == text


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("cifar", None, "did you mean 'cifar10'"),
        ("", None, "unknown data set"),
        ("Digits", None, "did you mean 'digits'"),
        ("digits:8", None, "'digits' is embedded and takes nothing"),
        ("digits", "x", "'digits' is embedded: leave path"),
        ("shapes", "x", "made on the fly: leave path"),
        ("cifar10", None, "'cifar10' needs the path of its folder: 'cifar10:PATH'"),
        ("folder:", None, "expected 'folder:PATH'"),
        ("folder:a", "b", "name two folders"),
        ("shapes:", None, "expected 'shapes:CLASSESxIMAGES'"),
        ("shapes:1", None, "expected 2 to 100 classes"),
        ("shapes:101", None, "expected 2 to 100 classes"),
        ("shapes:10x", None, "such as shapes:20x5000"),
        ("shapes:x100", None, "such as shapes:20x5000"),
        ("shapes:10x19", None, "expected 20 to 10000000 images for 10 classes"),
        ("shapes:10x10000001", None, "expected 20 to 10000000 images"),
        ("shapes:-5", None, "such as shapes:20x5000"),
        ("shapes:٣", None, "such as shapes:20x5000"),
    ],
)
def test_what_names_none_is_refused(text: str, path: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_data(text, None if path is None else Path(path))
    assert "\n" not in str(error.value)


@given(st.integers(2, 100), st.integers(200, 10**7))
def test_label_of_shapes_names_them_again(classes: int, images: int) -> None:
    source = parse_data(f"shapes:{classes}x{images}")
    assert (source.classes, source.images) == (classes, images)
    assert parse_data(source.label) == source


@given(st.sampled_from(DATA_SETS), st.text(max_size=9))
def test_any_argument_is_read_or_refused(name: str, argument: str) -> None:
    try:
        source = parse_data(f"{name}:{argument}")
    except InputError:
        return
    assert source.name == name
    assert source.path is None or source.path == Path(argument)


@pytest.mark.parametrize("value", [5, None, True, ["digits"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="unknown data set"):
        check_data(value)
