import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.report.figure_files import check_figure_path, save
from wnexplore.report.profile_table import render
from wnexplore.report.roofline_figure import render_roofline, roofline_info
from wnexplore.results.network_profile import Complexity, LayerProfile, LayerTable, Peaks, Profile


def _layer(
    name: str,
    flops: int,
    moved: int,
    time_ms: float,
    kind: str = "Conv2d",
    formulation: str | None = None,
    depthwise: bool = False,
) -> LayerProfile:
    return LayerProfile(
        name=name,
        kind=kind,
        formulation=formulation,
        depthwise=depthwise,
        params=10,
        flops=flops,
        bytes=moved,
        time_ms=time_ms,
        time_share=time_ms / 10,
        intensity=4 * flops / moved,
        roofline_share=0.5,
    )


POINT = DesignPoint.of("resnet18", "weightnet", 2, 1)
TABLE = LayerTable(
    LatencyProtocol(device="cpu", device_name="AMD EPYC", dtype="float32", batch_size=4, threads=2),
    Peaks(bytes_per_s=2e10, multiply_adds_per_s=8e10),
    (
        _layer("conv1", 1_000_000, 400_000, 2.0),
        _layer("conv1.norm", 0, 400_000, 1.0, kind="BatchNorm2d"),
        _layer("block.alphas", 3_000, 60_000, 0.5, kind="ActivationVectors"),
        _layer("block.conv", 2_000_000, 300_000, 4.0, kind="WeightNetConv2d", formulation="kernel"),
        _layer("fc", 512_000, 2_000_000, 0.2, kind="Linear"),
    ),
)


def test_each_layer_with_work_is_a_mark_at_what_it_attained() -> None:
    info = roofline_info(POINT, TABLE)
    assert [mark.name for mark in info.layers] == ["block.conv", "conv1", "block.alphas", "fc"], (
        "longest first"
    )
    first, second = info.layers[:2]
    assert (first.kind, second.kind) == ("generated convolution", "convolution")
    # A batch of 4 in 4 ms.
    assert first.attained == pytest.approx(4 * 2_000_000 / 4e-3)
    assert first.intensity == pytest.approx(4 * 2_000_000 / 300_000)
    assert {mark.kind for mark in info.layers[2:]} == {"activation vectors", "linear"}
    # 2 + 0.5 + 4 + 0.2 of 10 ms are in these layers.
    assert "33%" in info.note
    assert "AMD EPYC · 2 threads · float32 · batch 4" in info.note


def test_the_picture_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(render_roofline(roofline_info(POINT, TABLE)), tmp_path / name)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1040, 820)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or ()}
        # White and grey only would mean that no mark was drawn.
        assert any(max(c) - min(c) > 80 for c in colours if isinstance(c, tuple))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_roofs_and_marks_are_where_the_figures_are() -> None:
    figure = render_roofline(roofline_info(POINT, TABLE))
    (ax,) = figure.axes
    (roof,) = ax.lines
    xs, ys = (list(map(float, values)) for values in (roof.get_xdata(), roof.get_ydata()))  # type: ignore[arg-type]
    assert (xs[1], ys[1]) == (4.0, 8e10), "the ridge"
    assert ys[0] == pytest.approx(xs[0] * 2e10)
    low, high = ax.get_xlim()
    for mark in roofline_info(POINT, TABLE).layers:
        assert low < mark.intensity < high
        assert ax.get_ylim()[0] < mark.attained < ax.get_ylim()[1]
    assert {"conv1 20%", "fc 2%"} <= {text.get_text() for text in ax.texts}


@pytest.mark.parametrize(
    ("kind", "formulation", "depthwise", "message"),
    [
        ("Conv2d", None, False, "convolution"),
        ("Conv2d", None, True, "depthwise convolution"),
        ("WeightNetConv2d", "kernel", False, "generated convolution"),
        ("CondConv2d", "shared", True, "generated depthwise convolution"),
        ("ActivationVectors", None, False, "activation vectors"),
        ("Context", None, False, "context"),
        ("SqueezeExcite", None, False, "squeeze-and-excitation"),
        ("PReLU", None, False, "other"),
    ],
)
def test_kinds_of_layers_are_reported_apart(
    kind: str, formulation: str | None, depthwise: bool, message: str
) -> None:
    layer = _layer("a", 10, 10, 1.0, kind, formulation, depthwise)
    (mark,) = roofline_info(POINT, replace(TABLE, layers=(layer,))).layers
    assert mark.kind == message


def test_a_network_without_work_has_no_roofline() -> None:
    with pytest.raises(InputError, match="multiply-adds"):
        roofline_info(POINT, replace(TABLE, layers=TABLE.layers[1:2]))


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "nowhere/figure.png", "folder.png"])
def test_where_nothing_can_be_drawn_is_reported_beforehand(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError):
        check_figure_path(tmp_path / name)
    check_figure_path(tmp_path / "figure.png")


def test_the_table_of_layers_has_bytes_and_shares() -> None:
    *_, table, peaks = render(Profile(POINT, Complexity(5, 7, 8, {"conv": 7}), (), TABLE, {}))
    columns = {column.header: list(column.cells) for column in table.columns}  # type: ignore[union-attr]
    assert columns["bytes"][0] == "400.00 k"
    assert columns["FLOPs/byte"][0] == "10.0"
    assert columns["roofline"][0] == "50.0%"
    assert columns["formulation"][:4] == ["", "", "", "kernel"]
    assert columns["FLOPs/byte"][1] == "", "no work"
    assert re.search(r"20\.00 GB.*80\.00 G", str(peaks))
