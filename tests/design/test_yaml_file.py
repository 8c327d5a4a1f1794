"""YAML 1.2's core schema, and bounds on what a file may hold."""

import math
import re
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
        (f"M:\n  - &a [x, x]\n{_LAUGHS}", rf"\b{MAX_VALUES:,}\b"),
        ("M: [" + "1," * MAX_VALUES + "]", rf"\b{MAX_VALUES:,}\b"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), rf"\b{MAX_DEPTH}\b"),
        (
            "- &a [[[[[[[[[[[1]]]]]]]]]]]\n- [[[[[[[[[[*a]]]]]]]]]]",
            rf"line 2: .*\b{MAX_DEPTH}\b",
        ),
        ("[" * 100_000, "deep|nesting"),
        ("x" * (MAX_BYTES + 1), r"\b1,000,000\b"),
        ("a: &x [*x]", r"line 1: .*'\*x'"),
        ("a:\n  &x {b: {c: *x}}", r"line 2: .*'\*x'"),
        ("a: *x", r"'\*x'.*anchor"),
        ('a: "\\ud800"', "escape|surrogate"),
        ('a: "\\UFFFFFFFF"', "escape|character"),
        ("a: 1\nb: 2\na: 3", r"line 3: .*'a'"),
        ("{2: a, '2': b}", r"'2'"),
        ("{[1]: 2}", "list.*key"),
        ("{1.5: 2}", "'1.5'.*key"),
        ("a: &x {b: 1}\nc: {<<: *x}", "line 2: .*'<<'"),
        ("- 1\n---\n- 2", "line 2: .*document"),
        ("!!python/object:os.system x", "tag 'tag:yaml.org,2002:python/object:os.system'"),
        ("!!binary aGk=", "tag"),
        ("!!set {a}", "tag"),
        ("!!int x", "'x'.*!!int"),
        ("1e400", "1e400|too large"),
        ("1e-400", "1e-400|too small"),
        ("9" * 101, r"\b101\b"),
        ("a: [1", "YAML"),
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
    with pytest.raises(InputError, match=re.escape(wrong.strip("'"))):
        load_sweep(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {seeds: 1000000000}", r"train\.seeds is '1000000000'.*\b10000\b"),
        ("train: {jobs: 1000000}", r"train\.jobs is '1000000'.*\b1024\b"),
        ("train: {jobs: 0}", r"train\.jobs is '0': expected auto, or a whole number"),
        ("train: {jobs: automatic}", r"train\.jobs is 'automatic': expected auto, or a whole number"),
        ("train: {jobs: true}", r"train\.jobs is '(True|true)': expected auto, or a whole number"),
        ("latency: {threads: 1000000000}", r"latency\.threads is '1000000000'.*\b4096\b"),
        ("latency: {batch_sizes: [1000000000]}", r"latency\.batch_sizes is '1000000000'.*\b1000000\b"),
        ("M: [" + "1," * 10_001 + "]", r"\bM\b.*\b10001\b.*\b10,000\b"),
        ("M: [x" + ", x" * 9_999 + "]", "M is 'x'"),
        ("backbones: [" + "x" * 100_000 + "]", r"backbone 'x+\.\.\. \(99880 "),
        (
            "points: [{backbone: resnet18, num_classes: 1000000000}]",
            "num_classes is 1000000000",
        ),
        (
            "points: [{backbone: resnet18, resolution: 1000000000}]",
            "resolution is 1000000000",
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
