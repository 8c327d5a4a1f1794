"""What every network must satisfy, whatever its backbone and method."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from wnexplore.models import build

METHODS: list[dict[str, Any]] = [
    {"method": "plain"},
    {"method": "se"},
    {"method": "condconv", "experts": 2},
    {"method": "weightnet", "M": 2, "G": 2},
]


def randomise(model: nn.Module) -> None:
    """Give every normalisation statistics and parameters of its own."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.normal_(0.5, 0.2)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 1.5)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def check_gradients(model: nn.Module, resolution: int) -> None:
    torch.manual_seed(0)
    logits = model(torch.randn(3, 3, resolution, resolution))
    nn.functional.cross_entropy(logits, torch.tensor([1, 5, 7])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


def check_start(backbone: str, axes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build(backbone, stem="small", num_classes=100, **axes)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        for logits in (model.eval()(x), model.train()(x)):
            assert 0.01 < float(logits.std()) < 10
