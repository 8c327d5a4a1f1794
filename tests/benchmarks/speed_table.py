"""A table of tests.benchmarks.speed as Markdown: python -m tests.benchmarks.speed_table FILE.csv.

Latency ratios to the plain network with half the width of their 95 % interval, the published formulation
as the range over the same (M, G), then the largest ratio of each group and the geometric mean of ours to
the published formulation over cells that have both (of a family of backbones and lambda, of lambda, all),
with its floor: the same mean of the plain network to the published formulation, which ours would have if
generated kernels cost nothing. A cell that was measured again counts as last measured.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

_ADDED: dict[str, Any] = {"baseline": "trained", "stem": "imagenet", "resolution": 224}
"""Columns that older files don't have, and what they were measured with."""
_CELL = ["backbone", "mode", "batch_size", *_ADDED]
_NETWORK = ["M", "G", "formulation"]


def main() -> None:
    """Print the table of the file that is named."""
    table = read(Path(sys.argv[1]))
    print("\n".join(markdown(table)))
    print()
    print("\n".join(summary(table)))


def read(path: Path) -> pd.DataFrame:
    """The rows of a CSV file that have a ratio, those measured again once, with lambda as `terms`.

    By mode, backbone (as they come in the file) and batch size.
    """
    table = pd.read_csv(path)
    for name in [name for name in _ADDED if name not in table]:
        table[name] = _ADDED[name]
    backbones = list(table["backbone"].unique())
    table = table[table["latency_ratio"].notna()].drop_duplicates([*_CELL, *_NETWORK], keep="last")
    table = table.assign(terms=table["M"] / table["G"], rank=table["backbone"].map(backbones.index))
    return table.sort_values(["mode", "rank", "batch_size"], kind="stable").drop(columns="rank")


def markdown(table: pd.DataFrame) -> list[str]:
    """A row for each cell."""
    pairs = sorted({(int(M), int(G)) for M, G in table[["M", "G"]].dropna().to_numpy()})
    heads = ["", "batch", *(f"({M}, {G})" for M, G in pairs), "published", "CondConv"]
    lines = [f"| {' | '.join(heads)} |", f"| :--- |{' ---: |' * (len(heads) - 1)}"]
    for (backbone, mode, batch, *setting), cell in table.groupby(_CELL, sort=False):
        by_formulation = cell.set_index("formulation")
        ours = [
            _one(by_formulation[(by_formulation["M"] == M) & (by_formulation["G"] == G)], "auto")
            for M, G in pairs
        ]
        values = [
            f"{backbone}, {mode}{_setting(setting)}",
            str(batch),
            *ours,
            _range(by_formulation, "published"),
            _one(by_formulation, "timm"),
        ]
        lines.append(f"| {' | '.join(values)} |")
    return lines


def summary(table: pd.DataFrame) -> list[str]:
    """The largest of each group, and ours to published, by family of backbones and lambda."""
    lines = []
    table = table.assign(family=table["backbone"].str.split("_").str[0].str.rstrip("0123456789"))
    ours = table[table["formulation"] == "auto"]
    for keys, group in ours.groupby(["terms", "family", "mode", "batch_size", *_ADDED], sort=True):
        terms, family, mode, batch, *setting = keys
        lines.append(
            f"lambda {terms:.0f}, {family}, {mode}{_setting(setting)}, batch {batch}:"
            f" ours / plain at most {group['latency_ratio'].max():.3f}"
        )
    key = [*_CELL, "M", "G"]
    both = ours.merge(table[table["formulation"] == "published"], on=key, suffixes=("", "_published"))
    if len(both):
        parts = {
            f"lambda {terms:.0f}, {family}": group
            for (terms, family), group in both.groupby(["terms", "family"])
        }
        parts |= {f"lambda {terms:.0f}": group for terms, group in both.groupby("terms")}
        for name, group in (parts | {"all cells": both}).items():
            published = group["latency_ratio_published"]
            mean = _geometric_mean(group["latency_ratio"] / published)
            floor = _geometric_mean(1 / published)
            lines.append(f"{name}: ours / published, geometric mean {mean:.3f}, floor {floor:.3f}")
    return lines


def _setting(values: Sequence[object]) -> str:
    """What of a cell's `values` of the columns `_ADDED` is not as in older files."""
    words = ("{} baseline", "{} stem", "{} px")
    given = zip(words, values, _ADDED.values(), strict=True)
    return "".join(f", {word.format(value)}" for word, value, then in given if value != then)


def _geometric_mean(values: pd.Series[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _one(rows: pd.DataFrame, formulation: str) -> str:
    if formulation not in rows.index:
        return ""
    row = rows.loc[formulation]
    half = (row["latency_ratio_high"] - row["latency_ratio_low"]) / 2
    return f"{row['latency_ratio']:.2f} ± {half:.2f}"


def _range(rows: pd.DataFrame, formulation: str) -> str:
    if formulation not in rows.index:
        return ""
    ratios = rows.loc[[formulation], "latency_ratio"]
    return f"{ratios.min():.2f} to {ratios.max():.2f}"


if __name__ == "__main__":
    main()
