"""What runs on a GPU, as far as can be told without one: numbers on the CPU, operators on meta tensors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.nn import formulation_set
from wnexplore.nn.formulations import LayerShape, why_not
from wnexplore.nn.formulations.choose import choose
from wnexplore.nn.formulations.feature_space import shared
from wnexplore.nn.formulations.kernel_space import _in_few_calls
from wnexplore.nn.formulations.published import published
from wnexplore.nn.formulations.scaled import Scaled

PAIRS = [(1, 1), (2, 2), (4, 1), (8, 2)]
BACKBONES_COUNTED = ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "resnet18", "resnet50", "mobilenet_v2"]
MODES = [(1, False), (64, False), (256, False), (64, True)]
"""Images of a batch, and whether it is a training step."""


class Operators(TorchDispatchMode):
    """Counts operators: those that compute, and all with views and allocations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.computing: Counter[str] = Counter()
        self.all = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.all += 1
        name = func.overloadpacket.__name__
        if not (func.is_view or name in ("empty", "empty_like", "new_empty", "detach", "_unsafe_view")):
            self.computing[name] += 1
        return result


def counted(model: nn.Module, formulation: str, batch: int, training: bool) -> Operators:
    images = torch.empty(batch, 3, 224, 224, device="meta")
    operators = Operators()
    model.train(training)
    with formulation_set(model, formulation), torch.set_grad_enabled(training), operators:
        y = model(images)
        if training:
            y.sum().backward()
    model.zero_grad()
    return operators


def on_meta(backbone: str, *method: Any) -> nn.Module:
    with torch.device("meta"):
        return build(DesignPoint.of(backbone, *method))


def check_operators(backbone: str, M: int, G: int) -> None:
    model = on_meta(backbone, "weightnet", M, G)
    for batch, training in MODES:
        ours = counted(model, "auto", batch, training)
        theirs = counted(model, "published", batch, training)
        more = ours.computing - theirs.computing
        assert ours.computing.total() <= theirs.computing.total(), (M, G, batch, training, more)
        assert ours.all <= theirs.all, (M, G, batch, training)


def test_auto_has_no_more_operators_than_published() -> None:
    # Of convolutions of 1x1 pixels, of which it runs some as products, and of depthwise ones.
    check_operators("shufflenet_v2_x0_5", 2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES_COUNTED)
@pytest.mark.parametrize(("M", "G"), PAIRS)
def test_auto_has_no_more_operators_than_published_anywhere(backbone: str, M: int, G: int) -> None:
    check_operators(backbone, M, G)


def layer(kernel: int, stride: int, groups: int, P: int, terms: int = 1) -> LayerShape:
    pads = (kernel // 2, kernel // 2)
    return LayerShape(8, 8, (kernel, kernel), (stride, stride), pads, (1, 1), groups, P, terms)


def inputs(shape: LayerShape, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(batch, shape.in_channels, 6, 5, dtype=torch.float64)
    alpha = torch.randn(batch, shape.generator_groups * shape.inputs_per_group, dtype=torch.float64)
    return x, alpha, torch.randn(shape.weights, shape.inputs_per_group, dtype=torch.float64)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "shape", [layer(1, 1, 1, 8), layer(3, 2, 1, 8), layer(3, 1, 8, 8), layer(3, 1, 2, 8)]
)
@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1, 2)])
def test_scaled_has_the_gradients_of_what_it_computes(
    shape: LayerShape, channels_last: bool, needed: tuple[int, ...]
) -> None:
    tensors = list(inputs(shape, 3))
    if channels_last:
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    for index in needed:
        tensors[index].requires_grad_()
    x, alpha, weight = tensors
    # A part of a longer vector, as blocks hand them over.
    part = torch.cat([alpha, alpha], 1)[:, : alpha.shape[1]]
    y = Scaled.apply(x, part, weight.view(shape.kernel_shape), shape)
    expected = published(x, alpha, weight, shape)
    torch.testing.assert_close(y, expected)
    wanted = [tensors[index] for index in needed]
    grad = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad(y, wanted, grad), torch.autograd.grad(expected, wanted, grad)
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [
        layer(1, 1, 1, 16),
        layer(1, 1, 1, 8, 4),
        layer(1, 2, 1, 16, 2),
        layer(3, 1, 1, 8, 2),
        layer(3, 2, 8, 8),
    ],
)
def test_kernels_in_few_calls_compute_what_published_does(
    shape: LayerShape, batch: int, channels_last: bool
) -> None:
    x, alpha, weight = inputs(shape, batch)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    shift = torch.randn(8, dtype=torch.float64)
    for own in (None, shift):
        found = _in_few_calls(x, alpha, weight, shape, own)
        torch.testing.assert_close(found, published(x, alpha, weight, shape, own))


def test_shared_where_it_has_one_term() -> None:
    for training in (False, True):
        for batch in (1, 64):
            assert choose(layer(3, 1, 1, 8), batch, 14, 14, training, "cuda") == "shared"
    x, alpha, weight = (tensor.to("meta") for tensor in inputs(layer(3, 1, 1, 8), 2))
    assert shared(x, alpha, weight.requires_grad_(), layer(3, 1, 1, 8)).shape == (2, 8, 6, 5)


@pytest.mark.parametrize("shape", [layer(1, 1, 1, 8, 9), layer(1, 1, 1, 8, 1)])
def test_fused_is_refused_where_registers_spill(shape: LayerShape) -> None:
    why = why_not("fused", shape)
    assert why is not None
    assert "lambda of at most 8 and slices of at least 16" in why


NETWORKS = ["shufflenet_v2_x0_5", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small"]
"""One of each kind of block."""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", NETWORKS)
def test_every_network_runs_on_a_gpu_that_is_not_there(backbone: str, method: str) -> None:
    """A training step on meta tensors; a forward pass of fake ones, whose device is CUDA."""
    model = on_meta(backbone, method)
    for formulation in ("auto", "published", "kernel", "shared"):
        try:
            with formulation_set(model, formulation):
                pass
        except InputError:
            continue
        with formulation_set(model, formulation):
            model.train()
            model(torch.empty(2, 3, 64, 64, device="meta")).sum().backward()
            assert all(p.grad is not None for p in model.parameters()), formulation
            model.zero_grad()
    with FakeTensorMode(), torch.device("cuda"):
        model = build(DesignPoint.of(backbone, method)).eval()
        with torch.no_grad():
            y = model(torch.empty(2, 3, 64, 64))
        assert (y.device.type, y.shape[0]) == ("cuda", 2)
