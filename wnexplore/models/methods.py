"""The methods: how each one makes the convolutions of a block. A new one is a class and a registry line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

from torch import nn

from wnexplore.design.legality import published_pair
from wnexplore.design.methods import METHODS
from wnexplore.design.multiplier import Multiplier, parse_multiplier
from wnexplore.design.point import DesignPoint
from wnexplore.design.stages import has_method
from wnexplore.nn import CondConv2d, Context, SqueezeExcite, WeightNetConv2d
from wnexplore.nn.init import kaiming_std


class Method(ABC):
    """What a block asks for when it is built; its fields are the axes that the method reads."""

    def at(self, stage: int) -> Method:
        """What makes the convolutions of this stage."""
        return self

    def context(self, channels: int) -> Context | None:
        """What makes the context (N, R) that a whole block shares, pooled from `channels` channels."""
        return None

    @abstractmethod
    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        """A convolution without bias that keeps its input's size at stride 1.

        `context_features` is the R of the block's context, None if it has none.
        """

    def gate(self, channels: int) -> nn.Module | None:
        """What scales the end of a block's main branch, after its last normalisation."""
        return None


@dataclass(frozen=True)
class PlainMethod(Method):
    """Ordinary convolutions."""

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        return plain_conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups)


@dataclass(frozen=True)
class SqueezeExciteMethod(PlainMethod):
    """Ordinary convolutions, each block's main branch gated at its end (Hu et al., CVPR 2018, sec. 3.3)."""

    reduction: int = 16

    def gate(self, channels: int) -> nn.Module:
        return SqueezeExcite(channels, self.reduction)


@dataclass(frozen=True)
class CondConvMethod(Method):
    """Every convolution routes from its own input, as in its paper."""

    experts: int = 4

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        return CondConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, experts=self.experts)


@dataclass(frozen=True)
class WeightNetMethod(Method):
    """Every convolution generated from its block's context, the depthwise ones with (M/G, 1) as published."""

    M: Multiplier = 2
    G: Multiplier = 2
    reduction: int = 16
    activation: str = "sigmoid"

    def context(self, channels: int) -> Context:
        return Context(channels, self.reduction)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        M, G = self._pair(depthwise=groups == in_channels == out_channels)
        return WeightNetConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            groups=groups,
            M=M,
            G=G,
            activation=self.activation,
            context_features=context_features,
        )

    def _pair(self, *, depthwise: bool) -> tuple[Fraction, Fraction]:
        return published_pair(
            parse_multiplier(self.M, "M"), parse_multiplier(self.G, "G"), depthwise=depthwise
        )


@dataclass(frozen=True)
class InStagesMethod(PlainMethod):
    """A method in some stages, ordinary convolutions in the others."""

    method: Method
    stages: str

    def at(self, stage: int) -> Method:
        return self.method if has_method(self.stages, stage) else PlainMethod()


_CLASSES: dict[str, type[Method]] = {
    "plain": PlainMethod,
    "se": SqueezeExciteMethod,
    "condconv": CondConvMethod,
    "weightnet": WeightNetMethod,
}


def method_of(point: DesignPoint) -> Method:
    """The method of a design point, with the point's values of the axes that it reads."""
    axes = {axis: getattr(point, axis) for axis in METHODS[point.method] if axis != "stages"}
    method = _CLASSES[point.method](**axes)
    return method if point.stages is None else InStagesMethod(method, point.stages)


def plain_conv(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """An ordinary convolution without bias that keeps its input's size at stride 1; kernel size odd.

    Starts normal with variance 2/F (He et al., ICCV 2015, section 2.2); the published WeightNet code
    starts its first convolution with std 0.01 and the last one with 1/C_in instead.
    """
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    nn.init.normal_(conv.weight, std=kaiming_std(in_channels // groups * kernel_size**2))
    return conv
