"""YAML 1.2's core schema, and bounds on what a file may hold."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wnexplore.design.sweep_file import load_sweep
from wnexplore.design.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, dump_yaml, read_yaml
from wnexplore.errors import InputError


def _read(folder: Path, text: str) -> Any:
    path = folder / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path, "file")[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # The examples of section 10.3.2 of the specification of YAML 1.2.2 ...
        ("[null, NULL, ~, ]", [None, None, None]),
        ("[true, True, false, FALSE]", [True, True, False, False]),
        ("[0, 0o7, 0x3A, -19, +12]", [0, 7, 58, -19, 12]),
        ("[0., -0.0, .5, +12e03, -2E+05]", [0.0, -0.0, 0.5, 12000.0, -200000.0]),
        ("[.inf, -.Inf, +.INF]", [math.inf, -math.inf, math.inf]),
        # ... and what YAML 1.1 took for something else.
        ("[3:2, 1:30, 190:20:30, 1_000, 0b11, 1e]", ["3:2", "1:30", "190:20:30", "1_000", "0b11", "1e"]),
        ("[010, 08, 1e3]", [10, 8, 1000.0]),
        ("[yes, no, on, off, y, n, tRue]", ["yes", "no", "on", "off", "y", "n", "tRue"]),
        ("[2024-01-01, 2024-01-01 10:00:00, =]", ["2024-01-01", "2024-01-01 10:00:00", "="]),
        ("['2', \"2\", !!str 2, ! 2]", ["2", "2", "2", "2"]),
        ("[!!int '3', !!float 3, !!null '', !!bool 'true']", [3, 3, None, True]),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("{2: a, x: b}", {2: "a", "x": "b"}),
        ("", None),
        ("\ufeffa: 1", {"a": 1}),
    ],
)
def test_values_are_those_of_the_core_schema(tmp_path: Path, text: str, value: Any) -> None:
    found = _read(tmp_path, text)
    assert found == value
    assert _kinds(found) == _kinds(value)


def _kinds(value: Any) -> Any:
    """The types of what `value` holds: True equals 1, and 2.0 equals 2."""
    if isinstance(value, list):
        return [_kinds(item) for item in value]
    return float if isinstance(value, float) else type(value)


_LAUGHS = "\n".join(
    f"  - &{name} [{', '.join([f'*{before}'] * 10)}]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"M:\n  - &a [x, x]\n{_LAUGHS}", rf"more than {MAX_VALUES:,} values, aliases written out"),
        ("M: [" + "1," * MAX_VALUES + "]", rf"more than {MAX_VALUES:,} values"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), rf"more than {MAX_DEPTH} deep"),
        (
            "- &a [[[[[[[[[[[1]]]]]]]]]]]\n- [[[[[[[[[[*a]]]]]]]]]]",
            rf"line 2: nested more than {MAX_DEPTH} deep",
        ),
        ("[" * 100_000, "deep|nesting"),
        ("x" * (MAX_BYTES + 1), r"more than the 1,000,000 bytes allowed"),
        ("a: &x [*x]", r"line 1: alias '\*x' refers to itself"),
        ("a:\n  &x {b: {c: *x}}", r"line 2: alias '\*x' refers to itself"),
        ("a: *x", r"alias '\*x' has no anchor"),
        ('a: "\\ud800"', "escape|surrogate"),
        ('a: "\\UFFFFFFFF"', "escape|character"),
        ("a: 1\nb: 2\na: 3", r"line 3: key 'a' stands twice"),
        ("{2: a, '2': b}", r"key '2' stands twice"),
        ("{[1]: 2}", "a list or mapping as a key"),
        ("{1.5: 2}", "'1.5' as a key: expected a word or a whole number"),
        ("a: &x {b: 1}\nc: {<<: *x}", "line 2: '<<' merges keys"),
        ("- 1\n---\n- 2", "line 2: a second document"),
        ("!!python/object:os.system x", "tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("!!binary aGk=", "tag"),
        ("!!set {a}", "tag"),
        ("!!int x", "'x' is not what its tag !!int says"),
        ("1e400", "too large or too small"),
        ("1e-400", "too large or too small"),
        ("9" * 101, "a number of 101 characters"),
        ("a: [1", "not valid YAML"),
    ],
)
def test_what_is_beyond_the_bounds_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        _read(tmp_path, text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_text_reads_back_in_both_versions(text: str) -> None:
    import tempfile

    dumped = dump_yaml({"a": text})
    assert yaml.safe_load(dumped) == {"a": text}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.yaml"
        path.write_bytes(dumped.encode())
        assert read_yaml(path, "file")[0] == {"a": text}


@pytest.mark.parametrize("text", ["0o10", "1e3", "010", "3:2", "yes", "~", "0x1", "1e400", "", ".5"])
def test_a_text_that_looks_like_something_else_stays_one(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path, dump_yaml([text])) == [text]


@pytest.mark.parametrize(
    ("written", "M"),
    [
        ("'2:1+3:3+4:2'", "2:1+3:3+4:2"),
        ("2:1+3:3+4:2", "2:1+3:3+4:2"),
        ("0.1", "1/10"),
        ("0.12345678901234567891", "12345678901234567891/100000000000000000000"),
        ("1e-5", "1/100000"),
        (".5", "1/2"),
        ("010", "10"),
    ],
)
def test_a_multiplier_is_what_the_command_line_makes_of_it(tmp_path: Path, written: str, M: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"M: [{written}]\n")
    read = load_sweep(path).M
    assert list(map(str, read)) == [M]
    assert read == load_sweep(None, {("M",): ("--M", [written.strip("'")])}).M


@pytest.mark.parametrize("wrong", ["3:2", "1:30", "1_000", "yes", "2024-01-01", "٣", "~", ".inf", "2 2"])
def test_no_multiplier_is_made_of_what_is_none(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"M: [{wrong}]\n", encoding="utf-8")
    with pytest.raises(InputError, match="M is '"):
        load_sweep(path)


@pytest.mark.parametrize("wrong", ["yes", "true", "1_000", "1:30", "'1_0'", "2024-01-01"])
@pytest.mark.parametrize("key", ["epochs", "lr", "seeds"])
def test_no_number_is_made_of_what_is_none(tmp_path: Path, key: str, wrong: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"train: {{{key}: {wrong}}}\n")
    with pytest.raises(InputError, match=r"expected a (whole )?number"):
        load_sweep(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {seeds: 1000000000}", "expected less than or equal to 10000"),
        ("train: {jobs: 1000000}", "expected less than or equal to 1024"),
        ("latency: {threads: 1000000000}", "expected less than or equal to 4096"),
        ("latency: {batch_sizes: [1000000000]}", "expected less than or equal to 1000000"),
        ("M: [" + "1," * 10_001 + "]", "M has 10001 values: expected at most 10,000"),
        ("M: [x" + ", x" * 9_999 + "]", "M is 'x'"),
        ("backbones: [" + "x" * 100_000 + "]", r"unknown backbone 'x+\.\.\. \(99880 more characters\)'"),
        (
            "points: [{backbone: resnet18, num_classes: 1000000000}]",
            "num_classes is 1000000000: expected at most",
        ),
        (
            "points: [{backbone: resnet18, resolution: 1000000000}]",
            "resolution is 1000000000: expected at most",
        ),
    ],
)
def test_sizes_are_bounded(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_sweep(path)
    assert len(str(error.value)) < 800


@pytest.mark.parametrize("wrong", ["yes", "on", "0", "1", "'true'", "~", "[true]"])
@pytest.mark.parametrize("key", ["per_stage: {}", "train: {{nesterov: {}}}", "train: {{download: {}}}"])
def test_true_and_false_alone_are_so(tmp_path: Path, key: str, wrong: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(key.format(wrong) + "\n")
    with pytest.raises(InputError, match=r"line 1: .* expected a valid boolean"):
        load_sweep(path)
    path.write_text(key.format("true") + "\n")
    load_sweep(path)
