"""How well a run's latencies predict, in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Protocol

from wnexplore.results.columns import COLUMNS


class Foretold(Protocol):
    """A measured network as others foretell it."""

    @property
    def relative_error(self) -> float: ...


def fit_line(foretold: Sequence[Foretold], half_widths: Sequence[float]) -> str:
    """Of how many networks, how far off in the median and at worst, and how wide intervals are."""
    errors = [abs(network.relative_error) for network in foretold]
    return (
        f"{len(errors)} networks, each foretold by others to {100 * median(errors):.1f} % in the median and"
        f" {100 * max(errors):.1f} % at worst; 95 % intervals of ±{100 * median(half_widths):.1f} % (median)"
    )


def speed_line(fastest: float, slowest: float) -> str:
    """What a plain network's milliseconds in parts of the rounds tell of the machine; "" if they agree."""
    if not slowest > CHANGED * fastest:
        return ""
    return (
        f"the machine's speed changed: the plain network took {fastest:.3g} to {slowest:.3g} ms at different"
        " times, and ratios may differ between them; on a quiet machine intervals are narrower"
    )


CHANGED = 1.1
"""The slowest part's time over the fastest one's, from which on the machine's speed is said to change."""


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """A protocol of latencies in a line, without what is usual."""
    said = (name for name, value in protocol.items() if value not in (None, COLUMNS[name].usual))
    return " · ".join(COLUMNS[name].say(protocol[name]) for name in said)
