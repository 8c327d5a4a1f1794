"""The design point: one network to build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

from wnexplore.design.backbones import STEMS, backbone_spec
from wnexplore.design.methods import ACTIVATIONS, METHODS, Axis
from wnexplore.design.multiplier import Multiplier, parse_multiplier, plain_multiplier
from wnexplore.design.stages import Stages, parse_stages
from wnexplore.errors import InputError, unknown

_DEFAULTS: dict[Axis, Any] = {
    "M": Fraction(2),
    "G": Fraction(2),
    "experts": 4,
    "reduction": 16,
    "activation": "sigmoid",
}


@dataclass(frozen=True)
class DesignPoint:
    """One network: hashable, comparable, exact.

    Axes that the method doesn't read are None, so that equal networks are equal points. Build one
    with `DesignPoint.of`, which fills in defaults and checks every value.
    """

    backbone: str
    method: str
    M: Fraction | None
    G: Fraction | None
    stages: str | None
    """Those that get the method, "3+4"; None: all of them."""
    experts: int | None
    stem: str
    resolution: int
    num_classes: int
    reduction: int | None
    activation: str | None

    @classmethod
    def of(
        cls,
        backbone: str,
        method: str = "plain",
        M: Multiplier | None = None,
        G: Multiplier | None = None,
        *,
        stages: Stages | None = None,
        experts: int | None = None,
        stem: str = "imagenet",
        resolution: int | None = None,
        num_classes: int = 1000,
        reduction: int | None = None,
        activation: str | None = None,
    ) -> DesignPoint:
        """The point with these axes, those left out at their defaults (M = G = 2, as published).

        `resolution` is in pixels and defaults to what the stem is made for. Raises `InputError` for
        an unknown name, a value out of range, or an axis that the method doesn't read; whether
        (M, G) is legal in every layer is `wnexplore.design.legality.check_legal`'s to say.
        """
        backbone_spec(backbone)
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        given: dict[Axis, Any] = {
            "M": M if M is None else parse_multiplier(M, "M"),
            "G": G if G is None else parse_multiplier(G, "G"),
            "stages": stages if stages is None else parse_stages(stages, backbone),
            "experts": experts,
            "reduction": reduction,
            "activation": activation,
        }
        for axis, value in given.items():
            if axis not in METHODS[method]:
                if value is not None:
                    raise InputError(f"method '{method}' has no {axis}: leave {axis} out")
            elif value is None and axis in _DEFAULTS:
                given[axis] = _DEFAULTS[axis]
        if given["activation"] not in (None, *ACTIVATIONS):
            raise unknown("activation", activation, ACTIVATIONS)
        sizes = {"experts": given["experts"], "reduction": given["reduction"]}
        sizes |= {"resolution": resolution, "num_classes": num_classes}
        for name, size in sizes.items():
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise InputError(f"{name} is '{size}': expected a whole number of at least 1")
        return cls(
            backbone=backbone,
            method=method,
            stem=stem,
            resolution=STEMS[stem] if resolution is None else resolution,
            num_classes=num_classes,
            **given,
        )

    def baseline(self) -> DesignPoint:
        """The plain network of the same backbone, stem, resolution and classes."""
        return DesignPoint.of(
            self.backbone,
            stem=self.stem,
            resolution=self.resolution,
            num_classes=self.num_classes,
        )

    def to_dict(self) -> dict[str, str | int | None]:
        """The axes as plain values that JSON can hold; M and G exact: 2, or "1/48" if not whole."""
        return {k: plain_multiplier(v) if isinstance(v, Fraction) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, axes: Mapping[str, Any]) -> DesignPoint:
        """The point that `to_dict` described."""
        return cls.of(**axes)

    def __str__(self) -> str:
        axes = [self.backbone, self.method]
        axes += [f"{n}={v}" for n, v in self.to_dict().items() if n in ("M", "G", "stages", "experts") and v]
        return " ".join(axes)


AXES = tuple(field.name for field in fields(DesignPoint))
"""The names of a point's axes, in the order in which tables and exports show them."""
