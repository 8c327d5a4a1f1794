"""Networks at random by every method: rows add up, and the closed form is the count of what is built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import nn

from tests.examples import examples
from tests.models.random_networks import CLASSES, RESOLUTION, Drawn, networks
from wnexplore.design.counts import count
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.measure.complexity import count_products
from wnexplore.measure.layer_profile import measure_layers
from wnexplore.models.conv_calls import layout
from wnexplore.models.convert import Where, convert_seen
from wnexplore.models.external import model_skeleton
from wnexplore.models.method_layers import method_of
from wnexplore.models.unconvertible import why_left
from wnexplore.results.network_profile import Peaks

POINTS: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in METHODS if method != "weightnet"),
    ("condconv", {"experts": 2}),
    ("dynamic", {"experts": 3, "reduction": 2}),
    ("se", {"reduction": 1}),
    *(("weightnet", {"M": M, "G": G}) for M, G in [(1, 1), (2, 1), (2, 2), (4, 2), ("1/2", "1/2")]),
    ("weightnet", {"M": 2, "G": 1, "activation": "softmax", "reduction": 4}),
    ("weightnet", {"M": 2, "G": 2, "depthwise": "full"}),
]
SEEN = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


@examples(12, **SEEN)
@given(networks(), st.sampled_from(POINTS))
def test_rows_and_the_closed_form_of_random_networks(drawn: Drawn, made: tuple[str, dict[str, Any]]) -> None:
    check(drawn, *made)


@pytest.mark.slow
@pytest.mark.parametrize("made", POINTS, ids=str)
def test_rows_and_the_closed_form_of_many_random_networks(made: tuple[str, dict[str, Any]]) -> None:
    @examples(10, **SEEN)
    @given(networks())
    def every(drawn: Drawn) -> None:
        check(drawn, *made)

    every()


def check(drawn: Drawn, method: str, axes: dict[str, Any]) -> None:
    """Plain against arithmetic; the closed form and the rows against the count."""
    model = drawn.make()
    found = layout(model, known_size=RESOLUTION)
    left = why_left(model, found, resolution=RESOLUTION)
    skeleton = model_skeleton(model, RESOLUTION, found, left)
    plain = DesignPoint.of("drawn.py:network", resolution=RESOLUTION, num_classes=CLASSES)
    assert count(plain, skeleton) == (_params(model), model.flops)
    size: dict[str, Any] = {"resolution": RESOLUTION, "num_classes": CLASSES}
    point = DesignPoint.of("drawn.py:network", method, **axes, **size)
    try:
        closed = count(point, skeleton)
    except IllegalPointError:
        with pytest.raises(IllegalPointError):
            convert_seen(model, method_of(point), Where(), found, left)
        return
    if method != "plain":
        convert_seen(model, method_of(point), Where(), found, left)
    counted = count_products(model, RESOLUTION)
    assert not counted.uncounted
    assert closed == (_params(model), counted.total)
    torch.manual_seed(0)
    rows = measure_layers(
        model,
        resolution=RESOLUTION,
        batch_size=2,
        dtype="float32",
        device="cpu",
        peaks=Peaks(2e10, 5e10),
        seconds=1e-6,
    )
    assert len({row.name for row in rows}) == len(rows)
    assert (sum(row.params for row in rows), sum(row.flops for row in rows)) == closed
    assert all(row.time_ms >= 0 for row in rows)


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
