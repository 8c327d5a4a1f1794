"""The input sizes of a network: those that it states, and those inferred from how it fails."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.models.copies import images_like, uncompiled, without_numbers

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

LARGEST = 4096
"""Numbers above this aren't taken for an image's height, in pixels."""


def stated_sizes(model: nn.Module) -> list[int]:
    """The image heights that a network states in its configuration, its attributes or those of its modules.

    As timm (`pretrained_cfg`), torchvision (`image_size`), transformers (`config.image_size`) and others do.
    """
    near = [module for name, module in model.named_modules() if name.count(".") < _LEVELS]
    holders = [*(_of(model, name) for name in _CONFIGURATIONS), *near]
    heights = [_height(_of(holder, name)) for holder in holders for name in _SIZES]
    found = [fromkey for fromkey in dict.fromkeys(heights) if fromkey is not None]
    return found[:_MAX_STATED]


def likely_channels(model: nn.Module, resolution: int) -> list[int]:
    """The numbers of channels that images of `model` may have, likeliest first.

    3, and the two that let most of its modules run among 1 and the input channels of its convolutions.
    """
    read = [module.in_channels for module in model.modules() if isinstance(module, CONVOLUTIONS)]
    others = [fromkey for fromkey in dict.fromkeys((1, *read)) if fromkey != 3]
    if len(others) > _MAX_OTHERS:
        tried = _Tried(model)
        others.sort(key=lambda channels: -tried(channels, resolution).progress)
    return [3, *others[:_MAX_OTHERS]]


def sought_size(model: nn.Module, channels: int, start: int) -> int | None:
    """An image height on which `model` can run, which can't at `start` pixels; None if not found.

    Inferred from the sizes of its position embeddings, and from the number of features that the linear layer
    at which it fails gets and expects: those of a feature map grow with the square of the height.
    """
    tried = _Tried(model)
    first = tried(channels, start)
    for size in _of_positions(model, first, start):
        if tried(channels, size).ran:
            return size
    low, high, size, now = 0, LARGEST + 1, start, first
    for _ in range(_MAX_TRIES):
        if now.ran:
            return size
        if now.refused is None:
            # Too small for an earlier layer: an intermediate step.
            if size >= start:
                return None
            low, guess = size, 0
        else:
            wanted, got = now.refused
            low, high = (low, size) if got > wanted else (size, high)
            guess = round(size * math.sqrt(wanted / got))
        size = guess if low < guess < high else (low + high) // 2
        if not low < size < high:
            return None
        now = tried(channels, size)
    return None


_CONFIGURATIONS = ("pretrained_cfg", "default_cfg", "config", "cfg", "hparams")
_SIZES = (
    *("input_size", "image_size", "img_size", "input_resolution", "image_resolution", "resolution"),
    *("input_shape", "crop_size"),
)
_LEVELS = 2
"""How deep a network's modules are searched."""
_MAX_STATED = 8
_MAX_OTHERS = 2
_MAX_TRIES = 12


def _of(holder: Any, name: str) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name)
    # An arbitrary property may raise anything.
    with suppress(Exception):
        return getattr(holder, name, None)
    return None


def _height(value: Any) -> int | None:
    """Of a number, (channels, height, width) or {"height": ...}."""
    if isinstance(value, Mapping):
        value = value.get("height")
    if isinstance(value, list | tuple) and value:
        value = value[-1]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 1 <= value <= LARGEST else None


@dataclass
class _Attempt:
    """How far one trial run got."""

    ran: bool = False
    progress: int = 0
    """Modules that returned an output."""
    heights: list[int] = field(default_factory=list)
    """Heights of the feature maps and squares of tokens on the way, each once."""
    refused: tuple[int, int] | None = None
    """Features that the failing linear layer expects, and that it got."""


class _Tried:
    """Attempts on one copy on the meta device: guesses, which the caller confirms on the network."""

    def __init__(self, model: nn.Module) -> None:
        self._now = _Attempt()
        self._copy: nn.Module | None = None
        # No guesses about networks that can't be copied.
        with suppress(Exception):
            self._copy = without_numbers(model).eval()
            for module in self._copy.modules():
                module.register_forward_pre_hook(self._enter)
                module.register_forward_hook(self._leave)

    def __call__(self, channels: int, resolution: int) -> _Attempt:
        self._now = _Attempt()
        if self._copy is None:
            return self._now
        like = images_like(self._copy)
        images = torch.empty(1, channels, resolution, resolution, device="meta", dtype=like.dtype)
        # Anybody's code: it may even want to leave.
        with suppress(Exception, SystemExit), torch.no_grad(), uncompiled(), redirect_stdout(io.StringIO()):
            self._copy(images)
            self._now.ran = True
        return self._now

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Linear) and args and isinstance(args[0], Tensor) and args[0].dim():
            wanted, got = module.in_features, args[0].shape[-1]
            self._now.refused = None if wanted == got else (wanted, got)

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._now.progress += 1
        if not isinstance(output, Tensor) or output.dim() < 3:
            return
        height = math.isqrt(output.shape[-2]) if output.dim() == 3 else output.shape[-2]
        if height not in self._now.heights:
            self._now.heights.append(height)


def _of_positions(model: nn.Module, seen: _Attempt, start: int) -> Iterator[int]:
    """The sizes that would fit the position embeddings: their side times the stride of a feature map."""
    sides: dict[int, None] = {}
    for name, named_buffer in (*model.named_parameters(), *model.named_buffers()):
        if "pos" not in name.lower() or named_buffer.dim() < 2:
            continue
        tokens = named_buffer.shape[-2]
        if named_buffer.dim() == 4:
            sides[tokens] = None
        # One or two of them may be class or distillation tokens.
        sides.update(
            {math.isqrt(n): None for n in (tokens, tokens - 1, tokens - 2) if n > 0 and _is_square(n)}
        )
    for side in list(sides)[:_MAX_STATED]:
        for height in seen.heights:
            if height and 1 <= (size := round(side * start / height)) <= LARGEST:
                yield size


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
