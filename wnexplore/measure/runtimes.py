"""Runtimes, which execute a network. A new one is a small class and a line in `RUNTIMES`."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wnexplore.measure.memory import peak_memory
from wnexplore.models.onnx_export import INPUT, OUTPUT, onnx_bytes, open_session, require_onnx

Step = Callable[[], object]
"""One pass of a network over one batch: inference, or a training step."""


@dataclass(frozen=True)
class TimedPass:
    """One pass over one batch, ready to be run repeatedly."""

    run: Step
    step: Step | None
    """The same work, run such that its memory can be counted; None if that isn't possible."""
    held: Callable[[], list[Tensor]]
    """The tensors alive between two runs: weights, buffers, images, gradients and optimiser state."""
    prepared_s: float | None
    """Seconds of the runtime's preparation, the first pass included; None if there is none."""
    recorded_peak: int | None = None
    """Peak memory of the pass before it was recorded, as `peak_memory` counts it."""


class Runtime:
    """Eager: torch runs operator by operator."""

    prepares = False
    """Whether its preparation before the first pass is reported as a figure."""
    in_torch_memory = True
    """Whether it works, once prepared, in memory allocated by torch."""
    only: ClassVar[Mapping[str, str]] = {}
    """Axis of the latency protocol -> the only value that it supports."""

    def require(self, device: str) -> None:
        """Raise `InputError` if it can't run here on `device`."""

    def network(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """The callable that runs `network`."""
        return network

    def begin(self, step: Step) -> None:
        """Runs before `prepare`, and before the memory of a pass to be recorded is counted."""

    def recorded_peak(self, step: Step, held: Callable[[], list[Tensor]]) -> int | None:
        """Peak memory of a pass that `prepare` records, whose replay allocates nothing; None for other
        runtimes.
        """
        return None

    def prepare(self, step: Step) -> Step:
        """The prepared callable that replaces `step`."""
        return step


class Compile(Runtime):
    """torch.compile with one graph: a graph break is an error.

    Earlier compilations, in this process or another, are not reused: the time is that of a first start.
    """

    prepares = True

    def network(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """`network`, compiled for the shape of its first call."""

        def forward(images: Tensor) -> Tensor:
            output: Tensor = network(images)
            return output

        # Compiled code is cached by code object: if networks shared one, each call would try the others'
        # entries first, up to a limit on their number.
        copied = FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
        # Without fullgraph, a network that can't be compiled would silently be timed in eager mode.
        compiled: Callable[[Tensor], Tensor] = torch.compile(copied, fullgraph=True, dynamic=False)
        return compiled

    def prepare(self, step: Step) -> Step:
        """`step`, after its first run."""
        # Compiling imports modules that print to standard error where there is no CUDA.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        # Takes two seconds to import, and is needed only here.
        from torch._inductor import config

        with warnings.catch_warnings(), config.patch(force_disable_caches=True):
            warnings.filterwarnings("ignore", message=".*force_disable_caches")
            step()
        return step


class CudaGraph(Runtime):
    """The launches of one step recorded once and replayed, without time in Python or on the host."""

    prepares = True
    in_torch_memory = False

    def begin(self, step: Step) -> None:
        # Creates handles and workspaces, and allocates gradients, before anything is recorded.
        with _on(_side_stream(torch.cuda.current_device())):
            for _ in range(3):
                step()

    def recorded_peak(self, step: Step, held: Callable[[], list[Tensor]]) -> int | None:
        # Before the recording: afterwards gradients are in the graph's memory, and an eager step would
        # replace them.
        with _on(_side_stream(torch.cuda.current_device())):
            return peak_memory(step, "cuda", held())

    def prepare(self, step: Step) -> Step:
        """A replay of `step` as recorded now; its inputs and outputs keep their addresses."""
        side, graph = _side_stream(torch.cuda.current_device()), torch.cuda.CUDAGraph()
        # Outside too: a failed recording leaves its stream the current one.
        with _on(side), torch.cuda.graph(graph, stream=side):
            step()
        return graph.replay


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """The single stream on which networks are recorded: each stream keeps its cuBLAS workspace forever."""
    return torch.cuda.Stream(device)


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work inside goes to `stream`, after earlier work, and later work waits for it."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


class OnnxRuntime(Runtime):
    """onnxruntime on the network exported to ONNX; inference only."""

    prepares = True
    in_torch_memory = False
    only: ClassVar[Mapping[str, str]] = {
        "mode": "inference",
        "dtype": "float32",
        "memory_format": "contiguous",
    }

    def require(self, device: str) -> None:
        require_onnx(device)

    def network(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """`network`, exported for the images of its first call, and usable only with these."""
        run: Callable[[], Tensor] | None = None

        def forward(images: Tensor) -> Tensor:
            nonlocal run
            if run is None:
                run = _onnxruntime_pass(network, images)
            return run()

        return forward

    def prepare(self, step: Step) -> Step:
        """`step`, after its first run."""
        step()
        return step


RUNTIMES: dict[str, Runtime] = {
    "eager": Runtime(),
    "compile": Compile(),
    "cudagraph": CudaGraph(),
    "onnxruntime": OnnxRuntime(),
}


def make_pass(network: nn.Module, images: Tensor, mode: str, runtime: str) -> TimedPass:
    """A prepared pass of `network` over `images` (N, 3, H, W) in one of `RUNTIMES`.

    `mode` "inference": a forward pass, in evaluation and inference mode. "train": forward, cross-
    entropy, backward and an update by SGD with momentum, in training mode. The learning rate is 0: the same
    work, with constant weights. The network is left in that mode.
    """
    executor = RUNTIMES[runtime]
    make = _inference if mode == "inference" else _training
    step, held = make(network, executor.network(network), images)
    begun = time.perf_counter()
    executor.begin(step)
    counting = time.perf_counter()
    recorded_peak = executor.recorded_peak(step, held)
    begun += time.perf_counter() - counting
    run = executor.prepare(step)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    prepared_s = time.perf_counter() - begun if executor.prepares else None
    return TimedPass(run, step if executor.in_torch_memory else None, held, prepared_s, recorded_peak)


def _inference(
    network: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor
) -> tuple[Step, Callable[[], list[Tensor]]]:
    network.eval()

    @torch.inference_mode()
    def step() -> object:
        return call(images)

    return step, lambda: [*network.parameters(), *network.buffers(), images]


def _training(
    network: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor
) -> tuple[Step, Callable[[], list[Tensor]]]:
    network.train()
    weights = list(network.parameters())
    optimizer = torch.optim.SGD(weights, lr=0.0, momentum=0.9)
    with torch.no_grad():
        classes = network(images).shape[1]
    labels = torch.randint(classes, (images.shape[0],), device=images.device)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(call(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    def held() -> list[Tensor]:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
        return [*weights, *network.buffers(), images, labels, *gradients, *momenta]

    return step, held


def _onnxruntime_pass(network: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    """A pass over `images` in place, with logits written to the same buffer in each pass."""
    device = images.device
    session = open_session(onnx_bytes(network, resolution=images.shape[-1]), device.type)
    (output,) = session.get_outputs()
    logits = torch.empty(images.shape[0], output.shape[1], device=device)
    binding = session.io_binding()
    for bind, name, tensor in ((binding.bind_input, INPUT, images), (binding.bind_output, OUTPUT, logits)):
        bind(name, device.type, device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr())

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return logits

    return run
