"""The design of one stage: a design point without its backbone, at that stage."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from wnexplore.design.axis_types import LayerAxes
from wnexplore.design.multiplier import OverChannels, at_layer


@dataclass(frozen=True)
class StageDesign(LayerAxes):
    """A method and the axes that it reads; the others are None."""

    method: str
    M: Fraction | OverChannels | None = None
    G: Fraction | OverChannels | None = None

    def pair(self, out_channels: int, *, depthwise: bool) -> tuple[Fraction, Fraction] | None:
        """The (M, G) of a convolution with `out_channels` filters; None if it has no generator.

        A depthwise one gets (M/G, 1), as in the published code, unless `self.depthwise` differs.
        """
        if self.M is None or self.G is None or (depthwise and self.depthwise == "plain"):
            return None
        M, G = at_layer(self.M, out_channels), at_layer(self.G, out_channels)
        return (M / G, Fraction(1)) if depthwise and self.depthwise == "published" else (M, G)


PLAIN = StageDesign("plain")
