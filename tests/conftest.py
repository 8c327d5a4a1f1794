"""One thread for every test and every process that one starts: networks this small are slower on
several, many times so on a machine that does other things too."""

import gc
import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="module", autouse=True)
def _settled_heap() -> None:
    """What the imports of a whole suite leave is no garbage: the collections that a measurement asks for
    don't look through it again and again."""
    gc.collect()
    gc.freeze()
