"""ONNX: export a network, and run it in onnxruntime."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError, RunError
from wnexplore.files import check_writable, write_atomically
from wnexplore.models.copies import images_like, with_numbers

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

INPUT, OUTPUT = "images", "logits"
POINT = "wnexplore.design_point"
"""Metadata key of the design point, as JSON."""
TOLERANCE = 1e-4
"""Largest difference between two libraries' logits, relative to the largest logit, attributed to rounding."""
FACTOR = 10
"""Largest ratio of onnxruntime's difference to torch's own float32 difference, for numerically sensitive
networks: both round as often, in another order."""
MAX_DIFFERENCE = 0.1
"""A larger difference is never attributed to rounding."""
SMALLEST = 1e-3
"""Smaller logits are compared as if they were this large: all classes are then about equally likely."""


@dataclass(frozen=True)
class Check:
    """How far an .onnx file's logits in onnxruntime are from the exact ones.

    Those are torch's in float64, or in float32 where the network can't be computed in float64. Differences
    are relative to the largest of them, and where that is below `SMALLEST`, to `SMALLEST`.
    """

    opset: int
    difference: float
    """The largest."""
    torch_difference: float = 0.0
    """The largest of torch's logits in float32."""

    @property
    def is_rounding(self) -> bool:
        """Whether rounding explains the difference: it is small, or not much larger than torch's own."""
        return self.difference <= max(TOLERANCE, min(FACTOR * self.torch_difference, MAX_DIFFERENCE))


def export_onnx(
    network: nn.Module,
    path: Path,
    *,
    resolution: int,
    opset: int | None = None,
    point: DesignPoint | None = None,
) -> None:
    """Write `onnx_bytes` to the .onnx file `path`, atomically.

    Raises as it, and `InputError` if `path` can't be written.
    """
    require_onnx()
    check_writable(path)
    write_atomically(path, onnx_bytes(network, resolution=resolution, opset=opset, point=point))


def onnx_bytes(
    network: nn.Module, *, resolution: int, opset: int | None = None, point: DesignPoint | None = None
) -> bytes:
    """`network` in evaluation mode, in which it is left, as the contents of an .onnx file.

    Its input "images" is (batch, 3, resolution, resolution) in float32, its output "logits" (batch,
    classes), for any batch. `opset` defaults to torch's choice. `point` goes into the metadata.

    Raises `InputError` if onnx or onnxscript is not installed or `opset` isn't supported, `RunError` if the
    network can't be exported.
    """
    require_onnx()
    model = _model(network, resolution, opset)
    if opset is not None and _opset(model) != opset:
        raise InputError(f"opset is '{opset}': torch can export this network only in opset {_opset(model)}")
    if point is not None:
        model.metadata_props.add(key=POINT, value=json.dumps(point.to_dict()))
    try:
        data: bytes = model.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise RunError("this network is too large: an .onnx file holds at most 2 GiB") from error
    return data


def check_onnx(model: Path | bytes, network: nn.Module, *, resolution: int) -> Check:
    """Compare `model`, a file or its contents, in onnxruntime with `network`, from which it was exported.

    On random images with batch sizes 1 and 7, neither of which is the exporter's, on the CPU. Both are
    compared with `network` in float64; differences are NaN where logits are.
    """
    import onnx

    session = open_session(model, "cpu")
    exact = _in_float64(network.eval())
    found = torch.zeros(2, dtype=torch.float64)
    for batch in (1, 7):
        images = torch.randn(batch, 3, resolution, resolution)
        (logits,) = session.run(None, {INPUT: images.numpy()})
        with torch.inference_mode():
            in_torch = network(images)
            expected = exact(images, in_torch)
        apart = torch.stack(
            [(those - expected).abs().max() for those in (torch.from_numpy(logits), in_torch)]
        )
        # torch.maximum propagates NaN.
        found = torch.maximum(found, apart / expected.abs().max().clamp(min=SMALLEST))
    difference, torch_difference = found.tolist()
    proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    return Check(_opset(proto), difference, torch_difference)


def _in_float64(network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from images in float32 and their logits to the logits in float64, or to the given ones where
    the network can't run in float64.
    """
    try:
        # Not by `copy.deepcopy`, which refuses the weights of the old `weight_norm`.
        exact = with_numbers(network).double()
    except Exception:  # arbitrary code, parts of which may not be copyable
        return lambda images, fallback: fallback.double()

    def run(images: Tensor, fallback: Tensor) -> Tensor:
        try:
            found: Tensor = exact(images.double())
        except Exception:  # it may create tensors in float32
            return fallback.double()
        return found if found.dtype == torch.float64 and found.isfinite().all() else fallback.double()

    return run


def open_session(model: Path | bytes, device: str) -> InferenceSession:
    """`model`, a file or its contents, to run in onnxruntime on "cpu" or "cuda", with torch's threads.

    Raises `RunError` if it can't start on that device.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # Threads that keep spinning after a pass would slow the next measurement.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    wanted = _PROVIDERS[device]
    session = onnxruntime.InferenceSession(model, options, providers=[wanted])
    # A provider that doesn't start is silently replaced by the CPU's.
    if wanted[0] not in session.get_providers():
        raise RunError(
            f"onnxruntime has {wanted[0]}, but can't start it: does its CUDA version match torch's?"
        )
    return session


def require_onnx(device: str = "cpu") -> None:
    """Raise `InputError` if a network can't be exported, or if onnxruntime can't run it on `device`."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f'ONNX needs {", ".join(missing)}: pip install "wnexplore[onnx]"')
    if device == "cuda":
        import onnxruntime

        if _PROVIDERS[device][0] not in onnxruntime.get_available_providers():
            raise InputError(
                "this onnxruntime has no CUDAExecutionProvider, for a GPU: pip install onnxruntime-gpu in its"
                " place, or leave runtime 'onnxruntime' out"
            )


def _model(network: nn.Module, resolution: int, opset: int | None) -> ModelProto:
    device = images_like(network).device
    any_batch = ({0: torch.export.Dim("batch")},)
    network.eval()
    try:
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            # Two images: the exporter takes a size of one for constant.
            images = torch.zeros(2, 3, resolution, resolution, device=device)
            # Not by torch.onnx.export directly, which in older versions falls back to a fixed batch size.
            graph = torch.export.export(network, (images,), dynamic_shapes=any_batch, strict=False)
            program = torch.onnx.export(
                graph,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            for node in program.model.graph:
                # Source lines with paths of this machine.
                node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
            return _with_named_batch(program.model_proto)
    except Exception as error:  # of torch's compiler, of onnxscript, or out of memory
        raise RunError(f"torch can't export this network to ONNX: {_reason(error)}") from error


def _with_named_batch(model: ModelProto) -> ModelProto:
    graph = model.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", "batch", size.dim_param)
    return model


def _reason(error: BaseException) -> str:
    """The first line of an error's cause: the exporter's messages are pages long."""
    while error.__cause__ is not None:
        error = error.__cause__
    message = str(error).strip()
    return f"{type(error).__name__}: {message.splitlines()[0]}" if message else type(error).__name__


def _opset(model: ModelProto) -> int:
    return next(int(used.version) for used in model.opset_import if not used.domain)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the logs and warnings of torch and onnxscript during the export."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_PROVIDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    # onnxruntime uses TF32 by default.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
