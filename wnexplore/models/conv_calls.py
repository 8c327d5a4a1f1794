"""What an image meets on its way through a network of which nothing is known: its convolutions, in order."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wnexplore.errors import InputError
from wnexplore.models.copies import evaluating, uncompiled, without_numbers
from wnexplore.models.input_sizes import CONVOLUTIONS, likely_channels, sought_size, stated_sizes
from wnexplore.models.multiply_adds import Products, counted
from wnexplore.models.recurrent import OneStep

RESOLUTIONS = (224, 256, 192, 128, 96, 64, 48, 32, 28, 288, 299, 320, 384, 448, 512)
"""Those at which a network is looked at that states none, in pixels: at the first on which it can run."""


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
    made: bool
    """Whether parameters or buffers are there that weren't before."""


def layout(model: nn.Module, resolution: int | None = None, *, known_size: int | None = None) -> Layout:
    """Where the convolutions of `model` stand, for images of `resolution` pixels.

    Left out, it is the first on which the network can run of 224, `known_size` (the size of its images,
    if known), the sizes that it states (`wnexplore.models.input_sizes`), `RESOLUTIONS` and the
    one that fits its last layers. Where its code asks for numbers, `known_size` comes first: a pass takes time
    and memory then. The network is left as it was, but for lazy layers, which get the size that they meet. Raises
    `InputError` if it can't run, or if it has lazy layers and no size was said.
    """
    if is_unsized(model):
        if resolution is None:
            raise InputError(
                "the network has lazy layers without a size: say the resolution, or run it on an image first"
            )
        give_sizes(model, resolution)
    found = _Looks(model)
    if resolution is not None:
        sizes = [resolution]
    else:
        known = (RESOLUTIONS[0], known_size, *stated_sizes(model))
        sizes = [size for size in dict.fromkeys(known) if size is not None]
    with_numbers = [known_size] if known_size is not None else sizes
    seen = found.first(_seen_without_numbers, sizes) or found.first(_seen_with_numbers, with_numbers)
    if seen is None and resolution is None:
        others = [size for size in RESOLUTIONS if size not in sizes]
        seen = found.first(_seen_without_numbers, others) or found.sought()
        seen = seen or found.first(_seen_with_numbers, [size for size in others if size not in with_numbers])
    if seen is not None:
        return seen
    first, *rest = found.tried
    nor = f", nor of {', '.join(map(str, rest))}" if rest else ""
    wanted = "; say resolution=, the height of the images that it is for" if resolution is None else ""
    raise InputError(f"the network can't run on images of {first} pixels{nor}: {found.reason}{wanted}")


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
    for count in _each(channels, model, resolution):
        for look in (_seen_without_numbers, _seen_with_numbers):
            try:
                return look(model, count, resolution, counted, batch_size)
            # Anybody's code: it may even want to leave.
            except (Exception, SystemExit) as error:
                if _is_out_of_memory(error):
                    raise
                reasons.append(_reason(error))
    # That of the first number of channels, with numbers: the others are guesses.
    raise RuntimeError(reasons[1])


def is_unsized(model: nn.Module) -> bool:
    """Whether `model` has lazy layers that no image has yet given a size."""
    return any(is_lazy(tensor) for tensor in itertools.chain(model.parameters(), model.buffers()))


def give_sizes(model: nn.Module, resolution: int) -> None:
    """Make the lazy layers of `model` for images (N, 3, `resolution`, `resolution`), in place.

    Layers that it makes itself when it meets its first image are made likewise. Raises `InputError` if it
    can't run on them.
    """
    like = next((p for p in model.parameters() if not is_lazy(p) and p.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, 3, resolution, resolution, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad(), evaluating(model), uncompiled(), redirect_stdout(sys.stderr):
            model(image)
    except (Exception, SystemExit) as error:
        if _is_out_of_memory(error):
            raise
        raise InputError(
            f"the network can't run on images of {resolution} pixels, which would give its lazy layers their"
            f" size: {_reason(error)}"
        ) from None


_Look = Callable[[nn.Module, int, int, bool, int], Pass]


class _Looks:
    """Looks at a network, on images of one size after another."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._channels: list[int] = []
        self.tried: dict[int, None] = {}
        """The sizes at which it was looked at in vain."""
        self.reason = ""
        """Why it couldn't run the first time, with numbers if it was looked at with them."""
        self._has_numbers = False

    def first(self, look: _Look, sizes: Sequence[int]) -> Layout | None:
        """The layout at the first of `sizes` at which it runs, 3 channels before others."""
        if not sizes:
            return None
        for channels, size in ((count, size) for count in self._likely(sizes) for size in sizes):
            try:
                return _layout(self._model, size, look(self._model, channels, size, False, 1))
            # Anybody's code: it may even want to leave.
            except (Exception, SystemExit) as error:
                self.tried[size] = None
                is_first = look is _seen_with_numbers and not self._has_numbers
                if is_first or not self.reason:
                    self.reason, self._has_numbers = _reason(error), is_first
        return None

    def sought(self) -> Layout | None:
        """The layout at a size found by how the network fails."""
        for channels in self._channels:
            size = sought_size(self._model, channels, RESOLUTIONS[0])
            if size is not None and (seen := self.first(_seen_without_numbers, [size])) is not None:
                return seen
        return None

    def _likely(self, sizes: Sequence[int]) -> Iterator[int]:
        yield 3
        # Only now: these take passes of their own.
        self._channels = self._channels or likely_channels(self._model, sizes[0])
        yield from self._channels[1:]


def _each(channels: Sequence[int] | None, model: nn.Module, resolution: int) -> Iterator[int]:
    if channels is not None:
        yield from channels
        return
    yield 3
    yield from likely_channels(model, resolution)[1:]


def _seen_without_numbers(
    model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int
) -> Pass:
    return _observed(without_numbers(model).eval(), channels, resolution, counts, batch_size)


def _seen_with_numbers(
    model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int
) -> Pass:
    with evaluating(model):
        return _observed(model, channels, resolution, counts, batch_size)


def _is_out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator reports it as an error like others.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _reason(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"SystemExit: {line}" if isinstance(error, SystemExit) else line or type(error).__name__


def _layout(model: nn.Module, resolution: int, seen: Pass) -> Layout:
    modules = {name: module for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
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
    before = _names(model)
    hooks = [
        module.register_forward_hook(partial(note, name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    try:
        # What it prints is not our output.
        with (
            torch.no_grad(),
            uncompiled(),
            redirect_stdout(sys.stderr),
            counted(model) if counts else OneStep() as seen,
        ):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    products = seen if isinstance(seen, Products) else Products()
    return Pass(calls, products, channels, _names(model) != before)


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
