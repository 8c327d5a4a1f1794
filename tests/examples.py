"""How many examples a property test tries: all of them in .ci/run, some of them every day."""

from typing import Any

from hypothesis import settings


def examples(count: int, **options: Any) -> settings:
    """Settings for `count` examples under the profile "thorough", and under another for as many percent of
    them as its own number says."""
    allowed = min(count, max(_FEWEST, count * settings().max_examples // 100))
    return settings(**({"deadline": None} | options), max_examples=allowed)


_FEWEST = 15
