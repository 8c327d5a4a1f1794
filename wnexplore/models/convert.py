"""Any network's convolutions replaced by those of a method."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.design.legality import IllegalPointError
from wnexplore.design.multiplier import Written
from wnexplore.design.point import DesignPoint, method_axes
from wnexplore.errors import InputError
from wnexplore.models.methods import Method, method_of
from wnexplore.nn import Gate, GeneratedConv2d, WeightNetConv2d
from wnexplore.nn.weightnet import resting_alpha

RESOLUTION = 224
"""Size of the images that the stages of a network are told by, in pixels."""


@dataclass(frozen=True)
class Where:
    """Which convolutions; what is None leaves none out."""

    names: str | None = None
    """A regular expression, searched for in the dotted name."""
    stages: Sequence[int] | None = None
    """How often the image has been halved: 2 where a feature map is a quarter of its height."""
    kernel_sizes: Sequence[int] | None = None
    """The larger side of the kernel."""
    stem: bool = False
    """Whether the first convolution is one of them."""


@dataclass(frozen=True)
class Change:
    """What happened to a convolution, and why."""

    name: str
    what: str
    """The layer that stands there now."""
    reason: str
    """Why it was left, or what became of its weights."""


@dataclass(frozen=True)
class Conversion:
    """A network converted in place, and the account of it."""

    model: nn.Module
    replaced: tuple[Change, ...]
    left: tuple[Change, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.replaced)} convolutions replaced, {len(self.left)} left"]
        lines += [f"  {own.name}: {own.what}, {own.reason}" for own in self.replaced]
        lines += [f"  {own.name} left: {own.reason}" for own in self.left]
        return "\n".join(lines)


def convert(
    model: nn.Module,
    method: str | Method = "weightnet",
    M: Written | None = None,
    G: Written | None = None,
    *,
    where: Where | str | None = None,
    resolution: int = RESOLUTION,
    **axes: Any,
) -> Conversion:
    """Replace the convolutions of `model`, in place, by those of `method` with M, G and its other `axes`.

    `where` says which, a `Where` or a regular expression on their names: all but the stem if it is left out.
    A convolution makes its context from its own input or, for a method that scales (se, cbam, gc, eca), is
    kept with its weights and followed by the gate. Its bias, if it has one, is added as before.

    A generator with one input a group (lambda = M/G = 1) keeps the convolution's kernel K: fc1 starts at
    weight 0, so that alpha has one value alpha0 for every image, and B = K/alpha0, which gives the output
    from before. alpha0 is 1/2 for a sigmoid, where 2·K is exact; at 1 it would be saturated and never learn.
    Every other generated kernel is drawn anew.

    The images (1, 3, `resolution`, `resolution`) that tell which convolutions run, and in which stage, go
    through a copy on PyTorch's meta device, where nothing is computed.

    Raises `InputError` for an axis that is wrong, and `IllegalPointError` naming the layer for an (M, G) that
    it can't have; then nothing is changed.
    """
    own = _method(method, M, G, axes)
    chosen = Where(names=where) if isinstance(where, str) else where or Where()
    made: dict[str, nn.Module] = {}
    replaced, left = [], []
    for place in layout(model, resolution):
        reason = place.obstacle or _not_chosen(place, chosen)
        new = None if reason else _replacement(place, own.at(place.stage))
        if new is None:
            left.append(Change(place.name, "Conv2d", reason or "the method leaves it as it is"))
        else:
            made[place.name] = new
            replaced.append(Change(place.name, _kind(new), _weights(new)))
    for name, new in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    return Conversion(model, tuple(replaced), tuple(left))


@dataclass(frozen=True)
class Place:
    """A convolution of a network, and where it stands."""

    name: str
    conv: nn.Conv2d
    padding: tuple[int, int]
    stage: int
    first: bool
    obstacle: str
    """Why it can't be replaced, "" if it can."""


def layout(model: nn.Module, resolution: int = RESOLUTION) -> list[Place]:
    """The convolutions of `model` in the order in which they run, those that don't run last.

    Raises `InputError` if the model can't run on images of that size.
    """
    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if "" in convs:
        raise InputError("the model is a convolution itself: put it into a torch.nn.Sequential")
    runs = _runs(model, list(convs), resolution)
    owners = Counter(
        id(p) for module in model.modules() for p in module._parameters.values() if p is not None
    )
    order = [*runs, *(name for name in convs if name not in runs)]
    return [
        _place(name, convs[name], runs, owners, resolution, first=not at) for at, name in enumerate(order)
    ]


@dataclass
class _Run:
    times: int = 0
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)


def _runs(model: nn.Module, names: list[str], resolution: int) -> dict[str, _Run]:
    """What passes through each convolution, in the order in which they run."""
    runs: dict[str, _Run] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        run = runs.setdefault(name, _Run())
        run.times += 1
        run.before, run.after = _size(inputs[0]), _size(output)

    def watch(network: nn.Module, device: torch.device | str) -> None:
        handles = [network.get_submodule(n).register_forward_hook(partial(note, n)) for n in names]
        try:
            with torch.no_grad():
                network(torch.zeros(1, 3, resolution, resolution, device=device, dtype=_dtype(network)))
        finally:
            for handle in handles:
                handle.remove()

    try:
        watch(copy.deepcopy(model).to("meta").eval(), "meta")
    except (RuntimeError, NotImplementedError):
        # Not every operator knows the meta device: then for real.
        runs.clear()
        training = model.training
        try:
            watch(model.eval(), next(model.parameters()).device)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"the network can't run on images of {resolution} pixels: {reason}") from None
        finally:
            model.train(training)
    return runs


def _place(
    name: str,
    conv: nn.Conv2d,
    runs: Mapping[str, _Run],
    owners: Counter[int],
    resolution: int,
    *,
    first: bool,
) -> Place:
    run = runs.get(name, _Run())
    stage = round(math.log2(resolution / run.after[0])) if run.times else 0
    padding = _padding(conv)
    if type(conv) is not nn.Conv2d:
        obstacle = f"it is a {type(conv).__name__}, no ordinary Conv2d"
    elif not run.times:
        obstacle = "no image passes through it"
    elif run.times > 1 or owners[id(conv.weight)] > 1:
        obstacle = "it is used more than once"
    elif run.before == (1, 1):
        obstacle = "it works on pooled features"
    elif padding is None or conv.padding_mode != "zeros":
        obstacle = f"its padding is {conv.padding_mode} {conv.padding}"
    else:
        obstacle = ""
    return Place(name, conv, padding or (0, 0), stage, first, obstacle)


def _padding(conv: nn.Conv2d) -> tuple[int, int] | None:
    """The padding on either side in pixels; None if the sides differ."""
    if conv.padding == "valid":
        return (0, 0)
    if isinstance(conv.padding, str):
        over = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return None if any(each % 2 for each in over) else (over[0] // 2, over[1] // 2)
    high, wide = conv.padding
    return (int(high), int(wide))


def _not_chosen(place: Place, where: Where) -> str:
    if place.first and not where.stem:
        return "it is the stem"
    if where.names is not None and not re.search(where.names, place.name):
        return f"its name has no {where.names!r}"
    if where.stages is not None and place.stage not in where.stages:
        return f"it is in stage {place.stage}"
    size = max(place.conv.kernel_size)
    return f"its kernel is {size} wide" if where.kernel_sizes and size not in where.kernel_sizes else ""


def _method(method: str | Method, M: Written | None, G: Written | None, axes: dict[str, Any]) -> Method:
    if isinstance(method, Method):
        if axes or M is not None or G is not None:
            raise InputError("a Method has its axes: give it alone, or a method's name with them")
        return method
    given = method_axes(method, {"M": M, "G": G, **axes})
    return method_of(DesignPoint("", method, stem="", resolution=RESOLUTION, num_classes=1, **given))


def _replacement(place: Place, method: Method) -> nn.Module | None:
    """What stands in for a convolution; None if the method has nothing else for it."""
    old = place.conv
    try:
        new = method.conv(
            old.in_channels,
            old.out_channels,
            (old.kernel_size[0], old.kernel_size[1]),
            stride=(old.stride[0], old.stride[1]),
            padding=place.padding,
            dilation=(old.dilation[0], old.dilation[1]),
            groups=old.groups,
        )
    except IllegalPointError as error:
        raise IllegalPointError(f"layer {place.name}: {error}", error.rule) from None
    gate = method.gate(old.out_channels)
    if type(new) is nn.Conv2d:
        if gate is None:
            return None
        return _like(Gated(old, gate), old)
    if isinstance(new, WeightNetConv2d) and new.shape.inputs_per_group == 1:
        _keep(new, old)
    return _like(new if old.bias is None else Biased(new, old.bias), old)


def _keep(new: WeightNetConv2d, old: nn.Conv2d) -> None:
    bias, alpha0 = resting_alpha(new.activation, 1)
    new.to(device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        nn.init.zeros_(new.fc1.weight)
        nn.init.constant_(new.fc1.bias, bias)
        if new.activation == "tanh":
            # The bias is rounded: alpha is what tanh makes of that.
            alpha0 = float(torch.tensor(bias, dtype=old.weight.dtype, device="cpu").tanh())
        new.fc2.weight.copy_(old.weight.reshape(-1, 1) / alpha0)


def _like(new: nn.Module, old: nn.Conv2d) -> nn.Module:
    """`new` where `old` is, in its mode, and frozen if it is."""
    new.to(device=old.weight.device, dtype=old.weight.dtype).train(old.training)
    return new if old.weight.requires_grad else new.requires_grad_(False)


class Gated(nn.Module):
    """A convolution and the gate behind it: (N, C_in, H, W) -> (N, C_out, H_out, W_out)."""

    def __init__(self, conv: nn.Conv2d, gate: Gate) -> None:
        super().__init__()
        self.conv, self.gate = conv, gate

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.gate(self.conv(x))
        return gated


class Biased(nn.Module):
    """A layer of a method and the bias of the convolution that it replaced."""

    def __init__(self, conv: nn.Module, bias: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.bias = nn.Parameter(bias.detach(), bias.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.conv, GeneratedConv2d):
            y: Tensor = self.conv(x, shift=self.bias)
            return y
        shifted: Tensor = self.conv(x) + self.bias[:, None, None]
        return shifted


def _kind(new: nn.Module) -> str:
    if isinstance(new, Gated):
        return f"Conv2d and {type(new.gate).__name__}"
    return type(new.conv if isinstance(new, Biased) else new).__name__


def _weights(new: nn.Module) -> str:
    layer = new.conv if isinstance(new, Biased) else new
    if isinstance(layer, Gated):
        return "kernel kept, the gate is new"
    if isinstance(layer, WeightNetConv2d) and layer.shape.inputs_per_group == 1:
        return "kernel kept"
    return "kernels drawn anew"


def _size(x: Tensor) -> tuple[int, int]:
    return int(x.shape[-2]), int(x.shape[-1])


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
