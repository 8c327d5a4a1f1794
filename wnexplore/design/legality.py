"""Which (M, G) a layer and a whole network can have, decided before anything is built.

Source: Ma et al., ECCV 2020, section 3: the grouped fully-connected layer has M·C_out inputs, G·C_out
groups and C_out·F outputs, F = C_in/g · k² the length of one filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from wnexplore.design.layers import ConvShape, generated_layers
from wnexplore.design.point import DesignPoint
from wnexplore.design.stages import has_method
from wnexplore.errors import InputError


class IllegalPointError(InputError):
    """The (M, G) asked for can't be had in some layer; the message says which and why."""


@dataclass(frozen=True)
class GeneratorShape:
    """The grouped fully-connected layer that makes one convolution's kernel."""

    inputs: int
    """Length of the activation vector, M·C_out."""
    groups: int
    """P = G·C_out."""
    outputs: int
    """C_out·F, the numbers in one sample's kernel."""

    @property
    def inputs_per_group(self) -> int:
        """lambda = M/G."""
        return self.inputs // self.groups


def generator_shape(M: Fraction, G: Fraction, out_channels: int, fan_in: int) -> GeneratorShape:
    """The generator of a layer with `out_channels` filters of length `fan_in`.

    Raises `IllegalPointError` with the division that fails.
    """
    inputs, groups, outputs = M * out_channels, G * out_channels, out_channels * fan_in
    for name, factor, product in (("M", M, inputs), ("G", G, groups)):
        if product.denominator != 1:
            raise IllegalPointError(
                f"{name}·C_out = {factor}·{out_channels} = {product} is not a whole number"
            )
    if inputs < groups:
        raise IllegalPointError(
            f"G·C_out = {groups} groups share M·C_out = {inputs} inputs: less than one input a group"
        )
    if inputs % groups != 0:
        raise IllegalPointError(
            f"G·C_out = {groups} groups don't divide M·C_out = {inputs} inputs (M/G = {M / G})"
        )
    if outputs % groups != 0:
        raise IllegalPointError(
            f"G·C_out = {groups} groups don't divide C_out·F = {out_channels}·{fan_in} = {outputs} outputs"
        )
    return GeneratorShape(int(inputs), int(groups), outputs)


def published_pair(M: Fraction, G: Fraction, *, depthwise: bool) -> tuple[Fraction, Fraction]:
    """The (M, G) that the published code gives a layer: (M/G, 1) if it is depthwise."""
    return (M / G, Fraction(1)) if depthwise else (M, G)


def check_legal(point: DesignPoint) -> None:
    """Raise `IllegalPointError` naming the first layer of `point` that can't have its (M, G)."""
    if point.M is None or point.G is None:
        return
    for layer in generated_layers(point.backbone):
        if has_method(point.stages, layer.stage):
            _check_layer(layer, *published_pair(point.M, point.G, depthwise=layer.depthwise))


def _check_layer(layer: ConvShape, M: Fraction, G: Fraction) -> None:
    try:
        generator_shape(M, G, layer.out_channels, layer.fan_in)
    except IllegalPointError as error:
        raise IllegalPointError(f"layer {layer.name}: {error}") from None
