"""The convolutions of an arbitrary network in the order in which they run, with the shapes that they see."""

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

from wnexplore.design.skeleton import Site
from wnexplore.errors import InputError
from wnexplore.models.copies import evaluating, images_like, uncompiled, without_numbers
from wnexplore.models.input_sizes import CONVOLUTIONS, likely_channels, sought_size, stated_sizes
from wnexplore.models.multiply_adds import Products, counted
from wnexplore.models.recurrent import OneStep

RESOLUTIONS = (224, 256, 192, 128, 96, 64, 48, 32, 28, 288, 299, 320, 384, 448, 512)
"""In pixels: a network that states no size is examined at the first of these on which it can run."""


@dataclass(frozen=True)
class Call:
    """One call of a convolution: its input and output shapes."""

    input: torch.Size
    output: torch.Size


@dataclass(frozen=True)
class SeenConv:
    """A convolution of a network."""

    name: str
    """Its module's dotted name."""
    module: nn.Module
    calls: tuple[Call, ...]
    """Its calls in one forward pass; empty if it isn't reached."""
    stage: int
    """How often the image is halved at its output: log2 of the ratio of the heights, rounded."""


@dataclass(frozen=True)
class ConvLayout:
    """The convolutions of a network: in the order in which they run, then those that don't run."""

    resolution: int
    """In pixels: the image size that defines the stages."""
    convs: tuple[SeenConv, ...]
    channels: int = 3
    """Channels of the network's input images."""


@dataclass(frozen=True)
class ForwardPass:
    """The result of one forward pass."""

    calls: dict[str, list[Call]]
    """Convolution -> its calls, in the order of the first ones."""
    products: Products
    """The counted products; empty if nothing was counted."""
    channels: int
    """Of the images."""
    made: bool
    """Whether the pass created parameters or buffers."""


def layout(model: nn.Module, resolution: int | None = None, *, known_size: int | None = None) -> ConvLayout:
    """The convolutions of `model` in order, for images of `resolution` pixels.

    Without `resolution`, it is the first on which the network can run of 224, `known_size` (the size of its
    images, if known), the sizes that the network states (`wnexplore.models.input_sizes`), `RESOLUTIONS` and
    the size that fits its last layers. Where the network's code reads tensor values, `known_size` comes
    first, since a pass then takes time and memory. The network is left unchanged, except that lazy layers are
    initialised. Raises `InputError` if it can't run, or if it has lazy layers and no resolution is given.
    """
    if is_unsized(model):
        if resolution is None:
            raise InputError(
                "the network has uninitialised lazy layers: give the resolution, or run it on an image first"
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
    wanted = "; give resolution=, the height of its images" if resolution is None else ""
    raise InputError(f"the network can't run on images of {first} pixels{nor}: {found.reason}{wanted}")


def one_pass(
    model: nn.Module,
    resolution: int,
    *,
    counted: bool = False,
    batch_size: int = 1,
    channels: Sequence[int] | None = None,
) -> ForwardPass:
    """One forward pass of `model` in evaluation mode on images of `resolution` pixels; `model` is unchanged.

    Runs a copy on the meta device or, where the code reads tensor values, the network itself, on fixed random
    images. These have the first number of `channels` on which it can run: by default 3, 1, or the input
    channels of one of its convolutions. Raises `RuntimeError` with one line if it can't run, and torch's or
    Python's error if memory runs out.
    """
    reasons: list[str] = []
    for count in _channel_counts(channels, model, resolution):
        for look in (_seen_without_numbers, _seen_with_numbers):
            try:
                return look(model, count, resolution, counted, batch_size)
            # Arbitrary code: it may even call sys.exit.
            except (Exception, SystemExit) as error:
                if _is_out_of_memory(error):
                    raise
                reasons.append(_reason(error))
    # The error for the first number of channels, with tensor values: the others are guesses.
    raise RuntimeError(reasons[1])


def is_unsized(model: nn.Module) -> bool:
    """Whether `model` has uninitialised lazy layers."""
    return any(is_lazy(tensor) for tensor in itertools.chain(model.parameters(), model.buffers()))


def give_sizes(model: nn.Module, resolution: int) -> None:
    """Initialise the lazy layers of `model` in place for images (N, 3, `resolution`, `resolution`).

    Layers that the network creates in its first forward pass are created too. Raises `InputError` if it can't
    run on such images.
    """
    like = images_like(model)
    image = torch.zeros(1, 3, resolution, resolution, device=like.device, dtype=like.dtype)
    try:
        with torch.no_grad(), evaluating(model), uncompiled(), redirect_stdout(sys.stderr):
            model(image)
    except (Exception, SystemExit) as error:
        if _is_out_of_memory(error):
            raise
        raise InputError(
            f"the network can't run on images of {resolution} pixels, which would initialise its lazy"
            f" layers: {_reason(error)}"
        ) from None


def conv_site(name: str, conv: nn.Conv2d, pixels: int) -> Site:
    """The site of the convolution `conv`, called `name`, with `pixels` = H_out·W_out."""
    high, wide = conv.kernel_size
    return Site(name, conv.in_channels, conv.out_channels, (high, wide), conv.groups, pixels)


_Look = Callable[[nn.Module, int, int, bool, int], ForwardPass]


class _Looks:
    """Examines a network on images of several sizes in turn."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._channels: list[int] = []
        self.tried: dict[int, None] = {}
        """The sizes on which it couldn't run."""
        self.reason = ""
        """Why the first attempt failed, with tensor values if it was run with them."""
        self._has_numbers = False

    def first(self, look: _Look, sizes: Sequence[int]) -> ConvLayout | None:
        """The layout at the first of `sizes` on which it runs, trying 3 channels before others."""
        if not sizes:
            return None
        for channels, size in ((count, size) for count in self._likely(sizes) for size in sizes):
            try:
                return _layout(self._model, size, look(self._model, channels, size, False, 1))
            # Arbitrary code: it may even call sys.exit.
            except (Exception, SystemExit) as error:
                self.tried[size] = None
                is_first = look is _seen_with_numbers and not self._has_numbers
                if is_first or not self.reason:
                    self.reason, self._has_numbers = _reason(error), is_first
        return None

    def sought(self) -> ConvLayout | None:
        """The layout at a size inferred from how the network fails."""
        for channels in self._channels:
            size = sought_size(self._model, channels, RESOLUTIONS[0])
            if size is not None and (seen := self.first(_seen_without_numbers, [size])) is not None:
                return seen
        return None

    def _likely(self, sizes: Sequence[int]) -> Iterator[int]:
        yield 3
        # Last, since these take additional passes.
        self._channels = self._channels or likely_channels(self._model, sizes[0])
        yield from self._channels[1:]


def _channel_counts(channels: Sequence[int] | None, model: nn.Module, resolution: int) -> Iterator[int]:
    if channels is not None:
        yield from channels
        return
    yield 3
    yield from likely_channels(model, resolution)[1:]


def _seen_without_numbers(
    model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int
) -> ForwardPass:
    return _observed(without_numbers(model).eval(), channels, resolution, counts, batch_size)


def _seen_with_numbers(
    model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int
) -> ForwardPass:
    with evaluating(model):
        return _observed(model, channels, resolution, counts, batch_size)


def _is_out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


def _reason(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"SystemExit: {line}" if isinstance(error, SystemExit) else line or type(error).__name__


def _layout(model: nn.Module, resolution: int, seen: ForwardPass) -> ConvLayout:
    modules = {name: module for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)}
    names = [*seen.calls, *(name for name in modules if name not in seen.calls)]
    convs = tuple(_seen_conv(name, modules[name], seen, resolution) for name in names)
    return ConvLayout(resolution, convs, seen.channels)


def _seen_conv(name: str, module: nn.Module, seen: ForwardPass, resolution: int) -> SeenConv:
    calls = tuple(seen.calls.get(name, ()))
    height = calls[0].output[-2] if calls and len(calls[0].output) == 4 else resolution
    return SeenConv(name, module, calls, max(0, round(math.log2(resolution / height))))


def _observed(model: nn.Module, channels: int, resolution: int, counts: bool, batch_size: int) -> ForwardPass:
    calls: dict[str, list[Call]] = {}

    def note(
        name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        x = (*args, *kwargs.values())[0]
        calls.setdefault(name, []).append(Call(x.shape, output.shape))

    like = images_like(model)
    # Random images, since a network's control flow may depend on them.
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
        # Its prints must not go to our standard output.
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
    return ForwardPass(calls, products, channels, _names(model) != before)


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
