"""How many examples a property test tries: all of them in .ci/run, some of them every day."""

from typing import Any

from hypothesis import settings


def examples(count: int, **options: Any) -> settings:
    """Settings for `count` examples under the profile "thorough", and for as many percent of them as another
    profile's own number says."""
    own = max(1, count * settings().max_examples // 100)
    return settings(**({"deadline": None} | options), max_examples=own)
