"""A distribution as text: a line of blocks, with minimum, median and maximum."""

from __future__ import annotations

from typing import Any

import numpy as np

from wnexplore.results.columns import COLUMNS

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"


def histogram(
    values: np.ndarray[Any, np.dtype[np.int64]], name: str, *, width: int, ascii: bool = False
) -> str:
    """A histogram of the counts `values` of the column called `name`, with `width` bins of equal size.

    Every non-empty bin is visible. The first line gives the minimum, the median and the maximum.
    """
    column = COLUMNS[name]
    low, middle, high = int(values.min()), int(np.median(values)), int(values.max())
    summary = (f"min {column.format(low)}", f"median {column.format(middle)}", f"max {column.format(high)}")
    if low == high:
        return f"{column.label}: {column.format(low)} in all"
    found, _ = np.histogram(values, bins=width)
    levels = np.ceil(found / found.max() * 8).astype(int)
    blocks = _ASCII_BLOCKS if ascii else _BLOCKS
    return f"{column.label}: {', '.join(summary)}\n|{''.join(blocks[level] for level in levels)}|"
