"""Whether the images of a measurement fit in memory, judged by their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.design.size_limits import batch_misfit
from wnexplore.errors import InputError
from wnexplore.measure.environment import total_memory
from wnexplore.measure.torch_settings import DTYPES


def latency_misfit(point: DesignPoint, protocol: LatencyProtocol) -> str | None:
    """Why `point` can't be timed by `protocol` here; None if it may be."""
    return batch_misfit(
        protocol.batch_size,
        point.resolution,
        point=point,
        bytes_each=DTYPES[protocol.dtype].itemsize,
        there=total_memory(protocol.device),
    )


def split_misfit(
    point: DesignPoint, splits: Iterable[Sized], batch_size: int, device: str, resolution: int | None = None
) -> str | None:
    """Why the largest batch of `splits` doesn't fit for the network of `point`; None if it may.

    `batch_size` is the requested one on this device, `resolution` overrides that of `point`.
    """
    largest = max(min(batch_size, len(split)) for split in splits)
    # Both as resized and as normalised.
    return batch_misfit(
        largest, resolution or point.resolution, point=point, copies=2, there=total_memory(device)
    )


def check_fits_somewhere(reasons: Iterable[str | None]) -> None:
    """Raise `InputError` with the first of `reasons` unless there are none or one of them is None."""
    first: str | None = None
    for reason in reasons:
        if reason is None:
            return
        first = first or reason
    if first is not None:
        raise InputError(first)
