"""The generator of one convolution's kernels, and the legality of (M, G).

Source: Ma et al., ECCV 2020, section 3: the grouped fully-connected layer has M·C_out inputs, G·C_out
groups and C_out·F outputs, F = C_in/g · k² the length of one filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from wnexplore.errors import InputError

if TYPE_CHECKING:
    from wnexplore.design.stage_design import StageDesign


class IllegalPointError(InputError):
    """(M, G) is illegal in some layer; the message says which and why."""

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        """The violated rule in general terms: "G·C_out divides M·C_out"."""


@dataclass(frozen=True)
class GeneratorShape:
    """The grouped fully-connected layer that makes one convolution's kernel."""

    inputs: int
    """Length of the activation vector, M·C_out."""
    groups: int
    """P = G·C_out."""
    outputs: int
    """C_out·F, the elements of one sample's kernel."""

    @property
    def inputs_per_group(self) -> int:
        """lambda = M/G."""
        return self.inputs // self.groups


class Layer(Protocol):
    """The attributes of a convolution that are read here."""

    @property
    def name(self) -> str: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def fan_in(self) -> int: ...
    @property
    def depthwise(self) -> bool: ...


def generator_shape(M: Fraction, G: Fraction, out_channels: int, fan_in: int) -> GeneratorShape:
    """The generator of a layer with `out_channels` filters of length `fan_in`.

    Raises `IllegalPointError` with the division that fails.
    """
    inputs, groups, outputs = M * out_channels, G * out_channels, out_channels * fan_in
    for name, factor, product in (("M", M, inputs), ("G", G, groups)):
        if product.denominator != 1:
            raise IllegalPointError(
                f"{name}·C_out = {factor}·{out_channels} = {product} is not a whole number",
                f"{name}·C_out is a whole number",
            )
    if inputs < groups:
        raise IllegalPointError(
            f"G·C_out = {groups} groups share M·C_out = {inputs} inputs: less than one input a group",
            "M is at least G",
        )
    if inputs % groups != 0:
        raise IllegalPointError(
            f"G·C_out = {groups} groups don't divide M·C_out = {inputs} inputs (M/G = {M / G})",
            "G·C_out divides M·C_out",
        )
    if outputs % groups != 0:
        raise IllegalPointError(
            f"G·C_out = {groups} groups don't divide C_out·F = {out_channels}·{fan_in} = {outputs} outputs",
            "G·C_out divides C_out·F",
        )
    return GeneratorShape(int(inputs), int(groups), outputs)


def layer_generator(layer: Layer, design: StageDesign) -> GeneratorShape | None:
    """The generator of a layer under `design`; None if it has none.

    Raises `IllegalPointError` naming the layer if it is illegal.
    """
    pair = design.pair(layer.out_channels, depthwise=layer.depthwise)
    if pair is None:
        return None
    try:
        return generator_shape(*pair, layer.out_channels, layer.fan_in)
    except IllegalPointError as error:
        raise IllegalPointError(f"layer {layer.name}: {error}", error.rule) from None
