"""Peaks against arithmetic: which tensors are alive together is written down by hand."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.examples import examples
from wnexplore.measure.memory import peak_memory
from wnexplore.nn import WeightNetConv2d

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _state(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


def _inference_peak(net: Callable[[Tensor], Tensor], held: Iterable[Tensor], x: Tensor) -> int:
    @torch.inference_mode()
    def run() -> object:
        return net(x)

    peak = peak_memory(run, x.device.type, [*held, x])
    assert peak is not None
    return peak


def _chain(widths: list[int], device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths))).to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_chain_of_layers_keeps_its_weights_its_input_and_two_activations(device: str) -> None:
    widths = [300, 500, 700, 200]
    net = _chain(widths, device)
    weights = 4 * sum(a * b + b for a, b in pairwise(widths))
    x = torch.randn(64, 300, device=device)
    beyond = _inference_peak(net, _state(net), x) - (weights + 4 * 64 * (300 + 500 + 700))
    assert 0 <= beyond <= (0 if device == "cpu" else 2**26), "cuBLAS may take a workspace"


@pytest.mark.slow
@examples(15)
@given(
    widths=st.lists(st.integers(1, 300), min_size=2, max_size=6),
    batch=st.integers(1, 64),
)
def test_any_chain_of_layers(widths: list[int], batch: int) -> None:
    net = _chain(widths)
    weights = sum(a * b + b for a, b in pairwise(widths))
    # The first layer reads the input, which stays; each later one the activation of the one before.
    activations = [widths[1], *(a + b for a, b in pairwise(widths[1:]))]
    expected = 4 * (weights + batch * (widths[0] + max(activations)))
    assert _inference_peak(net, _state(net), torch.randn(batch, widths[0])) == expected


def test_views_cost_nothing() -> None:
    x = torch.randn(8, 3, 16, 16)
    assert _inference_peak(lambda x: x[:, 1:].flatten(2).transpose(1, 2)[::2, None], [], x) == _bytes(x)


def test_held_tensors_count_by_storage_and_once() -> None:
    storage = torch.zeros(1000)
    held = [storage, storage[:10], storage.view(10, 100).t(), torch.zeros(50, dtype=torch.bfloat16)]
    assert peak_memory(lambda: None, "cpu", held) == 4 * 1000 + 2 * 50


@pytest.mark.parametrize(("inplace", "activations"), [(True, 1), (False, 2)])
def test_relu_in_place_needs_no_second_activation(inplace: bool, activations: int) -> None:
    x = torch.randn(16, 100)
    net = nn.Sequential(nn.Linear(100, 100), nn.ReLU(inplace))
    assert _inference_peak(net, _state(net), x) == _bytes(*_state(net), x) + activations * _bytes(x)


def test_the_branch_of_a_residual_keeps_the_block_input_alive() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.narrow, self.wide = nn.Linear(90, 90), nn.Linear(90, 20), nn.Linear(20, 90)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            branch: Tensor = self.wide(self.narrow(x))
            # The narrow activation is gone; the sum is a third tensor of 90 features.
            return x + branch

    net, x = Residual(), torch.randn(32, 90)
    assert _inference_peak(net, _state(net), x) == _bytes(*_state(net), x) + 4 * 32 * (3 * 90)


def test_what_an_operator_makes_on_its_way_counts() -> None:
    # The product runs over what comes first in memory: `a` has to be copied into another order.
    a, b = torch.randn(30, 40, 50), torch.randn(30, 40, 60)
    copies = _bytes(a) + _bytes(b)
    peak = _inference_peak(lambda a: torch.einsum("nij,nik->jk", a, b), [b], a)
    result = 4 * 50 * 60
    assert _bytes(a, b) + result < peak <= _bytes(a, b) + result + copies


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_of_convolutions_in_every_layout(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    net = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3, padding=1, groups=4),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
    ).to(dtype=dtype)
    net = net.to(memory_format=memory_format).eval()
    x = torch.randn(4, 16, 24, 24, dtype=dtype).contiguous(memory_format=memory_format)
    held = _bytes(*_state(net), x)
    activation = x.element_size() * 4 * 32 * 24 * 24
    peak = _inference_peak(net, _state(net), x)
    # Two activations; and what a layer may make for itself: its input unfolded, 9 numbers for each.
    assert held + 2 * activation <= peak <= held + (2 + 9 + 1) * activation


def test_generated_kernels_are_alive_for_every_image_at_once() -> None:
    x = torch.randn(8, 32, 6, 6)
    for M, G in ((2, 2), (4, 1)):
        net = WeightNetConv2d(32, 32, 3, M=M, G=G, formulation="kernel").eval()
        kernels = 4 * 8 * 32 * 32 * 9
        output = _bytes(x)
        peak = _inference_peak(net, _state(net), x)
        held = _bytes(*_state(net), x)
        assert peak >= held + kernels + output
        # Reordered at most twice on their way: into the batch's order, and for the convolution.
        assert peak <= held + 3 * kernels + 8 * output


def _step(net: nn.Module, x: Tensor) -> tuple[Callable[[], object], Callable[[], list[Tensor]]]:
    """A training step, and what it leaves alive."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = net(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    def held() -> list[Tensor]:
        weights = list(net.parameters())
        gradients = [w.grad for w in weights if w.grad is not None]
        return [*weights, x, *gradients, *(optimizer.state[w]["momentum_buffer"] for w in weights)]

    return step, held


@pytest.mark.parametrize("device", DEVICES)
def test_training_step_at_its_worst_moment(device: str) -> None:
    widths, batch = [200, 400, 300, 100], 500
    net, x = _chain(widths, device), torch.randn(batch, widths[0], device=device)
    step, held = _step(net, x)
    step()
    weights = [a * b + b for a, b in pairwise(widths)]
    first, second, third = (batch * width for width in widths[1:])
    # Weights, momenta and images are there all the time; the old gradients are gone at the start. A
    # layer's backward is at its end when it has the gradients of its weights and of its input, and
    # still has those of its output and, as every layer before it, what it read.
    always = 2 * sum(weights) + batch * widths[0]
    moments = [
        first + second + third,  # the end of forward
        (first + second) + second + weights[2],  # the gradient of the sum is one number
        first + second + first + weights[1] + weights[2],
        first + sum(weights),  # the images need no gradient
    ]
    peak = peak_memory(step, device, held())
    assert peak is not None
    # The loss and its gradient are two numbers more, and cuBLAS has a workspace.
    least = 4 * (always + max(moments) + 2)
    assert 0 <= peak - least <= (0 if device == "cpu" else 2**26)


def test_gradients_that_a_step_drops_first_are_not_counted_twice() -> None:
    # Large weights and a batch of one: the gradients are nearly all that comes and goes.
    net, x = _chain([600, 600], "cpu"), torch.randn(1, 600)
    step, held = _step(net, x)
    step()
    alive = held()
    peak = peak_memory(step, "cpu", alive)
    assert peak is not None
    assert _bytes(*alive) <= peak < _bytes(*alive) + 10 * _bytes(x)


def test_garbage_of_the_first_run_does_not_hide_what_the_second_one_takes() -> None:
    class Cycle:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor, self.own = tensor, self

    x = torch.randn(1000)

    def run() -> object:
        gc.collect()
        Cycle(torch.empty(5000))
        return x.relu()

    assert peak_memory(run, "cpu", [x]) == 4 * (1000 + 5000 + 1000)


@pytest.mark.slow
def test_compiled_code_is_counted_as_it_runs() -> None:
    def sines(x: Tensor) -> Tensor:
        return x.sin().cos().sin().cos()

    x = torch.randn(64, 1000)
    assert _inference_peak(sines, [], x) == 3 * _bytes(x)
    compiled = torch.compile(sines, fullgraph=True, dynamic=False)
    assert _inference_peak(compiled, [], x) == 2 * _bytes(x), "fused: nothing between input and output"


@pytest.mark.slow
def test_nothing_is_said_on_standard_error() -> None:
    code = (
        "import torch; from wnexplore.measure.memory import peak_memory; x = torch.ones(10);"
        "print(peak_memory(lambda: x.relu(), 'cpu', [x]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("80\n", "")


class _Allocator:
    """CUDA's allocator by its statistics, on a machine without a GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, current: int) -> None:
        self.current = self.peak = current
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self._reset)
        monkeypatch.setattr(
            torch.cuda,
            "memory_stats",
            lambda: {"requested_bytes.all.current": self.current, "requested_bytes.all.peak": self.peak},
        )

    def _reset(self) -> None:
        self.peak = self.current

    def change(self, *amounts: int) -> None:
        for amount in amounts:
            self.current += amount
            self.peak = max(self.peak, self.current)


def _script(*runs: Callable[[], None]) -> Callable[[], None]:
    order: Iterator[Callable[[], None]] = iter(runs)
    return lambda: next(order)()


def test_on_cuda_the_weights_of_others_and_the_first_run_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = torch.zeros(250)
    allocator = _Allocator(monkeypatch, current=1000 + 10**9)
    run = _script(
        # A workspace of 5000 stays for good; gradients of 400 bytes are made.
        lambda: allocator.change(5000, 70_000, -70_000, 400),
        lambda: allocator.change(-400, 300, 400, -300),
    )
    assert peak_memory(run, "cuda", [held]) == 1000 + 300


def test_on_cuda_an_allocator_that_does_not_count_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _Allocator(monkeypatch, current=0)
    assert peak_memory(lambda: None, "cuda", [torch.zeros(250)]) is None


def test_the_replay_of_a_graph_has_no_peak() -> None:
    # Made without __init__, which asks for a GPU.
    graph = torch.cuda.CUDAGraph.__new__(torch.cuda.CUDAGraph)
    assert peak_memory(graph.replay, "cuda", []) is None


@needs_gpu
def test_on_a_gpu_other_networks_do_not_count() -> None:
    net = _chain([300, 500, 700], "cuda")
    x = torch.randn(64, 300, device="cuda")
    alone = _inference_peak(net, _state(net), x)
    others = _chain([1000, 1000], "cuda")
    assert _inference_peak(net, _state(net), x) == alone
    assert alone < _bytes(*others.parameters())
