"""Any network's convolutions replaced by a method's, in place, the weights kept where that is exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wnexplore.design.legality import IllegalPointError
from wnexplore.design.multiplier import Written
from wnexplore.design.point import DesignPoint, method_axes
from wnexplore.design.stages import Stages, has_method, parse_stages
from wnexplore.errors import InputError
from wnexplore.models.layout import Layout, SeenConv, layout
from wnexplore.models.methods import Method, MethodByStage, method_of
from wnexplore.models.trial import Trial, take_settings, try_out
from wnexplore.nn import Gate, GeneratedConv2d, SelectiveKernelConv2d, WeightNetConv2d
from wnexplore.nn.formulations.shape import Size2d
from wnexplore.nn.generated import at_least, size_pair


@dataclass(frozen=True)
class Where:
    """Which convolutions; what is None leaves none out."""

    names: str | None = None
    """A regular expression, searched for in the dotted name."""
    stages: Stages | None = None
    """How often the image has been halved: 2 where a feature map is a quarter of its height."""
    kernel_sizes: int | Sequence[Size2d] | None = None
    """The larger side of the kernel, or both: [3, (1, 7)]."""
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
    resolution: int | None = None,
    **axes: Any,
) -> Conversion:
    """Replace the convolutions of `model`, in place, by those of `method` with M, G and its other `axes`.

    `where` says which, a `Where` or a regular expression on their names: all but the stem if it is left out.
    A convolution makes its context from its own input or, for a method that scales (se, cbam, gc, eca), is
    kept with its weights and followed by the gate. Its bias, if it has one, is added as before, and its
    settings (stride, kernel_size, ...) can be asked for as before. Left are also those whose module is no
    ordinary `nn.Conv2d` padded with zeros, shares its weight or computes it, has hooks or a forward of its
    own, is used never or more than once, or works on pooled features; and those of which the network wants
    more than to run them: it reads the weight, or computes something else if another class stands there.
    That is seen by trying it, in evaluation and as a training step.

    A generator with one input a group (lambda = M/G = 1) keeps the convolution's kernel K: fc1 starts at
    weight 0, so that alpha has one value alpha0 for every image, and B = K/alpha0, which gives the output
    from before. alpha0 is 1/2 for a sigmoid, where 2·K is exact; at 1 it would be saturated and never learn.
    Every other generated kernel is drawn anew. Device, dtype and mode stay; what was frozen stays so where
    it is kept, and what is new learns.

    Stages are those of images of `resolution` pixels, 224 if left out, or if the network can't run on these
    the first of `wnexplore.models.layout.RESOLUTIONS` on which it can.

    Raises `InputError` for an axis that is wrong, stages that the network doesn't have, or if it can't run,
    and `IllegalPointError` naming the layer for an (M, G) that it can't have; then nothing is changed.
    """
    own = _method(method, M, G, axes)
    chosen = Where(names=where) if isinstance(where, str) else where or Where()
    _chooser(chosen)  # before the network is tried, which takes time
    found = layout(model, None if resolution is None else at_least(1, "resolution", resolution))
    return convert_seen(model, own, chosen, found, why_left(model, found, stem=chosen.stem))


def convert_seen(
    model: nn.Module, own: Method, chosen: Where, found: Layout, why_never: Mapping[str, str]
) -> Conversion:
    """As `convert`, of a network whose layout and whose convolutions to leave are known."""
    why_not = _chooser(chosen)
    _check_stages(own, chosen, {seen.stage for seen in found.convs if seen.name not in why_never})
    made: dict[str, nn.Module] = {}
    replaced, left = [], []
    for seen in found.convs:
        reason = why_never.get(seen.name) or why_not(seen)
        new = None if reason else _replacement(seen, own.at(seen.stage))
        if new is None:
            kind = type(seen.module).__name__
            left.append(Change(seen.name, kind, reason or "the method leaves it as it is"))
        else:
            made[seen.name] = new
            replaced.append(Change(seen.name, _kind(new), _weights(new)))
    for name, new in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
    return Conversion(model, tuple(replaced), tuple(left))


def why_left(model: nn.Module, found: Layout, *, stem: bool = False) -> dict[str, str]:
    """The convolutions of `model` that `convert` can't replace -> the reason, by dotted name.

    `found` is the network's layout, `stem` whether the first convolution may be replaced.
    """
    reasons = _by_themselves(model, found, stem)
    rest = [seen.name for seen in found.convs if seen.name not in reasons]
    return reasons | wanted_otherwise(model, found.resolution, rest)


def wanted_otherwise(model: nn.Module, resolution: int, names: Sequence[str]) -> dict[str, str]:
    """Those of the convolutions `names` of which `model` wants more than to run them -> what, by dotted name.

    In evaluation or training, on images of `resolution` pixels. With another module around each of the others
    the network computes the same, operator by operator.
    """
    before: dict[bool, Trial] = {}
    for training in (False, True):
        # What can't be trained as it is can't be compared.
        with suppress(RuntimeError):
            before[training] = try_out(model, resolution, training=training)
    reasons: dict[str, str] = {}
    while rest := [name for name in names if name not in reasons]:
        found = _difference(model, resolution, rest, before)
        if isinstance(found, dict):
            if not found:
                break
            reasons |= found
            continue
        # The shortest beginning of the list that makes a difference ends with one of which it comes.
        low, high = 1, len(rest)
        while low < high:
            middle = (low + high) // 2
            earlier = _difference(model, resolution, rest[:middle], before)
            if earlier == {}:
                low = middle + 1
            else:
                high, found = middle, earlier
        reasons |= {rest[high - 1]: found} if isinstance(found, str) else found
    return reasons


def _difference(
    model: nn.Module, resolution: int, names: Collection[str], before: Mapping[bool, Trial]
) -> dict[str, str] | str:
    """What differs with another module around each of `names`: convolution -> reason where it is known which.

    A reason alone where it is not; nothing if the network computes the same.
    """
    reasons: dict[str, str] = {}
    for training, plain in before.items():
        when = " in training" if training else ""
        try:
            trial = try_out(model, resolution, training=training, stood_in=names)
        except RuntimeError as error:
            return f"with another layer in its place the network can't run{when}: {error}"
        for name, asked in trial.asked.items():
            reasons.setdefault(name, f"the network reads its {asked[0]}{when}")
        if not training and not reasons:
            reasons = {name: "it is run from elsewhere too" for name in names if not trial.calls[name]}
        # A network may draw what it does.
        if (
            not reasons
            and trial.steps != plain.steps
            and try_out(model, resolution, training=training).steps == plain.steps
        ):
            return f"with another layer in its place the network computes something else{when}"
    return reasons


def _by_themselves(model: nn.Module, found: Layout, stem: bool) -> dict[str, str]:
    """Those that can't be replaced for what they are themselves -> the reason."""
    holders = _holders(model, "_modules")
    owners = _holders(model, "_parameters")
    parts = {
        part: type(owner).__name__
        for owner in model.modules()
        if isinstance(owner, Gate | SelectiveKernelConv2d)
        for part in owner.modules()
    }
    running = (seen.name for seen in found.convs if seen.calls and isinstance(seen.module, nn.Conv2d))
    first = next(running, None)

    def reasons(seen: SeenConv) -> Iterator[str]:
        module = seen.module
        if module in parts:
            yield f"part of a {parts[module]}"
        if parametrize.is_parametrized(module):
            yield "its weight is parametrised"
        if type(module) is not nn.Conv2d:
            yield f"it is a {type(module).__name__}, no ordinary Conv2d"
            return
        if not all(own is None or isinstance(own, nn.Parameter) for own in (module.weight, module.bias)):
            yield "its weight is computed from others"
            return
        if others := [
            name for name in owners[id(module.weight)] if name != f"{seen.name}.weight".lstrip(".")
        ]:
            yield f"its weight is also {others[0]}"
        if others := [name for name in holders.get(id(module), ()) if name != seen.name]:
            yield f"it is also {others[0]}"
        if seen.name == "":
            yield "it is the network itself"
        if any(vars(module).get(name) for name in _HOOKS) or any(map(_has_hooks, module.parameters())):
            yield "it has hooks, which would be lost"
        if changed := [name for name in vars(module) if callable(getattr(nn.Conv2d, name, None))]:
            yield f"it has a {changed[0]} of its own, which would be lost"
        held = {
            name: own
            for kind in ("_parameters", "_buffers", "_modules")
            for name, own in vars(module)[kind].items()
        }
        if more := held.keys() - {"weight", "bias"}:
            yield f"it holds {min(more)}, which would be lost"
        if not seen.calls:
            yield "no image passes through it"
            return
        if len(seen.calls) > 1:
            yield "it is used more than once"
        if seen.name == first and not stem:
            yield "it is the stem"
        if module.padding_mode != "zeros":
            yield f"its padding is {module.padding_mode} {module.padding}"
        if _padding(module) is None:
            yield "its padding is not the same on both sides"
        image, made = seen.calls[0].input, seen.calls[0].output
        if len(image) != 4:
            yield "its input is no batch of images"
        if image[2:] == made[2:] == (1, 1):
            yield "it works on pooled features"

    told = ((seen.name, next(reasons(seen), None)) for seen in found.convs)
    return {name: reason for name, reason in told if reason is not None}


_HOOKS = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs"))]
"""Where a module keeps the hooks that were put on it."""


def _has_hooks(tensor: Tensor) -> bool:
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))


class Gated(nn.Module):
    """A convolution and the gate behind it: (N, C_in, H, W) -> (N, C_out, H_out, W_out)."""

    def __init__(self, conv: nn.Conv2d, gate: Gate) -> None:
        super().__init__()
        self.conv, self.gate = conv, gate
        take_settings(self, conv)

    @property
    def bias(self) -> Tensor | None:
        """The convolution's own."""
        return self.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.gate(self.conv(x))
        return gated


class Biased(nn.Module):
    """A layer of a method and the bias of the convolution `old` that it replaced."""

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
        # Under autocast the bias must not make the images float32.
        return shifted + self.bias.to(shifted.dtype)[:, None, None]


def _method(method: str | Method, M: Written | None, G: Written | None, axes: dict[str, Any]) -> Method:
    if isinstance(method, Method):
        if axes or M is not None or G is not None:
            raise InputError("a Method has its axes: give it alone, or a method's name with them")
        return method
    given = method_axes(method, {"M": M, "G": G, **axes})
    return method_of(DesignPoint("", method, stem="", resolution=1, num_classes=1, **given))


def _chooser(where: Where) -> Callable[[SeenConv], str | None]:
    """What says why an ordinary convolution isn't one of `where`; None if it is."""
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
    """Raise `InputError` if stages are asked for of which one is none of `known`."""
    asked = [None if where.stages is None else parse_stages(where.stages, None)]
    if isinstance(method, MethodByStage):
        asked.append(method.point.stages)
    for stages in asked:
        if stages is not None and not set(map(int, stages.split("+"))) <= known:
            has = ", ".join(map(str, sorted(known))) or "none that can be converted"
            raise InputError(f"stages is '{stages}': the network has {has}")


def _replacement(seen: SeenConv, method: Method) -> nn.Module | None:
    """What stands in for a convolution; None if the method has nothing else for it."""
    old = _conv(seen)
    try:
        new, gate = _made(method, old)
    except IllegalPointError as error:
        raise IllegalPointError(f"layer {seen.name}: {error}", error.rule) from None
    except InputError as error:
        raise InputError(f"layer {seen.name}: {error}") from None
    if type(new) is nn.Conv2d:
        return None if gate is None else Gated(old, gate.to(old.weight)).train(old.training)
    new.to(old.weight)
    if isinstance(new, WeightNetConv2d) and new.shape.inputs_per_group == 1:
        _keep(new, old.weight)
    made = new if old.bias is None else Biased(new, old)
    # Also where it was written otherwise ("same"): the network may ask for it.
    take_settings(made, old)
    return made.train(old.training)


def _keep(new: WeightNetConv2d, kernel: Tensor) -> None:
    with torch.no_grad():
        new.fc1.weight.zero_()
        alpha = new.activate(new.fc1.bias.unsqueeze(0))  # (1, P), the same number in every group
        new.fc2.weight.copy_(kernel.reshape(-1, 1) / alpha[0, 0])
    new.fc2.weight.requires_grad_(kernel.requires_grad)


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


def _made(method: Method, conv: nn.Conv2d) -> tuple[nn.Module, Gate | None]:
    """What the method has for a convolution like `conv`, and the gate behind it."""
    made = method.conv(
        conv.in_channels,
        conv.out_channels,
        _of_two(conv.kernel_size),
        stride=_of_two(conv.stride),
        padding=_padding(conv),
        dilation=_of_two(conv.dilation),
        groups=conv.groups,
    )
    return made, method.gate(conv.out_channels)


def _padding(conv: nn.Conv2d) -> tuple[int, int] | None:
    """Zeros above and to the left; None if there are not as many below and to the right."""
    if not isinstance(conv.padding, str):
        return _of_two(conv.padding)
    if conv.padding == "valid":
        return 0, 0
    high, wide = (step * (size - 1) for size, step in zip(conv.kernel_size, conv.dilation, strict=True))
    return None if high % 2 or wide % 2 else (high // 2, wide // 2)


def _holders(model: nn.Module, kind: str) -> dict[int, list[str]]:
    """Id of a submodule ("_modules") or parameter ("_parameters") -> the dotted names that hold it."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for own, held in getattr(module, kind).items():
            holders.setdefault(id(held), []).append(f"{name}.{own}".lstrip("."))
    return holders


def _conv(seen: SeenConv) -> nn.Conv2d:
    assert isinstance(seen.module, nn.Conv2d)
    return seen.module


def _of_two(size: tuple[int, ...]) -> tuple[int, int]:
    high, wide = size
    return high, wide
