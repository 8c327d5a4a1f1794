"""Replaces any network's convolutions by a method's, in place, keeping the weights where that is exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wnexplore.design.legality import IllegalPointError
from wnexplore.design.multiplier import Written
from wnexplore.design.point import DesignPoint, method_axes
from wnexplore.design.stages import ALL, Stages, has_method, parse_stages
from wnexplore.errors import InputError
from wnexplore.models.conv_calls import ConvLayout, SeenConv, layout
from wnexplore.models.method_layers import Method, MethodByStage, method_of
from wnexplore.models.trial_run import take_settings
from wnexplore.models.unconvertible import of_two, padding_of, why_left
from wnexplore.nn import Gate, GeneratedConv2d, MethodConv2d
from wnexplore.nn.formulations.layer_shape import Size2d
from wnexplore.nn.generated import at_least, size_pair


@dataclass(frozen=True)
class Where:
    """Which convolutions; None means no restriction."""

    names: str | None = None
    """A regular expression that the dotted name must contain."""
    stages: Stages | None = None
    """How often the image is halved: 2 where the feature map has a quarter of its height."""
    kernel_sizes: int | Sequence[Size2d] | None = None
    """The larger side of the kernel, or both: [3, (1, 7)]."""
    stem: bool = False
    """Whether to include the first convolution."""


@dataclass(frozen=True)
class Change:
    """What was done with one convolution, and why."""

    name: str
    what: str
    """The layer now in its place."""
    reason: str
    """Why it was left unchanged, or whether its weights were kept."""


@dataclass(frozen=True)
class Conversion:
    """A network converted in place, and the list of changes."""

    model: nn.Module
    replaced: tuple[Change, ...]
    left: tuple[Change, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} convolutions replaced, {len(self.left)} left"]
        lines += [f"  {change.name}: {change.what}, {change.reason}" for change in self.replaced]
        lines += [f"  {change.name} left: {change.reason}" for change in self.left]
        return "\n".join(lines)


def convert(
    model: nn.Module,
    method: str | Method = "weightnet",
    M: Written | None = None,
    G: Written | None = None,
    *,
    where: Where | str | None = None,
    resolution: int | None = None,
    **axes: Any,
) -> Conversion:
    """Replace the convolutions of `model`, in place, by those of `method` with M, G and its other `axes`.

    `where` selects them, a `Where` or a regular expression on their names; by default all but the stem. A new
    convolution computes its context from its input; for a method with a gate the convolution is kept with its
    weights and followed by the gate. A bias is kept and added as before, and settings (stride, kernel_size,
    ...) can be read as before. Left unchanged are those whose module is no ordinary zero-padded `nn.Conv2d`,
    shares or computes its weight, has hooks or an overridden forward, is used never or more than once, or
    works on pooled features; and those that the network uses in other ways than calling them: it reads the
    weight, or computes something else if the class differs. This is found by running it, in evaluation and as
    a training step.

    A generator with one input per group (lambda = M/G = 1) keeps the convolution's kernel K: fc1 starts at
    weight 0, so that alpha is a constant alpha0 for every image, and B = K/alpha0, which reproduces the
    output. alpha0 is 1/2 for a sigmoid, where 2·K is exact; at 1 it would be saturated and never learn. All
    other generated kernels are initialised at random. Device, dtype and mode are kept; kept parameters stay
    frozen if they were, and new ones are trainable.

    Stages are those of images of `resolution` pixels, by default 224. If the network can't run on these, it
    is the first on which it can of the sizes that it states, `conv_calls.RESOLUTIONS`, and the size that fits
    its last layers. The images have 3 channels, or the number on which it can run.

    Raises `InputError` for a wrong axis, for stages that the network doesn't have, or if it can't run, and
    `IllegalPointError` naming the layer for an illegal (M, G); then nothing is changed.
    """
    chosen_method = _method(method, M, G, axes)
    chosen = Where(names=where) if isinstance(where, str) else where or Where()
    _chooser(chosen)  # before the network is tried, which takes time
    found = layout(model, None if resolution is None else at_least(1, "resolution", resolution))
    return convert_seen(model, chosen_method, chosen, found, why_left(model, found, stem=chosen.stem))


def convert_seen(
    model: nn.Module, chosen_method: Method, chosen: Where, found: ConvLayout, why_never: Mapping[str, str]
) -> Conversion:
    """As `convert`, with known layout and known convolutions to leave unchanged."""
    why_not = _chooser(chosen)
    _check_stages(chosen_method, chosen, {seen.stage for seen in found.convs if seen.name not in why_never})
    made: dict[str, nn.Module] = {}
    replaced, left = [], []
    for seen in found.convs:
        reason = why_never.get(seen.name) or why_not(seen)
        new = None if reason else replacement(seen.name, _conv(seen), chosen_method.at(seen.stage))
        if new is None:
            kind = type(seen.module).__name__
            left.append(Change(seen.name, kind, reason or "the method leaves it as it is"))
        else:
            made[seen.name], weights = new
            replaced.append(Change(seen.name, _kind(made[seen.name]), weights))
    for name, layer in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    return Conversion(model, tuple(replaced), tuple(left))


def replacement(name: str, old: nn.Conv2d, method: Method) -> tuple[nn.Module, str] | None:
    """What replaces the convolution `old`, called `name`, and whether its weights were kept; None: it stays.

    Raises `InputError` and `IllegalPointError` as `convert` does.
    """
    try:
        new, gate = _made(method, old)
    except IllegalPointError as error:
        raise IllegalPointError(f"layer {name}: {error}", error.rule) from None
    except InputError as error:
        raise InputError(f"layer {name}: {error}") from None
    if type(new) is nn.Conv2d:
        if gate is None:
            return None
        gated = Gated(old, gate.to(old.weight)).train(old.training)
        return gated, "kernel kept, the gate is new"
    new.to(old.weight)
    kept = isinstance(new, MethodConv2d) and new.keep_kernel(old.weight)
    made = new if old.bias is None else Biased(new, old)
    # As it was written ("same"): the network may read it.
    take_settings(made, old)
    return made.train(old.training), "kernel kept" if kept else "kernels drawn anew"


class Gated(nn.Module):
    """A convolution followed by a gate: (N, C_in, H, W) -> (N, C_out, H_out, W_out)."""

    def __init__(self, conv: nn.Conv2d, gate: Gate) -> None:
        super().__init__()
        self.conv, self.gate = conv, gate
        take_settings(self, conv)

    @property
    def bias(self) -> Tensor | None:
        """The convolution's bias."""
        return self.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.gate(self.conv(x))
        return gated


class Biased(nn.Module):
    """A method's layer with the bias of the convolution `old` that it replaces."""

    def __init__(self, conv: nn.Module, old: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.bias = old.get_parameter("bias")
        take_settings(self, old)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv, GeneratedConv2d):
            y: Tensor = self.conv(x, shift=self.bias)
            return y
        shifted: Tensor = self.conv(x)
        # Under autocast the bias must not change the dtype to float32.
        return shifted + self.bias.to(shifted.dtype)[:, None, None]


def _method(method: str | Method, M: Written | None, G: Written | None, axes: dict[str, Any]) -> Method:
    if isinstance(method, Method):
        if axes or M is not None or G is not None:
            raise InputError("a Method has its axes: give either the Method, or a method's name with axes")
        return method
    given = method_axes(method, {"M": M, "G": G, **axes})
    return method_of(DesignPoint(backbone="", method=method, stem="", resolution=1, num_classes=1, **given))


def _chooser(where: Where) -> Callable[[SeenConv], str | None]:
    """A function that returns why a convolution isn't selected by `where`; None if it is."""
    try:
        pattern = re.compile(where.names or "")
    except (re.error, TypeError) as error:
        raise InputError(f"where is '{where.names}', which is no regular expression: {error}") from None
    stages = None if where.stages is None else parse_stages(where.stages, None)
    sizes = where.kernel_sizes
    listed = () if sizes is None else (sizes,) if isinstance(sizes, int) else tuple(sizes)
    for size in listed:
        size_pair("kernel_sizes", size)

    def why_not(seen: SeenConv) -> str | None:
        if not pattern.search(seen.name):
            return f"its name has no {where.names!r}"
        if not has_method(stages, seen.stage):
            return f"it is in stage {seen.stage}"
        kernel = _conv(seen).kernel_size
        if listed and kernel not in listed and max(kernel) not in listed:
            return f"its kernel is {kernel[0]}x{kernel[1]}"
        return None

    return why_not


def _check_stages(method: Method, where: Where, known: set[int]) -> None:
    """Raise `InputError` if a requested stage is not in `known`."""
    requested = [None if where.stages is None else parse_stages(where.stages, None)]
    if isinstance(method, MethodByStage):
        requested.append(method.point.stages)
    for stages in requested:
        if stages is not None and not set(stages.split("+")) <= {ALL, *map(str, known)}:
            has = ", ".join(map(str, sorted(known))) or "none that can be converted"
            raise InputError(f"stages is '{stages}': the network has {has}")


def _kind(new: nn.Module) -> str:
    if isinstance(new, Gated):
        return f"Conv2d and {type(new.gate).__name__}"
    return type(new.conv if isinstance(new, Biased) else new).__name__


def _made(method: Method, conv: nn.Conv2d) -> tuple[nn.Module, Gate | None]:
    """The method's layer for a convolution like `conv`, and the gate that follows it."""
    made = method.conv(
        conv.in_channels,
        conv.out_channels,
        of_two(conv.kernel_size),
        stride=of_two(conv.stride),
        padding=padding_of(conv),
        dilation=of_two(conv.dilation),
        groups=conv.groups,
    )
    return made, method.gate(conv.out_channels)


def _conv(seen: SeenConv) -> nn.Conv2d:
    assert isinstance(seen.module, nn.Conv2d)
    return seen.module
