"""Checks that an external backbone returns logits (N, classes)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wnexplore.errors import InputError, shown
from wnexplore.models.copies import CopyError
from wnexplore.models.trial_run import Trial, error_line, try_out

_BATCH = 2
"""Images of a trial."""
_PASSES = 4
"""Forward passes of a trial in training; layers that change later are reported during the training."""


class Output(NamedTuple):
    """What a trial run shows of a network that returns logits."""

    has_more: bool = False
    """Whether training returns several heads, of which `main_logits` takes the main one."""
    prints: bool = False
    decides: bool = False
    """Whether its code reads tensor values, so that another instance may behave differently."""


def check_output(model: nn.Module, name: str, resolution: int) -> Output:
    """Run `model`, called `name`, on images of `resolution` pixels and check its output.

    Raises `InputError` unless it maps them to logits (N, classes) in evaluation.
    """
    found = _tried(model, name, resolution, training=False, backward=False)
    _check_logits(found.output, name, "")
    try:
        in_training = try_out(model, resolution, training=True, backward=False, seen=False)
    except RuntimeError:
        # `check_trainable` reports this before a training.
        return Output(prints=found.printed, decides=True)
    return Output(
        has_more=_logits(in_training.output) is not in_training.output,
        prints=found.printed or in_training.printed,
        decides=found.decided or in_training.decided,
    )


def check_trainable(model: nn.Module, name: str, resolution: int, classes: int) -> None:
    """Raise `InputError` unless `model` can be trained on `classes` classes.

    It must be in float32, return logits for that many classes in evaluation and in training, and keep the
    parameters that it has after its first pass, some of which must get gradients; and a checkpoint must be
    able to hold its state.
    """
    why = _why_untrainable(model)
    if why is not None:
        raise InputError(f"backbone '{shown(name)}' can't be trained: {why}")
    for training in (False, True):
        found = _tried(
            model,
            name,
            resolution,
            training=training,
            backward=True,
            passes=_PASSES if training else 1,
            dtype=torch.float32,
        )
        outputs = _check_logits(_logits(found.output), name, " in training" if training else "", found.output)
        if outputs != classes:
            raise InputError(
                f"backbone '{shown(name)}' gives {outputs} classes, and the data has {classes}: expected a"
                " network that gives as many (a function is called with num_classes if it takes that)"
            )
        if training and found.changed is not None:
            raise InputError(
                f"backbone '{shown(name)}' can't be trained: after its first pass in training it"
                f" {found.changed}: expected the same parameters from then on, as others would not be trained"
            )
        if training and len(found.without_gradient) == sum(p.requires_grad for p in model.parameters()):
            raise InputError(
                f"backbone '{shown(name)}' can't be trained: none of its parameters gets a gradient"
            )


def main_logits(module: nn.Module, images: object, output: Any) -> Any:
    """A forward hook that returns only the main head's logits of a network with auxiliary heads.

    Networks such as torchvision's googlenet and inception_v3 return a named tuple in training, its first
    field "logits". Auxiliary heads are then not trained: the deployed network is what is compared.
    """
    return _logits(output)


def quiet(model: nn.Module) -> None:
    """Redirect the prints of `model` while it runs to standard error."""
    held: list[Any] = []

    def begin(*_: object) -> None:
        held.append(sys.stdout)
        sys.stdout = sys.stderr

    def end(*_: object) -> None:
        if held:
            sys.stdout = held.pop()

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end, always_call=True)


def _logits(output: Any) -> Any:
    fields = getattr(type(output), "_fields", None)
    return output[0] if isinstance(output, tuple) and fields and fields[0] == "logits" else output


def _why_untrainable(model: nn.Module) -> str | None:
    """Why `model` can't be trained, as far as that shows without running it; None if nothing shows."""
    try:
        model.train()
        model.eval()
    except Exception as error:  # anybody's code
        return f"it can't change between training and evaluation: {shown(error_line(error), 300)}"
    for part, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = f"its {shown(part)}" if part else "it"
            return (
                f"{what} is a TorchScript module, of which checkpoints can't hold all: expected the"
                " torch.nn.Module that it was made of"
            )
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for path, tensor in named:
            if tensor.layout != torch.strided:
                layout = str(tensor.layout).removeprefix("torch.")
                return (
                    f"its {kind} {shown(path)} is a sparse tensor ({layout}), which checkpoints can't hold:"
                    " expected a dense one"
                )
    for path, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.complex64):
            dtype = str(parameter.dtype).removeprefix("torch.")
            return f"its {shown(path)} is in {dtype}, expected a network in float32"
    return None


def _tried(model: nn.Module, name: str, resolution: int, *, training: bool, **how: Any) -> Trial:
    try:
        return try_out(model, resolution, training=training, seen=False, **how)
    except CopyError as error:
        raise InputError(
            f"backbone '{shown(name)}' can't be copied, and it is tried on copies: {shown(error, 300)}"
        ) from None
    except RuntimeError as error:
        when = " in training" if training else ""
        raise InputError(
            f"backbone '{shown(name)}' can't run on images of {resolution} pixels{when}: {shown(error, 300)}"
        ) from None


def _check_logits(output: Any, name: str, when: str, reported: Any = None) -> int:
    """The number of classes."""
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[0] == _BATCH:
        return output.shape[1]
    raise InputError(
        f"backbone '{shown(name)}' gives {_spoken(output if reported is None else reported)}{when}: expected"
        " logits, one tensor (N, classes)"
    )


def _spoken(output: Any) -> str:
    if isinstance(output, Tensor):
        rest = ", ".join(map(str, output.shape[1:]))
        return f"a tensor (N, {rest})" if output.shape[:1] == (_BATCH,) else f"a tensor {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with {shown(', '.join(map(str, output)))}"
    if isinstance(output, list | tuple):
        fields = getattr(type(output), "_fields", None)
        of = f"with {', '.join(fields)}" if fields else f"of {len(output)}"
        return f"a {'named tuple' if fields else type(output).__name__} {of}"
    return f"a {type(output).__name__}"
