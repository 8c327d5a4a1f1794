"""A convolution and its normalisation as one, against the two one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import wnexplore
from tests.examples import examples, rest_slow
from wnexplore.nn import CondConv2d, GeneratedConv2d, WeightNetConv2d, normalised


@pytest.fixture(autouse=True, scope="module")
def _always_worth_it() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wnexplore.nn.normalisation.WORTH_FOLDING", 0)
        yield


@given(
    st.sampled_from([(8, 6, 1, 1), (8, 12, 3, 1), (6, 6, 3, 6), (8, 4, 3, 2)]),
    st.sampled_from([(1, 1), (4, 1), (2, 2), (8, 2)]),
    st.integers(1, 2),
    st.sampled_from([1, 3]),
    st.integers(0, 2**16),
)
@examples(40)
def test_equals_the_convolution_and_then_the_normalisation(
    sizes: tuple[int, int, int, int], pair: tuple[int, int], stride: int, batch: int, seed: int
) -> None:
    torch.manual_seed(seed)
    into, out, kernel_size, groups = sizes
    M, G = (pair[0] // pair[1], 1) if groups == into else pair
    conv = WeightNetConv2d(into, out, kernel_size, stride, groups=groups, M=M, G=G, context_features=5)
    norm = _with_statistics(nn.BatchNorm2d(out))
    x, alpha = torch.randn(batch, into, 6, 5), torch.rand(batch, M * out)
    conv, norm, x, alpha = conv.double(), norm.double(), x.double(), alpha.double()
    for formulation in ("auto", "kernel", "shared"):
        conv.formulation = formulation
        with _Operators() as seen, torch.no_grad():
            found = normalised(conv, norm, x, alpha)
        with torch.no_grad():
            torch.testing.assert_close(found, norm(conv(x, alpha=alpha)), rtol=1e-11, atol=1e-11)
        assert not seen.normalised


def test_says_what_it_is_asked_where_something_must_see_between_the_two() -> None:
    conv = WeightNetConv2d(8, 6, 1, M=1, G=1, context_features=5)
    norm = _with_statistics(nn.BatchNorm2d(6))
    x, alpha = torch.randn(3, 8, 4, 4), torch.rand(3, 6)
    between = conv(x, alpha=alpha)
    seen: list[Tensor] = []
    handles = [
        conv.register_forward_hook(lambda _, inputs, output: seen.append(output)),
        norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
    ]
    for handle in handles:
        with torch.no_grad():
            normalised(conv, norm, x, alpha)
        torch.testing.assert_close(seen.pop(), between)
        handle.remove()


@pytest.mark.parametrize("case", ["training", "gradient", "published", "condconv", "no statistics"])
def test_normalises_apart_where_it_can_not_be_folded(case: str) -> None:
    conv: GeneratedConv2d = WeightNetConv2d(8, 6, 1, M=1, G=1, context_features=5)
    norm = _with_statistics(nn.BatchNorm2d(6))
    x, alpha = torch.randn(3, 8, 4, 4), torch.rand(3, 6)
    if case == "training":
        norm.train()
    elif case == "published":
        conv.formulation = "published"
    elif case == "condconv":
        # One group of the generator makes all filters: no activation belongs to one of them.
        conv, alpha = CondConv2d(8, 6, 1, experts=2, context_features=5), torch.rand(3, 2)
    elif case == "no statistics":
        norm = nn.BatchNorm2d(6, track_running_stats=False).eval()
    with _Operators() as seen, torch.set_grad_enabled(case == "gradient"):
        found = normalised(conv, norm, x, alpha)
    assert seen.normalised
    torch.testing.assert_close(found, norm(conv(x, alpha=alpha)))


@pytest.mark.parametrize(
    ("backbone", "M", "G"),
    rest_slow(
        [("shufflenet_v2_x0_5", 2, 2), ("resnet18", 8, 2), ("resnet50", 1, 1)],
        ("shufflenet_v2_x0_5", 2, 2),
        ("resnet18", 8, 2),
    ),
)
def test_networks_give_the_same_as_with_every_layer_alone(backbone: str, M: int, G: int) -> None:
    torch.manual_seed(0)
    network = wnexplore.build(backbone, "weightnet", M, G, stem="small", num_classes=10).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            _with_statistics(module)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad(), _Operators() as seen:
        folded = network(images)
    apart = [module.register_forward_hook(lambda *_: None) for module in network.modules()]
    with torch.no_grad(), _Operators() as separately:
        expected = network(images)
    for handle in apart:
        handle.remove()
    torch.testing.assert_close(folded, expected, rtol=1e-9, atol=1e-9)
    assert len(seen.normalised) < len(separately.normalised) / 4


class _Operators(TorchDispatchMode):
    """Notes every batch normalisation that runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.normalised: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "batch_norm" in str(function):
            self.normalised.append(str(function))
        return function(*args, **(kwargs or {}))


def _with_statistics(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """`norm` in inference, as if it had been trained."""
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            assert tensor is not None
            tensor.copy_(torch.randn_like(tensor))
        assert norm.running_var is not None
        norm.running_var.copy_(torch.rand_like(norm.running_var) + 0.1)
    return norm.eval()
