"""The methods: what makes the kernels of a block, and which axes of the space each one reads."""

from __future__ import annotations

from typing import Literal

Axis = Literal["M", "G", "stages", "experts", "reduction", "activation"]

METHODS: dict[str, tuple[Axis, ...]] = {
    "plain": (),
    "se": ("stages", "reduction"),
    "condconv": ("stages", "experts"),
    "weightnet": ("M", "G", "stages", "reduction", "activation"),
}
"""Method -> the axes that change its network; every other axis is left empty in its design points."""

ACTIVATIONS = ("sigmoid", "hard_sigmoid", "softmax")
"""What may follow fc1: sigmoid is published; softmax runs over the lambda inputs of one group."""

FORMULATIONS = ("published", "kernel", "shared", "fused")
"""The ways to compute a layer with generated kernels; one function, other costs."""
