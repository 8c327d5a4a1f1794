"""How the layers start: variances that keep a network's activations of order one."""

from __future__ import annotations

import math

from torch import nn


def kaiming_std(fan_in: int) -> float:
    """Standard deviation sqrt(2/F) of a kernel followed by a ReLU (He et al., ICCV 2015, section 2.2)."""
    return math.sqrt(2 / fan_in)


def init_linear_(linear: nn.Linear, gain: float = 1.0) -> None:
    """Weights normal with std gain/sqrt(in_features), bias zero, in place.

    Outputs have about `gain` times the root mean square of the inputs.
    """
    nn.init.normal_(linear.weight, std=gain / math.sqrt(linear.in_features))
    nn.init.zeros_(linear.bias)


SMALL_GAIN = 0.1
"""Gain before a sigmoid: keeps it near 1/2, and kernels nearly independent of the image, so that large
activations and large kernels can't amplify each other before normalisation has seen data."""
