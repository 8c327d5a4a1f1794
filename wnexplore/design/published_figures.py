"""The published table: the figures of the authors and of the public port for each network."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from wnexplore.design.legality import IllegalPointError, check_legal
from wnexplore.design.point import DesignPoint
from wnexplore.design.shipped import published_table

GROUPS = (2, 1, 4)
"""The values of G tried for a multiplier, for which the table gives only M/G; the authors' first."""


@dataclass(frozen=True)
class PublishedRow:
    """One row of the table; figures are Decimals, which keep the printed digits."""

    source: str
    backbone: str
    method: str
    multiplier: int | None
    """M/G, printed as "1x", "4x", "8x"; None for the plain network."""
    params_m: Decimal
    """Parameters in millions."""
    flops_m: Decimal
    """Multiply-adds in millions."""
    top1_err: Decimal
    """Top-1 error on ImageNet in percent."""

    def candidates(self) -> Iterator[DesignPoint]:
        """The legal points that the row may describe, with G in `GROUPS`."""
        if self.multiplier is None:
            yield DesignPoint.of(self.backbone, self.method)
            return
        for G in GROUPS:
            point = DesignPoint.of(self.backbone, self.method, M=self.multiplier * G, G=G)
            try:
                check_legal(point)
            except IllegalPointError:
                continue
            yield point


@dataclass(frozen=True)
class PublishedComparison:
    """A published row and the counts of one point."""

    row: PublishedRow
    point: DesignPoint
    params: int
    flops: int

    @property
    def distance(self) -> float:
        """The summed relative distance of the counts from the range that rounds to the published figures."""
        return _beyond(self.params, self.row.params_m) + _beyond(self.flops, self.row.flops_m)

    @property
    def params_difference(self) -> float:
        """Counted over published parameters, less 1."""
        return self.params / float(self.row.params_m * 10**6) - 1

    @property
    def flops_difference(self) -> float:
        """Counted over published FLOPs, less 1."""
        return self.flops / float(self.row.flops_m * 10**6) - 1

    @property
    def params_agree(self) -> bool:
        """Whether the count, rounded to the digits printed, is the published figure."""
        return _rounded(self.params, self.row.params_m) == self.row.params_m

    @property
    def flops_agree(self) -> bool:
        """Whether the count, rounded to the digits printed, is the published figure."""
        return _rounded(self.flops, self.row.flops_m) == self.row.flops_m

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "source": self.row.source,
            "multiplier": self.row.multiplier,
            **self.point.to_dict(),
            "params": self.params,
            "published_params_m": float(self.row.params_m),
            "params_difference": self.params_difference,
            "params_agree": self.params_agree,
            "flops": self.flops,
            "published_flops_m": float(self.row.flops_m),
            "flops_difference": self.flops_difference,
            "flops_agree": self.flops_agree,
            "published_top1_err": float(self.row.top1_err),
        }


def published_rows() -> list[PublishedRow]:
    """The rows of the table that ships with wnexplore."""
    with published_table().open(newline="", encoding="utf-8") as file:
        return [
            PublishedRow(
                source=row["source"],
                backbone=row["backbone"],
                method=row["method"],
                multiplier=int(row["multiplier"]) if row["multiplier"] else None,
                params_m=Decimal(row["params_m"]),
                flops_m=Decimal(row["flops_m"]),
                top1_err=Decimal(row["top1_err"]),
            )
            for row in csv.DictReader(file)
        ]


def _beyond(count: int, published: Decimal) -> float:
    half = Decimal(1).scaleb(int(published.as_tuple().exponent)) / 2
    return float(max(Decimal(0), abs(Decimal(count) / 10**6 - published) - half) / published)


def _rounded(count: int, like: Decimal) -> Decimal:
    return (Decimal(count) / 10**6).quantize(like, rounding=ROUND_HALF_UP)
