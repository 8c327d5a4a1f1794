"""Fast access to a module's parameters: small networks are bound by Python."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def parameter(module: nn.Module, name: str) -> Tensor:
    """The current `module.name`: a parameter, or the tensor that a parametrisation computes.

    `nn.Module.__getattr__` searches three dictionaries for it.
    """
    found = module._parameters.get(name)
    return cast(Tensor, getattr(module, name)) if found is None else found
