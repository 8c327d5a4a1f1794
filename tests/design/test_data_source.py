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
        ("shapes:20x5000:coarse", None, DataSource("shapes", None, 20, 5000), "shapes:20x5000"),
        ("shapes:10x2000:coarse", None, DataSource("shapes", None, 10, 2000), "shapes"),
        ("shapes:10:fine", None, DataSource("shapes", None, 10, 2000, "fine"), "shapes:10:fine"),
        (
            "shapes:20x8000:superclasses",
            None,
            DataSource("shapes", None, 20, 8000, "superclasses"),
            "shapes:20x8000:superclasses",
        ),
        ("shapes:200x5000:fine", None, DataSource("shapes", None, 200, 5000, "fine"), "shapes:200x5000:fine"),
    ],
)
def test_text_names_a_data_set(text: str, path: str | None, source: DataSource, label: str) -> None:
    assert parse_data(text, None if path is None else Path(path)) == source
    assert source.label == label
    assert check_data(text) == text


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("cifar", None, "'cifar'.*'cifar10'"),
        ("", None, "''.*digits"),
        ("Digits", None, "'Digits'.*'digits'"),
        ("digits:8", None, "'digits'"),
        ("digits", "x", "'digits'.*path"),
        ("shapes", "x", "'shapes'.*path"),
        ("cifar10", None, "'cifar10:PATH'"),
        ("folder:", None, "'folder:PATH'"),
        ("folder:a", "b", "'folder:a'.*b"),
        ("shapes:", None, "'shapes:CLASSESxIMAGES'"),
        ("shapes:1", None, r"\b2 to 100\b"),
        ("shapes:101", None, r"\b2 to 100\b"),
        ("shapes:10x", None, "shapes:20x5000"),
        ("shapes:x100", None, "shapes:20x5000"),
        ("shapes:10x19", None, r"\b20 to 10000000\b.*\b10\b"),
        ("shapes:10x10000001", None, r"\b20 to 10000000\b"),
        ("shapes:200", None, r"\b2 to 100\b.*'shapes:200:fine'"),
        ("shapes:1001:fine", None, r"\b2 to 1000 classes$"),
        ("shapes:1:fine", None, r"\b2 to 1000 classes$"),
        ("shapes:101:superclasses", None, r"\b2 to 100\b.*'shapes:101:fine'"),
        ("shapes:20x39:fine", None, r"\b40 to"),
        ("shapes:20:fin", None, "'fin'.*'fine'"),
        ("shapes:20:", None, "''.*coarse, fine, superclasses"),
        ("shapes:20:fine:2", None, "'fine:2'"),
        ("shapes:fine", None, "shapes:20x5000:fine"),
        ("shapes:-5", None, "shapes:20x5000"),
        ("shapes:٣", None, "shapes:20x5000"),
    ],
)
def test_what_names_none_is_refused(text: str, path: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_data(text, None if path is None else Path(path))
    assert "\n" not in str(error.value)


@given(st.integers(2, 100), st.integers(200, 10**7), st.sampled_from(["coarse", "fine", "superclasses"]))
def test_label_of_shapes_names_them_again(classes: int, images: int, drawing: str) -> None:
    source = parse_data(f"shapes:{classes}x{images}:{drawing}")
    assert (source.classes, source.images, source.drawing) == (classes, images, drawing)
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
    with pytest.raises(InputError, match="digits"):
        check_data(value)
