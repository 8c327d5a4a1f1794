"""Published ImageNet accuracies of designs: the authors' table, and what the paper's figure shows besides."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from wnexplore.design.point import DesignPoint
from wnexplore.design.published_figures import GROUPS, published_rows
from wnexplore.design.shipped import published_figure

_AUTHORS = "authors' repository README"
"""The other source of the table trained the networks anew: its accuracies aren't in the authors' order."""

_READING, _PARTLY_HIDDEN = Decimal("0.1"), Decimal("0.3")
"""Largest error, in points, of a mark read off the figure."""


@dataclass(frozen=True)
class PublishedAccuracy:
    """The published top-1 of one design."""

    backbone: str
    method: str
    multiplier: int | None
    """M/G of weightnet; None for other methods."""
    experts: int | None
    """The experts of condconv; None for other methods."""
    top1: Decimal
    """In percent, on ImageNet."""
    error: Decimal
    """Its largest error in points: half of the last printed digit, or that of reading it off the figure."""
    source: str

    @property
    def variant(self) -> str:
        """The method's setting, as the paper writes it: "8x"; "" if it has none."""
        setting = self.multiplier or self.experts
        return "" if setting is None else f"{setting}x"

    def describes(self, point: DesignPoint) -> bool:
        """Whether `point` is this design, at any stem, resolution and number of classes.

        M/G alone is published, so G may be any of `published_figures.GROUPS`; the other axes are as
        published. (M, G) is not checked for legality.
        """
        if (point.backbone, point.method) != (self.backbone, self.method):
            return False
        pairs = [(None, None)] if self.multiplier is None else [(self.multiplier * G, G) for G in GROUPS]
        return any(
            point
            == DesignPoint.of(
                self.backbone,
                self.method,
                M=M,
                G=G,
                experts=self.experts,
                stem=point.stem,
                resolution=point.resolution,
                num_classes=point.num_classes,
            )
            for M, G in pairs
        )


@cache
def published_accuracies() -> tuple[PublishedAccuracy, ...]:
    """One per design: plain and weightnet from the authors' table, se, sk and condconv from the figure.

    CondConv's 2x and 4x are its experts: with as many, our counts are the published ones.
    """
    return (*_of_table(), *_of_figure())


def published_accuracy(point: DesignPoint) -> PublishedAccuracy | None:
    """The published accuracy of the design of `point`; None if there is none."""
    return next((found for found in published_accuracies() if found.describes(point)), None)


def _of_table() -> Iterator[PublishedAccuracy]:
    for row in published_rows():
        if row.source == _AUTHORS:
            half = Decimal(1).scaleb(int(row.top1_err.as_tuple().exponent)) / 2
            yield PublishedAccuracy(
                row.backbone, row.method, row.multiplier, None, 100 - row.top1_err, half, "table"
            )


def _of_figure() -> Iterator[PublishedAccuracy]:
    with published_figure().open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            method, _, experts = row["method"].partition("_")
            # The panel over parameters repeats the designs of the panel over FLOPs; the table is more exact.
            if row["panel"] == "flops" and method not in ("plain", "weightnet"):
                yield PublishedAccuracy(
                    row["backbone"],
                    method,
                    None,
                    int(experts.removesuffix("x")) if experts else None,
                    Decimal(row["top1"]),
                    _PARTLY_HIDDEN if row["partly_hidden"] == "yes" else _READING,
                    "figure",
                )
