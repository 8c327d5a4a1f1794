"""One thread for every test and every process that one starts: networks this small are slower on
several, many times so on a machine that does other things too."""

import gc
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine draws slowly, which says nothing of a test.
_SLOW = (HealthCheck.too_slow,)
settings.register_profile("everyday", max_examples=30, suppress_health_check=_SLOW)
settings.register_profile("thorough", max_examples=100, suppress_health_check=_SLOW)
# `tests.examples` counts from it; .ci/run asks for the other one (--hypothesis-profile thorough).
settings.load_profile("everyday")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker takes the tests of whole files, and of the other's when it is done: what the tests of a
    file share is made once."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture(scope="module", autouse=True)
def _settled_heap() -> None:
    """What the imports of a whole suite leave is no garbage: the collections that a measurement asks for
    don't look through it again and again."""
    gc.collect()
    gc.freeze()
