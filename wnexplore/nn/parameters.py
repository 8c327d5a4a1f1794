"""Parameters of a module, found fast: a small network spends its time in Python."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def parameter(module: nn.Module, name: str) -> Tensor:
    """`module.name`, as it is now: a parameter, or what a parametrisation makes in its place.

    `nn.Module` looks in three places before it finds a parameter.
    """
    found = module._parameters.get(name)
    return cast(Tensor, getattr(module, name)) if found is None else found
