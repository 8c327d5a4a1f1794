"""What an image meets on its way through a network of which nothing is known: its convolutions, in order."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wnexplore.errors import InputError

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


@dataclass(frozen=True)
class Pass:
    """What one image has met."""

    calls: dict[str, list[Call]]
    """Convolution -> its runs; in the order of their first ones."""
    flops: int
    """Multiply-adds of convolutions, linear layers and matrix products; 0 if they weren't counted."""


def layout(model: nn.Module, resolution: int | None = None) -> Layout:
    """Where the convolutions of `model` stand, for images of `resolution` pixels.

    Left out, it is the first of `RESOLUTIONS` on which the network can run: 224, unless it is made for
    one other size. The network is left as it was. Raises `InputError` if it can't run.
    """
    tried = RESOLUTIONS if resolution is None else (resolution,)
    reasons: list[str] = []
    for own in tried:
        try:
            seen = one_pass(model, own)
        except RuntimeError as error:
            reasons.append(str(error))
        else:
            return _layout(model, own, seen)
    others = f", nor of {', '.join(map(str, tried[1:]))}" if tried[1:] else ""
    raise InputError(f"the network can't run on images of {tried[0]} pixels{others}: {reasons[0]}")


def one_pass(model: nn.Module, resolution: int, *, counted: bool = False) -> Pass:
    """One image of `resolution` pixels through `model` in evaluation mode; the network is left as it was.

    Runs a copy without numbers (meta tensors), or where its code asks for numbers the network itself.
    The image has 3 channels, or as many as the first convolution reads if it can't be 3. Raises
    `RuntimeError`, one line, if the network can't run.
    """
    reason = ""
    for channels in dict.fromkeys((3, _first_channels(model))):
        # The networks are anybody's, and may raise anything.
        try:
            return _observed(without_numbers(model).eval(), channels, resolution, counted)
        except Exception:
            try:
                with _evaluating(model):
                    return _observed(model, channels, resolution, counted)
            except Exception as error:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
    raise RuntimeError(reason)


def _layout(model: nn.Module, resolution: int, seen: Pass) -> Layout:
    modules = {name: own for name, own in model.named_modules() if isinstance(own, CONVOLUTIONS)}
    names = [*seen.calls, *(name for name in modules if name not in seen.calls)]
    return Layout(resolution, tuple(_seen_conv(name, modules[name], seen, resolution) for name in names))


def _seen_conv(name: str, module: nn.Module, seen: Pass, resolution: int) -> SeenConv:
    calls = tuple(seen.calls.get(name, ()))
    height = calls[0].output[-2] if calls and len(calls[0].output) == 4 else resolution
    return SeenConv(name, module, calls, max(0, round(math.log2(resolution / height))))


def _observed(model: nn.Module, channels: int, resolution: int, counted: bool) -> Pass:
    calls: dict[str, list[Call]] = {}

    def note(
        name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        x = (*args, *kwargs.values())[0]
        calls.setdefault(name, []).append(Call(x.shape, output.shape))

    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, channels, resolution, resolution, device=like.device, dtype=like.dtype)
    hooks = [
        module.register_forward_hook(partial(note, name), with_kwargs=True)
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    counter = FlopCounterMode(display=False) if counted else None
    try:
        with torch.no_grad(), counter or nullcontext():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    # It counts a multiply-add as two.
    return Pass(calls, counter.get_total_flops() // 2 if counter else 0)


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


def _first_channels(model: nn.Module) -> int:
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
