"""A context and the layer that reads it, as one linear function: the same numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.examples import examples
from wnexplore.models import build
from wnexplore.models.deploy import deploy
from wnexplore.nn import Context, WeightNetConv2d
from wnexplore.nn.pooled_linear import WORTH_MERGING, WORTH_STORING, PooledLinear, pooled_linear
from wnexplore.nn.true_pixels import true_pixels

DOUBLE = torch.float64


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**16))
@examples(25)
def test_one_product_is_the_two_layers(channels: int, outputs: int, batch: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    context, linear = Context(channels).double(), nn.Linear(16, outputs).double()
    x = torch.randn(batch, channels, size, size + 1, dtype=DOUBLE)
    pooled = pooled_linear(context, linear.weight, linear.bias)
    assert pooled is not None
    expected = linear(torch.stack([context.weight @ image.mean((1, 2)) + context.bias for image in x]))
    torch.testing.assert_close(pooled(x), expected.detach(), rtol=1e-12, atol=1e-12)
    assert not pooled.state_dict()


def test_it_is_left_where_two_smaller_products_cost_less() -> None:
    context, linear = Context(256), nn.Linear(16, 640)
    more = 256 * 640 - 16 * (256 + 640)
    assert WORTH_MERGING // 4 == WORTH_STORING < more
    assert pooled_linear(context, linear.weight, linear.bias) is None
    small = pooled_linear(context, linear.weight[:512], linear.bias[:512])
    assert small is not None
    assert pooled_linear(context, linear.weight[:512].half(), linear.bias[:512].half()) is None
    with torch.no_grad():
        assert small.runs(torch.zeros(4, 256, 2, 2))
        assert not small.runs(torch.zeros(5, 256, 2, 2)), "products grow with the batch, their starts don't"


@pytest.mark.parametrize(
    ("activation", "backbone"),
    [("sigmoid", "shufflenet_v2_x0_5"), ("softmax", "shufflenet_v2_x0_5"), ("sigmoid", "mobilenet_v2")],
)
def test_a_deployed_network_runs_it_and_is_the_same_function(
    activation: str, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []
    forward = PooledLinear.forward

    def noted(self: PooledLinear, x: Tensor) -> Tensor:
        calls.append(x)
        return forward(self, x)

    monkeypatch.setattr(PooledLinear, "forward", noted)
    network = build(
        backbone=backbone, method="weightnet", M=2, G=1, activation=activation, stem="small", num_classes=10
    )
    network, x = network.double().eval(), torch.randn(2, 3, 32, 32, dtype=DOUBLE)
    with torch.no_grad():
        before = network(x)
        assert not calls
        deploy(network, x[:1])
        calls.clear()
        torch.testing.assert_close(network(x), before, rtol=1e-9, atol=1e-9)
        pooled = [module for module in network.modules() if isinstance(module, PooledLinear)]
        assert len(calls) == len(pooled) > 4
        if backbone == "shufflenet_v2_x0_5":
            assert len(pooled) == sum(isinstance(module, Context) for module in network.modules())


def test_a_layer_with_a_context_of_its_own_runs_it_too() -> None:
    layer, x = WeightNetConv2d(4, 6, 3, M=2, G=2).double().eval(), torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    with torch.no_grad():
        before = layer(x)
        layer.settle_for_inference()
        assert layer.pooled is not None
        torch.testing.assert_close(layer(x), before, rtol=1e-12, atol=1e-12)
        # It is the layers themselves that know the pixels of padded images.
        x[0, :, 3:] = x[0, :, :, 2:] = 0
        with true_pixels([(3, 2), (5, 5)], (5, 5)):
            padded = layer(x)
        torch.testing.assert_close(padded[:1, :, :2, :1], layer(x[:1, :, :3, :2])[:, :, :2, :1])
