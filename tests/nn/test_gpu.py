"""What runs on a GPU, as far as can be told without one: numbers on the CPU, operators on meta tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.shallow import shallow
from wnexplore.design.methods import METHODS
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.nn import ActivationVectors, GeneratedConv2d, formulation_set
from wnexplore.nn.formulations import LayerShape, why_not
from wnexplore.nn.formulations.choose import choose
from wnexplore.nn.formulations.feature_space import shared
from wnexplore.nn.formulations.kernel_space import _in_few_calls
from wnexplore.nn.formulations.published import published
from wnexplore.nn.formulations.scaled_conv import Scaled

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


@contextmanager
def published_untouched(model: nn.Module, training: bool) -> Iterator[None]:
    """`model` as the paper has it, nothing of what saves operators in it but that inference joins fc1s."""

    def plainly(block: ActivationVectors) -> Any:
        layers, sizes = block._layers, [layer.fc1.out_features for layer in block._layers]

        def joined() -> list[Tensor]:
            return [
                torch.cat([layer.fc1.weight for layer in layers]),
                torch.cat([layer.fc1.bias for layer in layers]),
            ]

        before = joined()

        def forward(context: Tensor) -> dict[nn.Module, Tensor]:
            z = functional.linear(context, *(joined() if training else before))
            if layers[0].activation == "softmax":
                parts = [layer.activate(part) for layer, part in zip(layers, z.split(sizes, 1), strict=True)]
            else:
                parts = list(layers[0].activate(z).split(sizes, 1))
            return dict(zip(layers, parts, strict=True))

        return forward

    blocks = [module for module in model.modules() if isinstance(module, ActivationVectors)]
    try:
        for block in blocks:
            block.__dict__["forward"] = plainly(block)
        with formulation_set(model, "published"):
            yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def counted(model: nn.Module, batch: int, training: bool, channels_last: bool = False) -> Operators:
    images = torch.empty(batch, 3, 224, 224, device="meta")
    if channels_last:
        images = images.to(memory_format=torch.channels_last)
    operators = Operators()
    model.train(training)
    with torch.set_grad_enabled(training), operators:
        y = model(images)
        if training:
            y.sum().backward()
    model.zero_grad()
    return operators


def on_meta(backbone: str, *method: Any) -> nn.Module:
    with torch.device("meta"):
        return build(DesignPoint.of(backbone, *method))


def shallow_on_meta(backbone: str, *method: Any) -> nn.Module:
    with torch.device("meta"):
        return shallow(DesignPoint.of(backbone, *method))


def check_operators(model: nn.Module) -> None:
    """Counted on meta tensors: what a pass hands to a device, each operator of torch's once."""
    for batch, training in MODES:
        ours = counted(model, batch, training)
        with published_untouched(model, training):
            theirs = counted(model, batch, training)
        with formulation_set(model, "published"):
            # What is compared with in races and sweeps is that network too.
            assert counted(model, batch, training).computing == theirs.computing
        more = ours.computing - theirs.computing
        assert ours.computing.total() <= theirs.computing.total(), (batch, training, more)
        assert ours.all <= theirs.all, (batch, training)
        if training and theirs.computing["cat"]:
            # Weights that lie side by side are not joined in every step.
            assert ours.computing.total() < theirs.computing.total()


def test_auto_has_no_more_operators_than_published() -> None:
    # Of convolutions of 1x1 pixels, of which it runs some as products, and of depthwise ones.
    check_operators(on_meta("shufflenet_v2_x0_5", "weightnet", 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES_COUNTED)
@pytest.mark.parametrize(("M", "G"), PAIRS)
def test_auto_has_no_more_operators_than_published_anywhere(backbone: str, M: int, G: int) -> None:
    check_operators(shallow_on_meta(backbone, "weightnet", M, G))


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
    # The next layer may work in place.
    y, expected = y.neg_(), -expected
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
    for offset in (None, shift):
        found = _in_few_calls(x, alpha, weight, shape, offset)
        torch.testing.assert_close(found, published(x, alpha, weight, shape, offset))


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
    assert re.search(r"lambda\b.* 8\b.* 16\b", why)


NETWORKS = ["shufflenet_v2_x0_5", "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small"]
"""One of each kind of block."""


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", NETWORKS)
def test_every_network_runs_on_a_gpu_that_is_not_there(backbone: str, method: str) -> None:
    """A forward pass and a training step on meta tensors and on fake ones, whose device is CUDA.

    Formulation `fused` can't be tried so: it is a kernel of Triton's, which nothing but a GPU or the
    interpreter runs (test_fused.py).
    """
    with torch.device("meta"):
        try_every_formulation(backbone, method)
    with FakeTensorMode(), torch.device("cuda"):
        try_every_formulation(backbone, method)


def backward(loss: Tensor) -> None:
    """`loss.backward()`, node by node: autograd's engine asks for the context of a GPU that isn't there."""
    assert loss.grad_fn is not None
    waiting: Counter[Any] = Counter()
    seen, found = {loss.grad_fn}, [loss.grad_fn]
    for node in found:
        for after, _ in node.next_functions:
            if after is not None:
                waiting[after] += 1
                if after not in seen:
                    seen.add(after)
                    found.append(after)
    grads: dict[Any, dict[int, Tensor]] = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready: list[Any] = [loss.grad_fn]
    while ready:
        node = ready.pop()
        received = grads.pop(node, {})
        if hasattr(node, "variable"):
            node.variable.grad = received[0]
            continue
        given = [received.get(index) for index in range(max(received) + 1)]
        following = node.next_functions
        with torch.no_grad():
            if hasattr(node, "_forward_cls"):
                # A function of our own, which gives a gradient to each argument, tensor or not.
                needed = zip(node.apply(*given), node.needs_input_grad, strict=True)
                made = tuple(grad for grad, needs in needed if needs)
                following = [successor for successor in following if successor[0] is not None]
            else:
                made = node(*given)
        for (after, index), grad in zip(
            following, made if isinstance(made, tuple) else (made,), strict=False
        ):
            # C++ leaves out what nothing follows at the end, and has None there elsewhere.
            if after is None:
                continue
            if grad is not None:
                # What was broadcast, the engine sums up again.
                grad = grad.sum_to_size(after._input_metadata[index].shape)
                before = grads.setdefault(after, {})
                before[index] = before[index] + grad if index in before else grad
            waiting[after] -= 1
            if not waiting[after]:
                ready.append(after)


def try_every_formulation(backbone: str, method: str) -> None:
    model = shallow(DesignPoint.of(backbone, method))
    generates = any(isinstance(module, GeneratedConv2d) for module in model.modules())
    images = torch.empty(2, 3, 32, 32)
    device = torch.get_default_device()
    for formulation in ("auto", "published", "kernel", "shared") if generates else ("auto",):
        try:
            with formulation_set(model, formulation):
                pass
        except InputError:
            # Of all but "shared" every layer is capable.
            assert formulation == "shared"
            continue
        with formulation_set(model, formulation):
            with torch.no_grad():
                y = model.eval()(images)
            assert (y.device.type, y.shape) == (device.type, (2, 1000))
            backward(model.train()(images).sum())
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, (formulation, name)
                assert (parameter.grad.device, parameter.grad.shape) == (parameter.device, parameter.shape), (
                    formulation,
                    name,
                )
            model.zero_grad()
