"""In what precision products are computed: autocast, and whether CUDA rounds float32 factors to TF32.

TF32 is read and set through either of torch's interfaces. Torch up to 2.8 has `allow_tf32`; later ones have
`fp32_precision` too, and where both were used and disagree, reading `allow_tf32` raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def is_cast(device: str) -> bool:
    """Whether autocast is on for `device`, of any type: "meta" has none."""
    return (device in _CASTING or torch.amp.is_autocast_available(device)) and torch.is_autocast_enabled(
        device
    )


_CASTING = ("cpu", "cuda")
"""Devices known to have autocast: asking takes as long as a small operator."""


def convolutions_use_tf32() -> bool:
    """Whether cuDNN's float32 convolutions may use TF32; torch's own default."""
    cudnn = torch.backends.cudnn
    setting: Any = getattr(cudnn, "conv", None)
    return bool(cudnn.allow_tf32) if setting is None else setting.fp32_precision == "tf32"


def products_use_tf32() -> bool:
    """Whether cuBLAS' float32 matrix products may use TF32."""
    matmul: Any = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if _has_new() else bool(matmul.allow_tf32)


@contextmanager
def tf32_set(allowed: bool) -> Iterator[None]:
    """Convolutions, recurrent layers and matrix products all with or all without TF32; then as before.

    Both interfaces agree inside, so that whatever reads either works.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = _State()
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
        for place in _places():
            # What was set for all backends would win over `allow_tf32`.
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
    """What has a `fp32_precision` of its own that `allow_tf32` sets."""
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn] if _has_new() else []


class _State:
    """Every switch that setting `allow_tf32` may change, in both interfaces, as they were found."""

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
            # `allow_tf32` knows it as "high". It has a meaning for CPUs too, which nothing here has changed.
            torch.set_float32_matmul_precision("medium")
        for place, value in self._new:
            # What was inherited from a wider switch goes on following it.
            place.fp32_precision = "none"
            if place.fp32_precision != value:
                place.fp32_precision = value


def _read(get: Any, otherwise: Any) -> Any:
    """What `get` gives, or `otherwise` where the two interfaces disagree."""
    try:
        return get()
    except RuntimeError:
        return otherwise
