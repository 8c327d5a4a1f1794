"""The methods: how each one makes the convolutions of a block. A new one is a class and a registry line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from wnexplore.design.methods import METHODS, has_selective_kernel
from wnexplore.design.multiplier import PerStage, Written, parse_setting
from wnexplore.design.point import DesignPoint
from wnexplore.design.stage_design import StageDesign, stage_design
from wnexplore.errors import InputError
from wnexplore.nn import (
    CondConv2d,
    Context,
    ConvBlockAttention,
    DynamicConv2d,
    EfficientChannelAttention,
    Gate,
    GlobalContext,
    SelectiveKernelConv2d,
    SqueezeExcite,
    WeightNetConv2d,
)
from wnexplore.nn.formulations.shape import Size2d, pair
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
        kernel_size: Size2d,
        *,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        """A convolution without bias; `padding` None keeps its input's size at stride 1.

        `context_features` is the R of the block's context; None if there is none, and a layer that needs
        one makes its own.
        """

    def gate(self, channels: int) -> Gate | None:
        """What scales the end of a block's main branch, after its last normalisation."""
        return None


@dataclass(frozen=True)
class PlainMethod(Method):
    """Ordinary convolutions."""

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        *,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        return plain_conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )


@dataclass(frozen=True)
class SqueezeExciteMethod(PlainMethod):
    """Ordinary convolutions, each block's main branch gated at its end (Hu et al., CVPR 2018, sec. 3.3)."""

    reduction: int = 16

    def gate(self, channels: int) -> Gate:
        return SqueezeExcite(channels, self.reduction)


@dataclass(frozen=True)
class ConvBlockAttentionMethod(PlainMethod):
    """Ordinary convolutions, CBAM at the end of each block's main branch (Woo et al., ECCV 2018, fig. 3)."""

    reduction: int = 16

    def gate(self, channels: int) -> Gate:
        return ConvBlockAttention(channels, self.reduction)


@dataclass(frozen=True)
class GlobalContextMethod(PlainMethod):
    """Ordinary convolutions, a global context block at the end of each block's main branch."""

    reduction: int = 16

    def gate(self, channels: int) -> Gate:
        return GlobalContext(channels, self.reduction)


@dataclass(frozen=True)
class EfficientChannelAttentionMethod(PlainMethod):
    """Ordinary convolutions, ECA at the end of each block's main branch."""

    def gate(self, channels: int) -> Gate:
        return EfficientChannelAttention(channels)


@dataclass(frozen=True)
class SelectiveKernelMethod(PlainMethod):
    """Selective kernels in place of every odd kernel larger than 1x1 (Li et al., CVPR 2019, sec. 3.2)."""

    reduction: int = 16

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        *,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        if not has_selective_kernel(pair(kernel_size)):
            return super().conv(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
            )
        return SelectiveKernelConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            reduction=self.reduction,
        )


@dataclass(frozen=True)
class CondConvMethod(Method):
    """Every convolution routes from its own input, as in its paper."""

    experts: int = 4

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        *,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        return CondConv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, experts=self.experts
        )


@dataclass(frozen=True)
class DynamicMethod(Method):
    """Every convolution attends to its kernels from its own input, as in its paper."""

    experts: int = 4
    temperature: int = 30
    reduction: int = 16

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        *,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        return DynamicConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            experts=self.experts,
            temperature=self.temperature,
            reduction=self.reduction,
        )


@dataclass(frozen=True)
class WeightNetMethod(PlainMethod):
    """Every convolution generated from its block's context; of the depthwise ones `depthwise` decides."""

    M: Written = 2
    G: Written = 2
    reduction: int = 16
    activation: str = "sigmoid"
    depthwise: str = "published"

    def context(self, channels: int) -> Context:
        return Context(channels, self.reduction)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size2d,
        *,
        stride: Size2d = 1,
        padding: Size2d | None = None,
        dilation: Size2d = 1,
        groups: int = 1,
        context_features: int | None = None,
    ) -> nn.Module:
        M, G = parse_setting(self.M, "M"), parse_setting(self.G, "G")
        if isinstance(M, PerStage) or isinstance(G, PerStage):
            raise InputError("M and G differ by stage: ask for the method at a stage")
        design = StageDesign("weightnet", M, G, depthwise=self.depthwise)
        own = design.pair(out_channels, depthwise=groups == in_channels == out_channels)
        if own is None:
            return super().conv(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
            )
        return WeightNetConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            M=own[0],
            G=own[1],
            reduction=self.reduction,
            activation=self.activation,
            context_features=context_features,
        )


@dataclass(frozen=True)
class MethodByStage(PlainMethod):
    """What a design point has in each stage, where they differ."""

    point: DesignPoint

    def at(self, stage: int) -> Method:
        return _method(stage_design(self.point, stage))


_CLASSES: dict[str, type[Method]] = {
    "plain": PlainMethod,
    "se": SqueezeExciteMethod,
    "sk": SelectiveKernelMethod,
    "cbam": ConvBlockAttentionMethod,
    "gc": GlobalContextMethod,
    "eca": EfficientChannelAttentionMethod,
    "condconv": CondConvMethod,
    "dynamic": DynamicMethod,
    "weightnet": WeightNetMethod,
}


def method_of(point: DesignPoint) -> Method:
    """The method of a design point, with the point's values of the axes that it reads."""
    differs = point.stages is not None or any(isinstance(own, PerStage) for own in (point.M, point.G))
    return MethodByStage(point) if differs else _method(stage_design(point, 0))


def plain_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: Size2d,
    *,
    stride: Size2d = 1,
    padding: Size2d | None = None,
    dilation: Size2d = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """An ordinary convolution without bias; `padding` None keeps its input's size at stride 1 (odd kernels).

    Starts normal with variance 2/F (He et al., ICCV 2015, section 2.2); the published WeightNet code
    starts its first convolution with std 0.01 and the last one with 1/C_in instead.
    """
    (high, wide), (down, across) = pair(kernel_size), pair(dilation)
    if padding is None:
        padding = (down * (high // 2), across * (wide // 2))
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups=groups, bias=False
    )
    nn.init.normal_(conv.weight, std=kaiming_std(in_channels // groups * high * wide))
    return conv


def _method(design: StageDesign) -> Method:
    axes = {axis: getattr(design, axis) for axis in METHODS[design.method] if axis != "stages"}
    return _CLASSES[design.method](**axes)
