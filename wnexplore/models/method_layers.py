"""Builds the convolutions and gates of a method from its entry in `wnexplore.design.methods`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from wnexplore.design.methods import METHODS, MethodSpec, design_axes
from wnexplore.design.multiplier import PerStage
from wnexplore.design.point import DesignPoint, stage_design
from wnexplore.design.stage_design import StageDesign
from wnexplore.nn import Context, Gate
from wnexplore.nn.formulations.layer_shape import Size2d, pair
from wnexplore.nn.init import kaiming_std


@dataclass(frozen=True)
class ConvSizes:
    """The sizes of a convolution without bias, as methods' layers take them."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: Size2d = 1
    padding: Size2d | None = None
    """None keeps the input's size at stride 1."""
    dilation: Size2d = 1
    groups: int = 1

    @property
    def depthwise(self) -> bool:
        """Whether each channel has its own filter."""
        return self.groups == self.in_channels == self.out_channels


class Method(ABC):
    """Builds the layers of a block."""

    def at(self, stage: int) -> Method:
        """The method for this stage."""
        return self

    def context(self, channels: int) -> Context | None:
        """The module that makes a block's shared context (N, R) from `channels` channels; None if there is
        none.
        """
        return None

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
        """A convolution without bias; `padding` None keeps the input's size at stride 1.

        `context_features` is the R of the block's context; with None, a layer that needs a context makes one.
        """
        size = pair(kernel_size)
        sizes = ConvSizes(in_channels, out_channels, size, stride, padding, dilation, groups)
        return self.make(sizes, context_features)

    @abstractmethod
    def make(self, sizes: ConvSizes, context_features: int | None) -> nn.Module:
        """The convolution for `conv`."""

    def gate(self, channels: int) -> Gate | None:
        """The gate after the last normalisation of a block's main branch; None if there is none."""
        return None


class PlainMethod(Method):
    """Ordinary convolutions."""

    def make(self, sizes: ConvSizes, context_features: int | None) -> nn.Module:
        return plain_conv(**vars(sizes))


@dataclass(frozen=True)
class LayerMethod(PlainMethod):
    """A method other than plain, in all stages alike."""

    design: StageDesign

    @property
    def spec(self) -> MethodSpec:
        """The method's entry."""
        return METHODS[self.design.method]

    def context(self, channels: int) -> Context | None:
        if not self.spec.shares_context:
            return None
        assert self.design.reduction is not None
        return Context(channels, self.design.reduction)

    def make(self, sizes: ConvSizes, context_features: int | None) -> nn.Module:
        arguments = None if self.spec.kind == "gate" else self.spec.arguments(self.design, sizes)
        if arguments is None:
            return super().make(sizes, context_features)
        shared = {"context_features": context_features} if self.spec.shares_context else {}
        layer: nn.Module = layer_class(self.spec.layer)(**vars(sizes), **arguments, **shared)
        return layer

    def gate(self, channels: int) -> Gate | None:
        if self.spec.kind != "gate":
            return None
        gate: Gate = layer_class(self.spec.layer)(channels, **design_axes(self.design))
        return gate


@dataclass(frozen=True)
class MethodByStage(PlainMethod):
    """A method with different settings by stage."""

    point: DesignPoint

    def at(self, stage: int) -> Method:
        return _method(stage_design(self.point, stage))


def method_of(point: DesignPoint) -> Method:
    """The method of a design point, with the point's values of the method's axes."""
    differs = point.stages is not None or any(isinstance(setting, PerStage) for setting in (point.M, point.G))
    return MethodByStage(point) if differs else _method(stage_design(point, 0))


@cache
def layer_class(path: str) -> Any:
    """The class of a method's layer, given as "module:class"."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def layer_spec(module: nn.Module) -> MethodSpec | None:
    """The entry of the method whose layer `module` is; None if there is none."""
    names = (f"{base.__module__}:{base.__qualname__}" for base in type(module).__mro__)
    return next((_BY_LAYER[name] for name in names if name in _BY_LAYER), None)


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
    """An ordinary convolution without bias; `padding` None keeps the input's size at stride 1 (odd kernels).

    Initialised normal with variance 2/F (He et al., ICCV 2015, section 2.2).
    """
    (high, wide), (down, across) = pair(kernel_size), pair(dilation)
    if padding is None:
        padding = (down * (high // 2), across * (wide // 2))
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups=groups, bias=False
    )
    nn.init.normal_(conv.weight, std=kaiming_std(in_channels // groups * high * wide))
    return conv


_BY_LAYER = {method.layer: method for method in METHODS.values() if method.layer}


def _method(design: StageDesign) -> Method:
    return PlainMethod() if METHODS[design.method].kind == "plain" else LayerMethod(design)
