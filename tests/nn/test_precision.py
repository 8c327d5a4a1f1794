"""TF32 by torch's older interface, its newer one, and both at odds, each setting in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wnexplore.design.protocol import TrainSpec
from wnexplore.measure.environment import environment
from wnexplore.nn.context import Context
from wnexplore.nn.precision import convolutions_use_tf32, products_use_tf32, tf32_set
from wnexplore.training.accuracy import evaluate
from wnexplore.training.determinism import reproducible
from wnexplore.training.training_record import training_protocol

ROOT = Path(__file__).parents[2]
has_new = pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has one interface")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@has_new
@needs_fork
def test_whatever_was_set_is_read_without_error_and_put_back() -> None:
    script = """
import itertools, os
import torch
from wnexplore.nn.precision import convolutions_use_tf32, products_use_tf32, tf32_set
from wnexplore.measure.torch_settings import precision_set
from wnexplore.nn.formulations import fused
backends = torch.backends
cudnn, matmul = backends.cudnn, backends.cuda.matmul
ACTS = [(place, "fp32_precision", value) for value in ("tf32", "ieee")
        for place in (backends, cudnn, cudnn.conv, cudnn.rnn, matmul)]
ACTS += [(place, "allow_tf32", value) for value in (True, False) for place in (cudnn, matmul)]
MEDIUM = (None, "", "medium")
def value_of(read):
    try:
        return read()
    except RuntimeError:
        return "at odds"
def state():
    places = (backends, cudnn, cudnn.conv, cudnn.rnn, matmul, backends.mkldnn.matmul, backends.mkldnn.conv)
    old = (lambda: matmul.allow_tf32, lambda: cudnn.allow_tf32, torch.get_float32_matmul_precision)
    return [place.fp32_precision for place in places], [value_of(read) for read in old]
at_odds = 0
pairs = list(itertools.permutations([*ACTS, MEDIUM], 2))
for acts in [(), *itertools.permutations([*ACTS, MEDIUM], 1), *pairs[::5]]:
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 3), acts
        at_odds += code == 3
        continue
    try:
        for place, name, value in acts:
            torch.set_float32_matmul_precision(value) if place is None else setattr(place, name, value)
        before = state()
        fused._options(torch.zeros(1), 1, 4)
        read = convolutions_use_tf32(), products_use_tf32()
        assert read == (cudnn.conv.fp32_precision == "tf32", matmul.fp32_precision == "tf32")
        for dtype, allowed in (("tf32", True), ("float32", False)):
            with precision_set(dtype):
                assert convolutions_use_tf32() == products_use_tf32() == allowed
                assert cudnn.rnn.fp32_precision == ("tf32" if allowed else "ieee")
                assert matmul.allow_tf32 == cudnn.allow_tf32 == allowed
                assert fused._options(torch.zeros(1), 1, 4)["PRECISION"] == ("tf32" if allowed else "ieee")
            assert state() == before, (state(), before)
        os._exit(3 if "at odds" in before[1] else 0)
    except BaseException as error:
        print(acts, repr(error), flush=True)
        os._exit(1)
assert at_odds > 10

# What follows a wider switch continues following it.
backends.fp32_precision = "tf32"
assert products_use_tf32()
with tf32_set(False):
    assert not products_use_tf32()
assert products_use_tf32()
backends.fp32_precision = "ieee"
assert not products_use_tf32()
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_environment_reports_the_precision() -> None:
    for allowed in (True, False):
        with tf32_set(allowed):
            found = environment("cpu")
            assert (found["matmul_tf32"], found["cudnn_tf32"]) == (allowed, allowed)


def test_a_training_and_a_test_compute_in_one_precision() -> None:
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((convolutions_use_tf32(), products_use_tf32()))
            return x.flatten(1)

    class Split:
        def batches(self, *_: object, **__: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
            return [(torch.rand(2, 3, 1, 1), torch.zeros(2, dtype=torch.int64))]

    with tf32_set(True):
        evaluate(Network(), Split(), 2, "cpu")  # type: ignore[arg-type]
        with reproducible(0, "cpu"):
            Network()(torch.rand(1, 3))
        assert convolutions_use_tf32()
    assert seen == [(False, False)] * 2


def test_the_protocol_of_a_training_says_it_where_there_is_a_choice() -> None:
    spec = TrainSpec(epochs=1)
    assert training_protocol(spec, "cuda", 1, 0)["precision"] == "float32"
    assert "precision" not in training_protocol(spec, "cpu", 1, 0)


@pytest.mark.parametrize("value", [100.0, -1000.0])
def test_a_context_of_many_pixels_is_finite_under_autocast(value: float) -> None:
    context = Context(16)
    x = torch.full((2, 16, 56, 56), value)
    with torch.autocast("cpu", torch.float16):
        assert context(x).isfinite().all()
