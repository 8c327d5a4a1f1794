"""The base class of gates, the modules at the end of a block's main branch."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from wnexplore.errors import InputError
from wnexplore.nn.generated import at_least


class Gate(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): x reweighted by statistics of the image.

    Raises `InputError` for a size below 1.
    """

    initial_scale: ClassVar[float]
    """The approximate factor of x at initialisation."""
    unnormalised: ClassVar[tuple[str, ...]] = ()
    """Its convolutions that no normalisation follows: they learn at the rate of linear layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = at_least(1, "channels", channels)

    def _check(self, x: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise InputError(f"x has shape {tuple(x.shape)}: expected (N, {self.channels}, H, W)")
