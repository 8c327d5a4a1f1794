"""What an image meets on its way through a network of which nothing is known: its convolutions, in order."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wnexplore.errors import InputError
from wnexplore.models.products import Products, counted

RESOLUTIONS = (224, 256, 192, 128, 96, 64, 48, 32, 28, 288, 299, 320, 384, 448, 512)
"""Those at which a network is looked at, in pixels: at the first of them on which it can run."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Call:
    """One run of a convolution: the shapes that it got and gave."""

    input: torch.Size
    output: torch.Size


@dataclass(frozen=True)
class SeenConv:
    """A convolution of a network."""

    name: str
    """Its module's dotted name."""
    module: nn.Module
    calls: tuple[Call, ...]
    """Its runs in one pass; none if an image doesn't get there."""
    stage: int
    """How often the image has been halved at its output: log2 of the ratio of the heights, rounded."""


@dataclass(frozen=True)
class Layout:
    """The convolutions of a network: in the order in which they run, then those that don't run."""

    resolution: int
    """In pixels, of the images that stages are counted from."""
    convs: tuple[SeenConv, ...]
    channels: int = 3
    """Of the images that the network reads."""


@dataclass(frozen=True)
class Pass:
    """What one image, or one batch, has met."""

    calls: dict[str, list[Call]]
    """Convolution -> its runs; in the order of their first ones."""
    products: Products
    """What multiplied matrices; nothing if it wasn't counted."""
    channels: int
    """Of the images."""


def layout(model: nn.Module, resolution: int | None = None, *, own: int | None = None) -> Layout:
    """Where the convolutions of `model` stand, for images of `resolution` pixels.

    Left out, it is the first on which the network can run of 224, `own` (the size that its images will
    have, if that is known), the size that timm says of it and the others of `RESOLUTIONS`. The network is
    left as it was, but for lazy layers, which get the size that they meet. Raises `InputError` if it can't
    run, or if it has lazy layers and no size was said.
    """
    if resolution is not None:
        likely, others = [resolution], []
    else:
        known = dict.fromkeys((RESOLUTIONS[0], own, _declared(model)))
        likely = [size for size in known if size is not None]
        others = [size for size in RESOLUTIONS if size not in likely]
    if is_unsized(model):
        if resolution is None:
            raise InputError(
                "the network has lazy layers without a size: say the resolution, or run it on an image first"
            )
        give_sizes(model, resolution)
    reasons: list[str] = []
    # A pass with numbers takes long: for sizes of which none runs without, that is.
    for sizes, look in itertools.product((likely, others), (_seen_without_numbers, _seen_with_numbers)):
        for size, channels in itertools.product(sizes, _channels(model)):
            try:
                return _layout(model, size, look(model, channels, size, False, 1))
            # The networks are anybody's, and may raise anything.
            except Exception as error:
                reasons.append(_reason(error))
    tried = list(dict.fromkeys((*likely, *others)))
    nor = f", nor of {', '.join(map(str, tried[1:]))}" if tried[1:] else ""
    # That of the first size and number of channels, with numbers.
    told = reasons[len(likely) * len(_channels(model))]
    raise InputError(f"the network can't run on images of {tried[0]} pixels{nor}: {told}")


def one_pass(
    model: nn.Module,
    resolution: int,
    *,
    counted: bool = False,
    batch_size: int = 1,
    channels: Sequence[int] | None = None,
) -> Pass:
    """Images of `resolution` pixels through `model` in evaluation mode; the network is left as it was.

    Runs a copy without numbers (meta tensors), or where its code asks for numbers the network itself, on
    random images, the same ones each time. These have the first number of `channels` on which it can run: 3,
    1, or what one of its convolutions reads if it is left out. Raises `RuntimeError`, one line, if it can't
    run, and torch's or Python's own error if there is not the memory.
    """
    reasons: list[str] = []
    for own in _channels(model) if channels is None else channels:
        for look in (_seen_without_numbers, _seen_with_numbers):
            try:
                return look(model, own, resolution, counted, batch_size)
            # Anybody's code: it may even want to leave.
            except (Exception, SystemExit) as error:
                if _is_out_of_memory(error):
                    raise
                reasons.append(_reason(error))
    # That of the first number of channels, with numbers: the others are guesses.
    raise RuntimeError(reasons[1])


def is_unsized(model: nn.Module) -> bool:
    """Whether `model` has lazy layers that no image has yet given a size."""
    return any(is_lazy(own) for own in itertools.chain(model.parameters(), model.buffers()))


def give_sizes(model: nn.Module, resolution: int) -> None:
    """Make the lazy layers of `model` for images (N, 3, `resolution`, `resolution`), in place.

    Raises `InputError` if it can't run on them.
    """
    like = next((p for p in model.parameters() if not is_lazy(p) and p.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, 3, resolution, resolution, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad(), _evaluating(model):
            model(image)
    except (Exception, SystemExit) as error:
        if _is_out_of_memory(error):
            raise
        raise InputError(
            f"the network can't run on images of {resolution} pixels, which would give its lazy layers their"
            f" size: {_reason(error)}"
        ) from None


def _seen_without_numbers(
    model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int
) -> Pass:
    return _observed(without_numbers(model).eval(), channels, resolution, counts, batch_size)


def _seen_with_numbers(
    model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int
) -> Pass:
    with _evaluating(model):
        return _observed(model, channels, resolution, counts, batch_size)


def _is_out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator reports it as an error like others.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _reason(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"SystemExit: {line}" if isinstance(error, SystemExit) else line or type(error).__name__


def _channels(model: nn.Module) -> list[int]:
    """The numbers of channels that images of `model` may have, likeliest first."""
    read = [own.in_channels for own in model.modules() if isinstance(own, nn.Conv2d)]
    return list(dict.fromkeys((3, 1, *read)))[:_MOST_CHANNELS]


_MOST_CHANNELS = 5
"""How many numbers of channels are tried."""


def _declared(model: nn.Module) -> int | None:
    """The height of the images that timm says a network is for."""
    told = getattr(model, "pretrained_cfg", None)
    size = told.get("input_size") if isinstance(told, dict) else None
    return size[-1] if isinstance(size, (tuple, list)) and size and isinstance(size[-1], int) else None


def _layout(model: nn.Module, resolution: int, seen: Pass) -> Layout:
    modules = {name: own for name, own in model.named_modules() if isinstance(own, CONVOLUTIONS)}
    names = [*seen.calls, *(name for name in modules if name not in seen.calls)]
    convs = tuple(_seen_conv(name, modules[name], seen, resolution) for name in names)
    return Layout(resolution, convs, seen.channels)


def _seen_conv(name: str, module: nn.Module, seen: Pass, resolution: int) -> SeenConv:
    calls = tuple(seen.calls.get(name, ()))
    height = calls[0].output[-2] if calls and len(calls[0].output) == 4 else resolution
    return SeenConv(name, module, calls, max(0, round(math.log2(resolution / height))))


def _observed(model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int) -> Pass:
    calls: dict[str, list[Call]] = {}

    def note(
        name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        x = (*args, *kwargs.values())[0]
        calls.setdefault(name, []).append(Call(x.shape, output.shape))

    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    # Where a network decides by what it sees, it is to see something.
    dice = None if like.is_meta else torch.Generator(like.device).manual_seed(0)
    shape = batch_size, channels, resolution, resolution
    images = torch.randn(shape, generator=dice, device=like.device, dtype=like.dtype)
    hooks = [
        module.register_forward_hook(partial(note, name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    try:
        with torch.no_grad(), counted(model) if counts else nullcontext(Products()) as products:
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return Pass(calls, products, channels)


def without_numbers(model: nn.Module) -> nn.Module:
    """A copy on the meta device; the weights themselves are never copied."""
    known: dict[int, Any] = {}
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        known[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(model, known)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and afterwards in the mode that it was in."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
