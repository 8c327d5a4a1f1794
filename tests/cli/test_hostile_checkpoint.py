"""Checkpoints of anybody's: none runs code, and whatever is altered gives a network or one line of ours."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.bounds import bounded
from tests.cli.conftest import Command
from tests.examples import examples, rest_slow
from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.external_names import source_hash
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.training.checkpoint import KEY, CheckpointMetadata, open_checkpoint, save_checkpoint

MARKING = """\
from pathlib import Path
from torch import nn

Path(__file__).with_name("mark").touch()

def make(num_classes=10):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def _save(path: Path, point: DesignPoint, source: str | None = None) -> Path:
    classes = tuple(map(str, range(point.num_classes)))
    how = Preprocessing((0.5,) * 3, (0.5,) * 3, crop=0.875, ranges={"grey": (0.0, 4095.0)})
    metadata = CheckpointMetadata(
        point, "digits", classes, how, {"epochs": 2}, 0, 1, 1.0, top1=50.0, source=source
    )
    save_checkpoint(path, build(point), metadata)
    return path


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A checkpoint of a network in a file that leaves a mark when it is run."""
    file = tmp_path / "net.py"
    file.write_text(MARKING)
    name = f"{file}:make"
    point = DesignPoint.of(name, resolution=8, num_classes=10)
    path = _save(tmp_path / "foreign.safetensors", point, source_hash(name))
    (tmp_path / "mark").unlink()
    return path


def _requested(name: str, checkpoint: Path) -> list[object]:
    if name == "export-onnx":
        return [name, "--checkpoint", checkpoint, "--out", checkpoint.with_name("x.onnx")]
    return [name, checkpoint, *(["x.png"] if name == "predict" else [])]


READERS = ("evaluate", "predict", "analyze", "export-onnx")


@pytest.mark.parametrize("reader", READERS)
def test_a_checkpoint_runs_no_code(reader: str, foreign: Path, command: Command) -> None:
    mark, file = foreign.with_name("mark"), foreign.with_name("net.py")
    other = foreign.with_name("other.py")
    other.write_text(MARKING + "# another\n")
    for named, message in (
        ([], f"add --backbone {file}:make"),
        (["--backbone", f"{other}:make"], str(other)),
        (["--backbone", f"{file}:other"], "file.py:make"),
        (["--backbone", "resnet18"], ""),
        (["--backbone", f"{foreign.parent}/none.py:make"], "none.py"),
    ):
        done = command(*_requested(reader, foreign), *named)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
        assert not mark.exists()
    # One that changed since.
    file.write_text(MARKING + "# changed\n")
    done = command(*_requested(reader, foreign), "--backbone", f"{file}:make")
    assert done.code == 2
    assert str(file) in done.err
    assert not mark.exists()


def test_the_file_that_is_named_and_the_same_is_run(foreign: Path, command: Command) -> None:
    moved = foreign.with_name("moved.py")
    foreign.with_name("net.py").rename(moved)
    done = command("evaluate", foreign, "--backbone", f"{moved}:make", "--device", "cpu")
    assert done.code == 0, done.err
    assert " 360 " in done.out
    assert foreign.with_name("mark").exists()


def test_a_checkpoint_without_the_hash_is_refused(foreign: Path, command: Command) -> None:
    _alter(foreign, foreign, lambda content: content.update(source=None))
    done = command("evaluate", foreign, "--backbone", f"{foreign.with_name('net.py')}:make")
    assert done.code == 2
    assert "hash" in done.err
    assert not foreign.with_name("mark").exists()


def _alter(path: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """`path` with its metadata changed, its tensors as they are."""
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()[KEY])
    change(content)
    return _with_text(path, to, json.dumps(content))


def _with_text(path: Path, to: Path, text: str) -> Path:
    save_file(load_file(path), to, {"format": "pt", KEY: text})
    return to


def _put(place: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        *above, name = place.split(".")
        for part in above:
            content = content[part]
        content[name] = value

    return change


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network of ours, small."""
    folder = tmp_path_factory.mktemp("ours")
    torch.manual_seed(0)
    point = DesignPoint.of(
        "mobilenet_v2_x0_1", "weightnet", M=1, G=1, stages="5", stem="small", resolution=8, num_classes=10
    )
    return _save(folder / "best.safetensors", point)


_SIZES = ("resolution", "num_classes", "experts", "temperature", "reduction", "M", "G", "stem")
_ODD_SIZES: tuple[object, ...] = (10**9, 10**30, 0, -1, 0.5, True, "x", "9" * 10_000, [], {"a": 1})
_ODD_VALUES: dict[str, tuple[object, ...]] = {
    "preparation.crop": (0, -1, float("nan"), "wide", 1.5, None, [], 1e-9),
    "preparation.mean": ([0.5, 0.5], 0.5, "grey", [0.5] * 4, [[0.5]] * 3, None),
    "preparation.std": tuple([value] * 3 for value in (0, -1, 1e-300, float("inf"), True, "1")),
    "preparation.ranges": ([], {"grey": 1}, {"grey": [1]}, {"grey": [5, 5]}),
    "preparation": (None, 3, "x", [], {}),
    "data": (7, None, [], "nothing", "shapes:1000000000", "digits:x"),
    "classes": (7, None, [], "0123456789", [1] * 10, ["a"] * 9, {}),
    "recipe": (7, None, [], {"epochs": "many"}, {"lr": -1}, {"strange": 1}),
    "seed": (-1, 1.5, "1", True, None, 10**30),
    "step": (-1, 1.5, "1", True, None, 10**30),
    "epoch": (-1, "1", float("nan"), None),
    "top1": (-1, 101, "best"),
    "version": (0, -1, "1", None, 1.0, True),
    "source": (1, "", "x" * 12, "../../x.py"),
    "point": (None, 3, [], "resnet18", {}, {"backbone": "resnet18", "x": 1}),
    "point.method": ("magic", None, 1, "se", "\x1b[31m"),
    "point.backbone": ("resnet", None, 1, "timm:", ":", "x.txt:f", "resnet18"),
    "strange": (1, None),
    **{f"point.{axis}": _ODD_SIZES for axis in _SIZES},
    # Images of half a gigabyte each, which a network could be made for.
    "point.resolution": (*_ODD_SIZES, 8192),
}
_DAMAGE = [
    (place, value)
    for place, values in _ODD_VALUES.items()
    for value in values
    if (place, value) != ("point.reduction", 10**9)
]


@pytest.mark.parametrize(("place", "value"), _DAMAGE, ids=lambda value: str(value)[:40])
def test_damaged_metadata_is_one_line_with_the_field(
    place: str, value: object, ours: Path, tmp_path: Path
) -> None:
    path = _alter(ours, tmp_path / "x.safetensors", _put(place, value))
    with pytest.raises(InputError) as message:
        open_checkpoint(path)
    line = str(message.value)
    assert "is damaged: " in line
    assert "\n" not in line
    assert len(line) < 800
    assert line.isprintable()
    named = line.partition("is damaged: ")[2]
    assert place.split(".")[0] in named or "a number" in named or "tensors: " in named


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "null",
            "3",
            '"text"',
            "[]",
            "{",
            "{}",
            "NaN",
            '{"version": 1',
            "\ud800".encode("unicode_escape").decode(),
        ),
        "[" * 100_000,
        '{"version": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"version": 1, "version": 1}',
        '{"version": ' + "9" * 10_000 + "}",
        '{"version": 1, "data": "' + "x" * 20_000_000 + '"}',
    ],
    ids=lambda value: value[:20],
)
def test_metadata_of_another_kind_is_one_line(text: str, ours: Path, tmp_path: Path) -> None:
    path = _with_text(ours, tmp_path / "x.safetensors", text)
    with pytest.raises(InputError, match="is damaged: ") as message:
        open_checkpoint(path)
    assert len(str(message.value)) < 800


@pytest.mark.parametrize(
    "field", rest_slow(["classes", "recipe", "point", "strange", "preparation"], "classes")
)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[" + "[]," * 1_000_000 + "[]]", "1,000|expected names, not"),
        ("{" + ",".join(f'"{n}":{{}}' for n in range(300_000)) + "}", "1,000|should be a"),
        ("[" * 500 + "]" * 500, "nested more than 5|expected names, not"),
        ('[{"a":[1,2]}' + ',{"a":[1,2]}' * 200_000 + "]", "1,000|expected names, not"),
    ],
    ids=["lists", "keys", "deep", "objects"],
)
def test_metadata_of_many_values_is_refused_at_once(
    field: str, value: str, message: str, ours: Path, tmp_path: Path
) -> None:
    with safe_open(ours, framework="pt") as file:
        content = json.loads(file.metadata()[KEY])
    content[field] = "HERE"
    text = json.dumps(content).replace('"HERE"', value)
    path = _with_text(ours, tmp_path / "x.safetensors", text)
    with bounded(), pytest.raises(InputError, match=f"is damaged: {field}: .*({message})"):
        open_checkpoint(path)


def test_state_outside_the_weights_is_bounded(ours: Path, tmp_path: Path) -> None:
    nested: list[Any] = [[] for _ in range(300_000)]
    buffer = io.BytesIO()
    torch.save({"a": nested}, buffer)
    text = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
    with safe_open(ours, framework="pt") as file:
        metadata = file.metadata() | {f"{KEY}.beside": text}
    path = tmp_path / "x.safetensors"
    save_file(load_file(ours), path, metadata)
    with bounded(), pytest.raises(InputError, match=r"'wnexplore\.beside'"):
        open_checkpoint(path)


@pytest.mark.slow
def test_a_checkpoint_of_a_network_of_ours_needs_no_library_for_meta_tensors(ours: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        " from wnexplore.training.checkpoint import open_checkpoint as o;"
        " o(Path(sys.argv[1])); print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, ours], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# What anybody may put where a value was.
_ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([10**9, -(10**9), 10**30, 1e308, float("nan"), float("inf"), 1e-320])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["plain", "weightnet", "condconv", "sk", "1/48", "4/C", "2:1+3:2", "3+4", "identity"])
    | st.sampled_from(
        ["resnet18", "timm:resnet18", "net.py:make", "shapes:3", "folder:/nowhere", "x" * 10_000]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def _places(content: object, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list):
        inner = list(enumerate(content))
    below = [found for name, value in inner for found in _places(value, (*place, name))]
    return [place, *below] if place else below


def _tried(path: Path) -> None:
    """Open a checkpoint: an `InputError` of one line, if it can't be."""
    try:
        with bounded():
            open_checkpoint(path)
    except InputError as error:
        message = str(error)
    else:
        return
    assert "\n" not in message
    assert len(message) < 1000
    # An allocation that failed would be the gigabyte that no file may take.
    assert "fit in memory" not in message


_settings = examples(int(os.environ.get("WNEXPLORE_EXAMPLES", "50")))


@_settings
@given(data=st.data())
def test_altered_metadata_gives_a_network_or_one_line(data: st.DataObject, ours: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for _ in range(data.draw(st.integers(1, 3))):
            *above, name = data.draw(st.sampled_from(_places(content)))
            inner: Any = content
            for part in above:
                inner = inner[part]
            if data.draw(st.booleans()) or isinstance(inner, list):
                inner[name] = data.draw(_ODD)
            else:
                del inner[name]

    _tried(_alter(ours, ours.with_name("altered.safetensors"), change))


@_settings
@given(data=st.data())
def test_altered_bytes_give_a_network_or_one_line(data: st.DataObject, ours: Path) -> None:
    content = bytearray(ours.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["flip", "flip", "cut", "length", "insert", "digit"]))
        largest = header if data.draw(st.booleans()) else len(content)
        at = data.draw(st.integers(0, max(0, min(largest, len(content)) - 1)))
        if kind == "cut":
            del content[at:]
        elif kind == "length":
            content[:8] = data.draw(st.integers(0, 2**64 - 1)).to_bytes(8, "little")
        elif kind == "insert":
            content[at:at] = data.draw(st.binary(max_size=8))
        elif content:
            content[at] = (
                data.draw(st.sampled_from(b"0123456789"))
                if kind == "digit"
                else content[at] ^ (1 << data.draw(st.integers(0, 7)))
            )
    path = ours.with_name("altered.safetensors")
    path.write_bytes(content)
    _tried(path)


_LIMITED = """
import resource, sys, time
from pathlib import Path
import torch
from wnexplore.training.checkpoint import open_checkpoint
from wnexplore.errors import WnexploreError
paths = [Path(name) for name in sys.argv[1:]]
open_checkpoint(paths[0])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for path in paths[1:]:
    began = time.perf_counter()
    try:
        open_checkpoint(path)
    except WnexploreError as error:
        assert error.exit_code == 2 and "damaged" in str(error), error
    else:
        raise AssertionError(path)
    print(path.name, time.perf_counter() - began)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_what_would_take_all_memory_is_refused_within_a_gigabyte(ours: Path, tmp_path: Path) -> None:
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "resolution": _put("point.resolution", 10**9),
        "large": _put("point.resolution", 16_384),
        "classes": lambda content: (
            content["point"].update(num_classes=1_000_000),
            content.update(classes=["a"] * 1_000_000),
        ),
        "experts": lambda content: content["point"].update(
            method="condconv", experts=10_000, M=None, G=None, activation=None, reduction=None, depthwise=None
        ),
        "M": _put("point.M", 10_000),
        "width": lambda content: content["point"].update(backbone="mobilenet_v2_x40_0", M=1, G=1),
        "library": lambda content: content["point"].update(
            backbone="torchvision:vit_h_14",
            method="plain",
            stem="imagenet",
            resolution=224,
            **dict.fromkeys(("M", "G", "stages", "activation", "reduction", "depthwise")),
        ),
    }
    paths = [_alter(ours, tmp_path / f"{name}.safetensors", change) for name, change in changes.items()]
    texts = {"lists": "[" + "[]," * 1_300_000 + "[]]", "deep": "[" * 10_000_000}
    paths += [_with_text(ours, tmp_path / f"{name}.safetensors", text) for name, text in texts.items()]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(ours), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == len(paths)
