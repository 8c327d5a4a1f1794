"""The precision of products: autocast, and whether CUDA rounds float32 factors to TF32.

TF32 is read and set through either of torch's interfaces. Torch up to 2.8 has `allow_tf32`; later versions
also have `fp32_precision`, and reading `allow_tf32` raises where the two disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def is_cast(device: str) -> bool:
    """Whether autocast is on for `device`, which may have none, such as "meta"."""
    return (device in _CASTING or torch.amp.is_autocast_available(device)) and torch.is_autocast_enabled(
        device
    )


_CASTING = ("cpu", "cuda")
"""Devices known to have autocast: the check takes as long as a small operator."""


def convolutions_use_tf32() -> bool:
    """Whether cuDNN's float32 convolutions may use TF32, as they may by torch's default."""
    cudnn = torch.backends.cudnn
    setting: Any = getattr(cudnn, "conv", None)
    return bool(cudnn.allow_tf32) if setting is None else setting.fp32_precision == "tf32"


def products_use_tf32() -> bool:
    """Whether cuBLAS' float32 matrix products may use TF32."""
    matmul: Any = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if _has_new() else bool(matmul.allow_tf32)


@contextmanager
def tf32_set(allowed: bool) -> Iterator[None]:
    """Inside, TF32 is on or off for convolutions, recurrent layers and matrix products alike; then as before.

    Both interfaces agree inside, so that readers of either work.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = _State()
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        for place in _places():
            # A setting for all backends would override `allow_tf32`.
            place.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        before.put_back()


def _has_new() -> bool:
    try:
        return isinstance(torch.backends.cuda.matmul.fp32_precision, str)
    except AttributeError:
        return False


def _places() -> list[Any]:
    """The backends whose `fp32_precision` `allow_tf32` sets."""
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn] if _has_new() else []


class _State:
    """The state of every switch, in both interfaces, that setting `allow_tf32` may change."""

    def __init__(self) -> None:
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        self._new = [(place, place.fp32_precision) for place in _places()]
        self._products = _read(lambda: matmul.allow_tf32, not products_use_tf32())
        self._convolutions = _read(lambda: cudnn.allow_tf32, not convolutions_use_tf32())
        self._named = _read(torch.get_float32_matmul_precision, None)

    def put_back(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = self._products
        torch.backends.cudnn.allow_tf32 = self._convolutions
        if self._named == "medium":
            # `allow_tf32` sets it to "high". Its meaning for CPUs is unaffected here.
            torch.set_float32_matmul_precision("medium")
        for place, value in self._new:
            # A value inherited from a wider switch keeps following it.
            place.fp32_precision = "none"
            if place.fp32_precision != value:
                place.fp32_precision = value


def _read(get: Any, otherwise: Any) -> Any:
    """The result of `get`, or `otherwise` where the two interfaces disagree."""
    try:
        return get()
    except RuntimeError:
        return otherwise
