"""A copy of a network run once as evaluation and training run it, before anything relies on it."""

from __future__ import annotations

import io
import random
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wnexplore.models.copies import uncompiled, with_numbers, without_numbers
from wnexplore.models.recurrent import OneStep

SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
"""What a network may ask a convolution for: whatever stands in its place gives the same answer."""


@dataclass
class Trial:
    """What one run of a network showed."""

    output: Any = None
    steps: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """The operators that ran, in order, with those of their arguments that are no tensors."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often each of the modules ran that were looked at."""
    asked: dict[str, list[str]] = field(default_factory=dict)
    """Stand-in -> what the network asked of its convolution beside running it."""
    without_gradient: tuple[str, ...] = ()
    """Parameters that learn, but got no gradient."""
    printed: bool = False
    """Whether it wrote to standard output."""
    decided: bool = False
    """Whether its code asked for numbers, so that another network of its kind may do something else."""


def try_out(
    model: nn.Module,
    resolution: int,
    *,
    training: bool,
    backward: bool = True,
    stood_in: Collection[str] = (),
    channels: int = 3,
) -> Trial:
    """One run of a copy of `model` on two images of `resolution` pixels; the network is left as it was.

    In evaluation mode, or as a training step: forward and, with `backward`, the gradients of what it gives.
    The images have so many `channels`, and random numbers, the same ones each time. The copy has no numbers
    (meta tensors) unless the network's code asks for them. Convolutions named in `stood_in` are each put into
    another module, as a conversion puts something else in their place. What it prints goes to standard error.
    Raises `RuntimeError`, one line with the error's own name, if it can't run.
    """
    reason = ""
    for copied in (without_numbers, with_numbers):
        try:
            found = _run(copied(model), channels, resolution, training, backward, stood_in)
        # The networks are anybody's: they may raise anything, and even want to leave.
        except (Exception, SystemExit) as error:
            reason = told(error)
        else:
            found.decided = copied is with_numbers
            return found
    # With numbers: without, it may only say that there are none.
    raise RuntimeError(reason)


def told(error: BaseException) -> str:
    """An error in one line: its name, and the first line of what it says."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def tensors_of(output: Any) -> Iterator[Tensor]:
    """All tensors of what a network gives."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_of(value)


class StandIn(nn.Module):
    """A convolution inside another module: what it computes, of another class, and without a weight.

    It answers whatever else it is asked as the convolution does, and notes that it was asked.
    """

    def __init__(self, conv: nn.Conv2d, asked: list[str]) -> None:
        super().__init__()
        self._stands_for = conv
        self.bias = conv.bias
        take_settings(self, conv)
        # From here on, what is set is set by the network.
        self.__dict__["_asked"] = asked

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_asked" not in self.__dict__:
                raise
            answer = getattr(self._stands_for, name)
        self.__dict__["_asked"].append(name)
        return answer

    def __setattr__(self, name: str, value: Any) -> None:
        if "_asked" in self.__dict__ and name != "training":
            self.__dict__["_asked"].append(name)
            setattr(self._stands_for, name, value)
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._stands_for(x)
        return y


def take_settings(to: nn.Module, conv: nn.Module) -> None:
    """Give `to` the settings of `conv` that a network may ask for."""
    for name in SETTINGS:
        setattr(to, name, getattr(conv, name))


def _run(
    model: nn.Module,
    channels: int,
    resolution: int,
    training: bool,
    backward: bool,
    stood_in: Collection[str],
) -> Trial:
    model.train(training)
    found = Trial()
    for name in stood_in:
        parent, _, leaf = name.rpartition(".")
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        # Its runs are counted on the stand-in: who holds the convolution itself goes past it.
        made = StandIn(conv, found.asked.setdefault(name, [])).train(training)
        made.register_forward_hook(lambda *_, name=name: found.calls.update([name]))
        setattr(model.get_submodule(parent), leaf, made)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    # Where a network decides by what it sees, it is to see something.
    dice = None if like.is_meta else torch.Generator(like.device).manual_seed(0)
    shape = 2, channels, resolution, resolution
    images = torch.randn(shape, generator=dice, device=like.device, dtype=like.dtype)
    said = io.StringIO()
    with _undisturbed(), warnings.catch_warnings(), redirect_stdout(said):
        warnings.simplefilter("ignore")
        learns = nullcontext() if training and backward else torch.no_grad()
        with _Steps(found), OneStep(), uncompiled(), learns:
            found.output = model(images)
            if training and backward:
                found.without_gradient = _without_gradient(model, found.output)
    found.printed = bool(said.getvalue())
    sys.stderr.write(said.getvalue())
    found.asked = {name: asked for name, asked in found.asked.items() if asked}
    return found


def _without_gradient(model: nn.Module, output: Any) -> tuple[str, ...]:
    terms = [tensor.float().sum() for tensor in tensors_of(output) if tensor.requires_grad]
    if terms:
        torch.stack(terms).sum().backward()
    return tuple(name for name, p in model.named_parameters() if p.requires_grad and p.grad is None)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Random numbers from one seed in the meantime, and as if none had been drawn afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class _Steps(TorchDispatchMode):
    """Notes the operators that run."""

    supports_higher_order_operators = True

    def __init__(self, found: Trial) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        numbers = tuple(repr(arg) for arg in args if isinstance(arg, bool | int | float | str))
        self._found.steps.append((str(func), numbers))
        return func(*args, **(kwargs or {}))
