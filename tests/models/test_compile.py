"""Whole networks under torch.compile: one graph, any batch size."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import wnexplore
from tests.models.shallow import shallow
from wnexplore.design.point import DesignPoint
from wnexplore.nn import formulation_set


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _point(backbone: str, method: str, M: int | None = None, G: int | None = None) -> DesignPoint:
    return DesignPoint.of(backbone, method, M, G, stem="small", num_classes=10)


def _check(network: nn.Module, formulation: str) -> None:
    with formulation_set(network, formulation):
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        for batch in (5, 2, 7):
            images = torch.randn(batch, 3, 32, 32)
            with formulation_set(network, "published"), torch.no_grad():
                expected = network(images)
            torch._dynamo.mark_dynamic(images, 0)
            with torch.compiler.set_stance("default" if batch == 5 else "fail_on_recompile"), torch.no_grad():
                found = compiled(images)
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "M", "formulation"),
    [
        *(("shufflenet_v2_x0_5", 8, formulation) for formulation in ("auto", "kernel", "shared")),
        *(("resnet18", 8, formulation) for formulation in ("auto", "kernel", "shared")),
        ("resnet50", 2, "auto"),
    ],
)
def test_every_formulation_is_one_graph(backbone: str, M: int, formulation: str) -> None:
    torch.manual_seed(0)
    _check(shallow(_point(backbone, "weightnet", M, 2)).eval(), formulation)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["plain", "se", "condconv"])
def test_every_method_is_one_graph(method: str) -> None:
    torch.manual_seed(0)
    _check(shallow(_point("shufflenet_v2_x0_5", method)).eval(), "auto")


@pytest.mark.slow
def test_a_deep_network_is_one_graph() -> None:
    torch.manual_seed(0)
    _check(wnexplore.build(_point("shufflenet_v2_x0_5", "weightnet", 2, 2)).eval(), "auto")
