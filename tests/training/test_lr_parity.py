"""Kernels move as far in a step however they are made: compared with an ordinary convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wnexplore.design.axes import ACTIVATIONS
from wnexplore.design.methods import METHODS
from wnexplore.design.protocol import Recipe
from wnexplore.models.method_layers import layer_class
from wnexplore.nn import MethodConv2d
from wnexplore.training.optimizer import clip_gradients, make_optimizer, set_lr

CHANNELS = 8
WEIGHTNETS = [("1", "1"), ("2", "2"), ("4", "1"), ("16", "2"), ("1/2", "1/4"), ("1", "1/8")]
LAYERS: list[tuple[str, dict[str, Any]]] = [
    *(("weightnet", {"M": M, "G": G}) for M, G in WEIGHTNETS),
    *(("weightnet", {"M": "4", "G": "1", "activation": activation}) for activation in ACTIVATIONS),
    *(("condconv", {"experts": experts}) for experts in (1, 4, 8)),
    *(("dynamic", {"experts": experts, "temperature": 3.0}) for experts in (1, 4)),
    *(("odconv", {"experts": experts}) for experts in (1, 4)),
]


@pytest.mark.parametrize("clip", [None, 100.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("method", "axes"), LAYERS)
def test_a_step_moves_a_kernel_as_far_as_an_ordinary_one(
    method: str, axes: dict[str, Any], optimizer: str, clip: float | None
) -> None:
    torch.manual_seed(0)
    layer = at_rest(method, axes)
    plain = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(kernel_of(layer))
    before = plain.weight.detach().clone()
    images = torch.randn(2, CHANNELS, 6, 6, dtype=torch.float64)
    wanted = torch.randn_like(images)
    recipe = Recipe.model_validate({"optimizer": optimizer, "lr": 1e-3, "kernel_lr": 3, "weight_decay": 0.5})

    for network in (layer, plain):
        optimiser = make_optimizer(network, recipe)
        set_lr(optimiser, 1.0)
        for _ in range(2):
            optimiser.zero_grad()
            # The same gradient of the kernels in both steps, with a momentum.
            (network(images) * wanted).sum().backward()
            if clip is not None:
                clip_gradients(optimiser, clip)
            optimiser.step()
    moved, expected = kernel_of(layer) - before, plain.weight.detach() - before
    assert expected.abs().max() > 1e-5
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_every_method_with_kernels_of_its_own_is_among_them() -> None:
    own = {name for name, m in METHODS.items() if m.layer and issubclass(layer_class(m.layer), MethodConv2d)}
    # The paths of sk have ordinary kernels.
    assert own - {"sk"} == {method for method, _ in LAYERS}
    paths = layer_class(METHODS["sk"].layer)(CHANNELS, CHANNELS, 3).kernel_sums()
    assert [(terms, scale) for _, terms, scale in paths] == [(1, 1.0), (1, 1.0)]


def test_without_parity_all_kernels_have_one_rate() -> None:
    layer = at_rest("weightnet", {"M": "2", "G": "1"})
    rates = {}
    for parity in (True, False):
        groups = make_optimizer(layer, Recipe(lr=0.5, kernel_lr=4, lr_parity=parity)).param_groups
        weight = layer.get_parameter("fc2.weight")
        (rates[parity],) = (
            group["peak_lr"] for group in groups if any(one is weight for one in group["params"])
        )
    # lambda = 2 terms of 1/2 each: a factor of 2.
    assert rates == {True: 4.0, False: 2.0}
    assert Recipe(lr_parity=False).identity.keys() == Recipe().identity.keys() - {"lr_parity"}


@pytest.mark.parametrize("method", [name for name, m in METHODS.items() if m.kind == "gate"])
def test_a_gate_learns_at_the_rate_of_linear_layers_unless_normalised(method: str) -> None:
    gate = layer_class(METHODS[method].layer)(CHANNELS)
    groups = make_optimizer(gate, Recipe(lr=0.5, kernel_lr=4)).param_groups
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    for name, parameter in gate.named_parameters():
        # cbam's convolution over the pixels is normalised.
        assert rates[id(parameter)] == (2.0 if (method, name) == ("cbam", "conv.weight") else 0.5), name


def at_rest(method: str, axes: dict[str, Any]) -> MethodConv2d:
    """The layer of `method`, its generator's activation vectors constant and not learnt."""
    layer: MethodConv2d = layer_class(METHODS[method].layer)(CHANNELS, CHANNELS, 3, **axes).double()
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            module.requires_grad_(False)
    return layer


@torch.no_grad()
def kernel_of(layer: nn.Module) -> Tensor:
    """The kernel of a 3x3 convolution, read off its outputs for one pixel in each channel."""
    pixels = torch.zeros(CHANNELS, CHANNELS, 5, 5, dtype=torch.float64)
    pixels[range(CHANNELS), range(CHANNELS), 2, 2] = 1
    outputs: Tensor = layer(pixels)[:, :, 1:4, 1:4]
    return outputs.transpose(0, 1).flip(2, 3).contiguous()
