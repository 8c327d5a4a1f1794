"""How many examples a property test tries: all of them in .ci/run, some of them every day."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings


def examples(count: int, **options: Any) -> settings:
    """Settings for `count` examples under the profile "thorough", and under another for as many percent of
    them as its own number says."""
    allowed = min(count, max(_FEWEST, count * settings().max_examples // 100))
    return settings(**({"deadline": None} | options), max_examples=allowed)


def rest_slow(values: Iterable[Any], *everyday: Any) -> list[Any]:
    """`values` to parametrize a test with, of which all but `everyday` are for the slow run."""
    return [
        value
        if value in everyday
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


_FEWEST = 8
