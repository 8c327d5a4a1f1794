"""Networks from files, of every kind that was once counted wrong: space, profile and sweep say one figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import external_networks
from tests.built import counts_of
from tests.examples import rest_slow
from wnexplore.design.counts import count
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import LatencySpec
from wnexplore.errors import InputError
from wnexplore.measure.layer_profile import measure_layers
from wnexplore.models.build import build
from wnexplore.models.convert import convert
from wnexplore.results.network_profile import OWN_WORK, Peaks
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.study.profile import profile

FILE = Path(external_networks.__file__)
COMMON = 16 * 16 * 8 * 27 + 16 * 16 * 8 * 72 + 80
"""Stem, convolution and classifier of `Base` at 32 pixels and 10 classes."""
PIXELS = 16 * 16


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("Vector", 8),
        ("Encoder", 2 * (PIXELS * (4 * 64 + 2 * 8 * 16) + 2 * PIXELS**2 * 8)),
        ("Heads", PIXELS * 2 * 4 * 36),
        ("Dead", PIXELS * 8 * 72),
        ("Branch", 16 * 4 * 64 + 2 * 16**2 * 8),
        ("Weights", PIXELS * (8 * 72 + 2 * 64)),
        ("Lazy", PIXELS * (64 + 64)),
        ("Late", PIXELS * 8 * 72),
    ],
)
def test_counts_are_those_of_arithmetic(name: str, rest: int) -> None:
    point = DesignPoint.of(f"{FILE}:{name}", resolution=32, num_classes=10)
    skeleton = skeleton_of(point)
    assert count(point, skeleton).flops == COMMON + rest
    found = profile(point, LatencySpec(device="cpu"), timed=False, layers=False)
    assert found.complexity.flops == COMMON + rest
    assert found.complexity.uncounted_products == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", rest_slow(["Heads", "Dead", "Branch", "Lazy", "Late"], "Branch", "Lazy"))
def test_the_closed_form_of_every_method_is_what_the_built_network_counts(name: str, method: str) -> None:
    point = DesignPoint.of(f"{FILE}:{name}", method, resolution=32, num_classes=10)
    torch.manual_seed(0)
    built = counts_of(build(point), 32)
    assert count(point, skeleton_of(point)) == built


@pytest.mark.parametrize("name", ["Encoder", "Heads", "Dead", "Branch", "Weights"])
@pytest.mark.parametrize("method", ["plain", "gc", "weightnet"])
def test_rows_add_up_to_the_network(name: str, method: str) -> None:
    point = DesignPoint.of(f"{FILE}:{name}", method, resolution=32, num_classes=10)
    model = build(point)
    built = counts_of(model, 32)
    options = {"dtype": "float32", "device": "cpu", "peaks": Peaks(2e10, 5e10), "seconds": 1e-6}
    layers = measure_layers(model, resolution=32, batch_size=2, **options)  # type: ignore[arg-type]
    rows = {row.name: row.to_dict() for row in layers}
    assert len(rows) == len(layers)
    assert sum(row["flops"] for row in rows.values()) == built.flops
    assert sum(row["params"] for row in rows.values()) == built.params
    if name == "Weights":
        assert (rows["kernel"]["flops"], rows["kernel"]["time_ms"]) == (0, 0.0)
        assert rows[""]["kind"] == "Weights" + OWN_WORK
        assert (rows[""]["flops"], rows[""]["params"]) == (PIXELS * 8 * 72, 8)
        assert rows["twice"]["flops"] == 2 * PIXELS * 64
    if name == "Dead":
        assert (rows["never"]["flops"], rows["never"]["bytes"]) == (0, 0)
    if method == "gc":
        gate_row = rows["conv.gate"]
        assert (gate_row["kind"], gate_row["flops"]) == ("GlobalContext" + OWN_WORK, 8 * PIXELS)


def test_a_network_with_nothing_to_replace_is_the_plain_one_by_every_method() -> None:
    found = set()
    for method in METHODS:
        point = DesignPoint.of(f"{FILE}:Nothing", method, resolution=32, num_classes=10)
        counts = profile(point, LatencySpec(device="cpu"), timed=False, layers=False).complexity
        found.add((counts.params, counts.flops))
    assert found == {(8 * 48 + 8 + 80 + 10, 8 * 8 * 8 * 48 + 80)}


def test_what_is_in_no_count_is_reported_by_every_command() -> None:
    point = DesignPoint.of(f"{FILE}:Fourier", resolution=32, num_classes=10)
    assert skeleton_of(point).uncounted == ("_fft_r2c",)
    found = profile(point, LatencySpec(device="cpu"), timed=False, layers=False)
    assert found.complexity.uncounted_products.keys() == {"_fft_r2c"}


@pytest.mark.parametrize("size", [12, 36, 150, 518])
def test_networks_for_one_size_of_any_list_or_none(size: int) -> None:
    point = DesignPoint.of(f"{FILE}:size{size}", "weightnet", 2, 1, resolution=size, num_classes=10)
    built = counts_of(build(point), size)
    assert count(point, skeleton_of(point)) == built
    assert built.flops > ((size + 1) // 2) ** 2 * (4 * 27 + 4 * 36 + 40)
    plain = build(f"{FILE}:size{size}", resolution=size, num_classes=10)
    assert len(convert(plain, M=2, G=1, resolution=size).replaced) == 1
    with pytest.raises(InputError, match=r"\b64 pixels\b"):
        skeleton_of(DesignPoint.of(f"{FILE}:size{size}", resolution=64, num_classes=10))


def test_lazy_layers_get_the_size_of_the_points_images() -> None:
    name = f"{FILE}:Lazy"
    for resolution in (20, 32):
        model = build(name, resolution=resolution, num_classes=10)
        assert model.get_parameter("wide.weight").shape == (8, 8 * (resolution // 2) ** 2)
        assert model.training


@pytest.mark.parametrize(("name", "read"), [("grey", "1"), ("satellite", "13")])
@pytest.mark.parametrize("method", ["plain", "weightnet"])
def test_images_of_other_channels_are_refused_in_one_line(name: str, read: str, method: str) -> None:
    point = DesignPoint.of(f"{FILE}:{name}", method, resolution=32, num_classes=10)
    for refused in (skeleton_of, build):
        with pytest.raises(InputError, match=rf"\b{read}\b.*\b3\b") as caught:
            refused(point)
        assert "\n" not in str(caught.value)


def test_the_channels_of_an_image_are_not_those_of_the_convolution_made_first() -> None:
    point = DesignPoint.of(f"{FILE}:Side", "weightnet", 2, 1, resolution=32, num_classes=10)
    built = counts_of(build(point), 32)
    assert count(point, skeleton_of(point)) == built
