"""Runtimes: what executes a network. A new one is a small class and a line in `RUNTIMES`."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wnexplore.measure.memory import peak_memory
from wnexplore.models.onnx_export import INPUT, OUTPUT, export_onnx, open_session, require_onnx

Step = Callable[[], object]
"""One pass of a network over one batch: inference, or a training step."""


@dataclass(frozen=True)
class Pass:
    """One pass over one batch, ready to be run again and again."""

    run: Step
    step: Step | None
    """The same work, run in a way in which its memory can be counted; None if there is no such way now."""
    held: Callable[[], list[Tensor]]
    """The tensors alive between two runs: weights, buffers, images, and what training keeps."""
    prepared_s: float | None
    """Seconds that the runtime took to get ready, the first pass included; None if it had nothing to do."""
    recorded_peak: int | None = None
    """Peak memory of the pass as it ran before it was recorded, as `peak_memory` counts it."""


class Runtime:
    """Eager: torch runs operator by operator."""

    prepares = False
    """Whether it has work to do before the first pass that is worth a figure of its own."""
    in_torch_memory = True
    """Whether it works, once prepared, in memory that torch hands out, and knows of."""
    only: ClassVar[Mapping[str, str]] = {}
    """Axis of the latency protocol -> the one value that it can do."""

    def require(self, device: str) -> None:
        """Raise `InputError` if it can't run here on `device`."""

    def network(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """What to call in place of `network`."""
        return network

    def begin(self, step: Step) -> None:
        """What goes before `prepare`, and before the memory of a pass that is then recorded is counted."""

    def recorded_peak(self, step: Step, held: Callable[[], list[Tensor]]) -> int | None:
        """Peak memory of a pass that `prepare` records: its replay allocates nothing. None if it doesn't."""
        return None

    def prepare(self, step: Step) -> Step:
        """What to run in place of `step`, made ready."""
        return step


class Compile(Runtime):
    """torch.compile, one graph or nothing: a network that breaks into several is an error.

    What was compiled before, in this process or another, is not reused: the time is a first start's.
    """

    prepares = True

    def network(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """`network`, to be compiled for the shape that it is called with first."""

        def forward(images: Tensor) -> Tensor:
            output: Tensor = network(images)
            return output

        # What is compiled is kept by code object: of one that networks share, each call would try the
        # others' first, and there would be a limit to how many there may be.
        copied = FunctionType(forward.__code__.replace(), globals(), closure=forward.__closure__)
        # Without fullgraph, a network that can't be compiled would silently be timed in eager mode.
        compiled: Callable[[Tensor], Tensor] = torch.compile(copied, fullgraph=True, dynamic=False)
        return compiled

    def prepare(self, step: Step) -> Step:
        """`step`, after its first run."""
        # What compiling imports tells on standard error that there is no CUDA where there is none.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        # Two seconds to import, and needed here alone.
        from torch._inductor import config

        with warnings.catch_warnings(), config.patch(force_disable_caches=True):
            warnings.filterwarnings("ignore", message=".*force_disable_caches")
            step()
        return step


class CudaGraph(Runtime):
    """The launches of one step recorded once and replayed: no time of Python or of the host."""

    prepares = True
    in_torch_memory = False

    def begin(self, step: Step) -> None:
        # Handles and workspaces are made, and gradients allocated, before anything is recorded.
        with _on(_side_stream(torch.cuda.current_device())):
            for _ in range(3):
                step()

    def recorded_peak(self, step: Step, held: Callable[[], list[Tensor]]) -> int | None:
        # Before the recording: afterwards gradients lie in the graph's own memory, where a step that
        # runs by itself would replace them.
        with _on(_side_stream(torch.cuda.current_device())):
            return peak_memory(step, "cuda", held())

    def prepare(self, step: Step) -> Step:
        """A replay of `step` as it ran now; its inputs and outputs stay where they are."""
        side, graph = _side_stream(torch.cuda.current_device()), torch.cuda.CUDAGraph()
        # Outside too: a recording that fails leaves its stream the current one.
        with _on(side), torch.cuda.graph(graph, stream=side):
            step()
        return graph.replay


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """The one stream on which networks are recorded: each has a cuBLAS workspace of its own for good."""
    return torch.cuda.Stream(device)


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work inside goes to `stream`, after what was given before, and what comes after waits for it."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


class OnnxRuntime(Runtime):
    """onnxruntime runs the network, exported to ONNX: another library, which can't train."""

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
        """`network`, to be exported for the images that it is called with first, and for no others."""
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


def make_pass(network: nn.Module, images: Tensor, mode: str, runtime: str) -> Pass:
    """A pass of `network` over `images` (N, 3, H, W) by one of `RUNTIMES`, made ready.

    `mode` "inference": a forward pass, in evaluation and inference mode. "train": forward, cross-
    entropy, backward and an update by SGD with momentum, in training mode. The learning rate is 0:
    the same work, and weights that never drift to where it would be another. The network is left in
    that mode.
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
    return Pass(run, step if executor.in_torch_memory else None, held, prepared_s, recorded_peak)


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
    """A pass over `images` from where they are to logits that each pass writes to the same place."""
    device = images.device
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(network, path, resolution=images.shape[-1])
        session = open_session(path, device.type)
    (output,) = session.get_outputs()
    logits = torch.empty(images.shape[0], output.shape[1], device=device)
    binding = session.io_binding()
    for bind, name, tensor in ((binding.bind_input, INPUT, images), (binding.bind_output, OUTPUT, logits)):
        bind(name, device.type, device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr())

    def run() -> Tensor:
        session.run_with_iobinding(binding)
        return logits

    return run
