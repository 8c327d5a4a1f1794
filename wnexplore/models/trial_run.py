"""Trial runs: a copy of a network run once, as in evaluation or training, before anything relies on it."""

from __future__ import annotations

import io
import random
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from wnexplore.errors import shown
from wnexplore.models.copies import CopyError, images_like, uncompiled, with_numbers, without_numbers
from wnexplore.models.recurrent import OneStep

SETTINGS = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
"""Attributes of a convolution that a network may read: its replacement has the same values."""


@dataclass
class Trial:
    """The result of one trial run."""

    output: Any = None
    steps: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """The operators that ran, in order, with their non-tensor arguments."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often each observed module was called."""
    accessed: dict[str, list[str]] = field(default_factory=dict)
    """Stand-in -> the attributes of its convolution that the network accessed."""
    without_gradient: tuple[str, ...] = ()
    """Trainable parameters without a gradient."""
    changed: str | None = None
    """How further passes changed which parameters there are; None if they didn't."""
    printed: bool = False
    """Whether it printed to standard output."""
    decided: bool = False
    """Whether its code read tensor values, so that another instance may behave differently."""


def try_out(
    model: nn.Module,
    resolution: int,
    *,
    training: bool,
    backward: bool = True,
    stood_in: Collection[str] = (),
    channels: int = 3,
    passes: int = 1,
    dtype: torch.dtype | None = None,
    seen: bool = True,
) -> Trial:
    """Run a copy of `model` once on two images of `resolution` pixels; `model` is unchanged.

    In evaluation mode, or as a training step: forward and, with `backward`, the gradients of its output; with
    more `passes`, further forward passes. The images have `channels` channels, `dtype` (the network's if left
    out) and fixed random values. The copy is on the meta device unless the network's code reads tensor
    values. Convolutions named in `stood_in` are each wrapped in another module, as if a conversion had
    replaced them. Its prints go to standard error. Unless operators are to be `seen`, `Trial.steps` is empty,
    and what compiles itself and can't run otherwise, such as `torch.cond`, is compiled.

    Raises `RuntimeError` with one line that starts with the error's name if it can't run, `CopyError` if it
    can't be copied.
    """
    reasons: list[str] = []
    ways = [(without_numbers, seen, True), (with_numbers, seen, True), (with_numbers, False, False)]
    for copied, watched, as_written in ways[:2] if seen else ways:
        try:
            with uncompiled() if as_written else nullcontext():
                found = _run(
                    copied(model), channels, resolution, training, backward, stood_in, passes, dtype, watched
                )
        except CopyError:
            raise
        # Arbitrary code: it may raise anything, and even call sys.exit.
        except (Exception, SystemExit) as error:
            reasons.append(error_line(error))
        else:
            found.decided = copied is with_numbers
            return found
    # The error with tensor values: without, it may only say that there are none.
    raise RuntimeError(reasons[1])


def error_line(error: BaseException) -> str:
    """An error in one line: its name, and the first line of its message."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def changed_parameter(before: Mapping[str, nn.Parameter], model: nn.Module) -> str | None:
    """What `model` has done to its parameters since they were those `before`; None if they are the same.

    Lazy parameters count once they have a size.
    """
    if _parameter_ids(model) == set(map(id, before.values())):
        return None
    now = {name: parameter for name, parameter in model.named_parameters() if not is_lazy(parameter)}
    for name, parameter in now.items():
        if name not in before:
            return f"has made parameter '{shown(name)}'"
        if parameter is not before[name]:
            return f"has replaced parameter '{shown(name)}' by another"
    gone = next((name for name in before if name not in now), None)
    return None if gone is None else f"has removed parameter '{shown(gone)}'"


def tensors_of(output: Any) -> Iterator[Tensor]:
    """All tensors in a network's output."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from tensors_of(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from tensors_of(value)


class StandIn(nn.Module):
    """A wrapper around a convolution: the same output from another class, without a weight.

    Other attributes are forwarded to the convolution, and each access is recorded.
    """

    def __init__(self, conv: nn.Conv2d, accessed: list[str]) -> None:
        super().__init__()
        self._stands_for = conv
        self.bias = conv.bias
        take_settings(self, conv)
        # From here on, attributes are set by the network.
        self.__dict__["_accessed"] = accessed

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_accessed" not in self.__dict__:
                raise
            answer = getattr(self._stands_for, name)
        self.__dict__["_accessed"].append(name)
        return answer

    def __setattr__(self, name: str, value: Any) -> None:
        if "_accessed" in self.__dict__ and name != "training":
            self.__dict__["_accessed"].append(name)
            setattr(self._stands_for, name, value)
        super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._stands_for(x)
        return y


def take_settings(to: nn.Module, conv: nn.Module) -> None:
    """Copy the settings of `conv` that a network may read to `to`."""
    for name in SETTINGS:
        setattr(to, name, getattr(conv, name))


def _parameter_ids(model: nn.Module) -> set[int]:
    """As by `model.parameters()`, in a fifth of the time: a training asks in every step."""
    found, seen, left = set[int](), {model}, [model]
    while left:
        module = left.pop()
        for parameter in module._parameters.values():
            if parameter is not None:
                found.add(id(parameter))
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                left.append(child)
    return found


def _run(
    model: nn.Module,
    channels: int,
    resolution: int,
    training: bool,
    backward: bool,
    stood_in: Collection[str],
    passes: int,
    dtype: torch.dtype | None,
    seen: bool,
) -> Trial:
    model.train(training)
    found = Trial()
    for name in stood_in:
        parent, _, leaf = name.rpartition(".")
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        # Calls are counted on the stand-in: code that holds the convolution itself bypasses it.
        made = StandIn(conv, found.accessed.setdefault(name, [])).train(training)
        made.register_forward_hook(lambda *_, name=name: found.calls.update([name]))
        setattr(model.get_submodule(parent), leaf, made)
    like = images_like(model)
    # Random images, since a network's control flow may depend on them.
    dice = None if like.is_meta else torch.Generator(like.device).manual_seed(0)
    shape = 2, channels, resolution, resolution
    images = torch.randn(shape, generator=dice, device=like.device, dtype=dtype or like.dtype)
    said = io.StringIO()
    with _undisturbed(), warnings.catch_warnings(), redirect_stdout(said):
        warnings.simplefilter("ignore")
        learns = nullcontext() if training and backward else torch.no_grad()
        with _Steps(found) if seen else nullcontext(), OneStep(), learns:
            found.output = model(images)
            if training and backward:
                found.without_gradient = _without_gradient(model, found.output)
            parameters = dict(model.named_parameters())
            # An error in later passes is reported when it happens in training.
            with suppress(Exception, SystemExit):
                for _ in range(1, passes):
                    model(images)
            found.changed = changed_parameter(parameters, model)
    found.printed = bool(said.getvalue())
    sys.stderr.write(said.getvalue())
    found.accessed = {name: accessed for name, accessed in found.accessed.items() if accessed}
    return found


def _without_gradient(model: nn.Module, output: Any) -> tuple[str, ...]:
    terms = [tensor.float().sum() for tensor in tensors_of(output) if tensor.requires_grad]
    if terms:
        torch.stack(terms).sum().backward()
    return tuple(name for name, p in model.named_parameters() if p.requires_grad and p.grad is None)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Random numbers from a fixed seed inside; the generators' states are restored afterwards."""
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
    """Records the operators that run."""

    supports_higher_order_operators = True

    def __init__(self, found: Trial) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        numbers = tuple(repr(arg) for arg in args if isinstance(arg, bool | int | float | str))
        self._found.steps.append((str(func), numbers))
        return func(*args, **(kwargs or {}))
