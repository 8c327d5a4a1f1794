"""The fused formulation, against sums in float64: on the GPU, or in Triton's interpreter without one."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from wnexplore.errors import InputError
from wnexplore.nn.formulations import fused
from wnexplore.nn.formulations.fused import fused_conv1x1, is_available
from wnexplore.nn.precision import tf32_set

ROOT = Path(__file__).parents[2]
DEVICE = "cuda" if torch.cuda.is_available() and not fused._INTERPRETED else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}

runs_kernels = pytest.mark.skipif(
    not is_available(), reason="no GPU, no TRITON_INTERPRET=1: test_in_the_interpreter runs these"
)
on_a_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA GPU")
not_interpreted = pytest.mark.skipif(
    is_available() and DEVICE == "cpu", reason="already in Triton's interpreter"
)


@pytest.fixture(autouse=True)
def float32_is_float32() -> Iterator[None]:
    """Torch's own default is TF32 in convolutions."""
    with tf32_set(False):
        yield


class Case(NamedTuple):
    batch: int
    in_channels: int
    out_channels: int
    size: tuple[int, int]
    groups: int
    terms: int
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    programs: int = 128
    """How many are to keep the device busy: decides the tiles, and the images that a program has."""


def _grid() -> list[Case]:
    """Every lambda with every kind of group; sizes that no tile divides, of one tile and of more."""
    out_channels = 18
    groups = (1, out_channels // 2, out_channels, 2 * out_channels)
    dtypes = (torch.float32, torch.float32, torch.bfloat16, torch.float16)
    cases = []
    for number, (p, terms) in enumerate((p, terms) for p in groups for terms in (1, 3, 4)):
        batch, size = (1, (7, 11)) if number % 2 else (3, (5, 7))
        dtype = dtypes[(number + number // 4) % 4]
        channels_last, programs = number // 2 % 2 == 1, 128 if number % 3 == 0 else 1
        cases.append(Case(batch, 26, out_channels, size, p, terms, dtype, channels_last, programs))
    return cases


def _drawn() -> list[Case]:
    """Any divisor of C_out·F is a number of groups, those that cut filters anywhere too."""
    draw = random.Random(0)
    cases = []
    for _ in range(5):
        in_channels, out_channels = draw.randint(1, 12), draw.randint(1, 10)
        divisors = [
            p for p in range(1, in_channels * out_channels + 1) if in_channels * out_channels % p == 0
        ]
        cases.append(
            Case(
                draw.randint(1, 3),
                in_channels,
                out_channels,
                (draw.randint(1, 6), draw.randint(1, 6)),
                draw.choice(divisors),
                draw.randint(1, 5),
                draw.choice(list(TOLERANCE)),
                draw.random() < 0.5,
                draw.choice([1, 128]),
            )
        )
    return cases


CASES = [
    *_grid(),
    *_drawn(),
    Case(1, 70, 66, (9, 8), 132, 2, programs=1),
    Case(2, 5, 3, (17, 17), 3, 1, programs=1),
    Case(5, 26, 18, (3, 4), 36, 2, programs=2),  # two images a program, and one left
    Case(2, 20, 6, (3, 3), 6, 11),  # more terms than a program takes the gradients of
    Case(0, 6, 4, (3, 3), 4, 2),
    Case(1, 1, 1, (1, 1), 1, 1),
]


@runs_kernels
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_output_and_gradients(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_PROGRAMS", case.programs)
    check(*tensors(case), case.groups)


def tensors(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.in_channels, *case.size).to(DEVICE, case.dtype)
    if case.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    alpha = torch.randn(case.batch, case.groups * case.terms).to(x)
    return x, alpha, torch.randn(case.out_channels * case.in_channels, case.terms).to(x)


def leaves(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    x, alpha, weight = tensors(case)
    return x.requires_grad_(), alpha.requires_grad_(), weight.requires_grad_()


def in_float64(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, alpha, weight = (tensor.detach().cpu().double().requires_grad_() for tensor in inputs)
    return x, alpha, weight


def check(x: Tensor, alpha: Tensor, weight: Tensor, groups: int, run: Any = fused_conv1x1) -> None:
    """The output and the gradients of one run are those of the sums, in the dtype of each tensor."""
    inputs = x.detach().requires_grad_(), alpha.detach().requires_grad_(), weight.detach().requires_grad_()
    y = run(*inputs, groups)
    grad = torch.randn(y.shape).to(y)
    found = [y, *torch.autograd.grad(y, inputs, grad)]

    exact = in_float64(inputs)
    y = oracle(*exact, groups)
    expected = [y, *torch.autograd.grad(y, exact, grad.cpu().double())]
    for name, actual, true, like in zip(
        ("y", "x", "alpha", "weight"), found, expected, (x, *inputs), strict=True
    ):
        assert actual.dtype == like.dtype
        assert actual.shape == true.shape
        assert largest_error(actual, true) < max(TOLERANCE[x.dtype], TOLERANCE[actual.dtype]), name
    if x.is_contiguous():
        assert found[0].is_contiguous()
    elif x.stride(1) == 1:
        assert found[0].is_contiguous(memory_format=torch.channels_last)


def oracle(x: Tensor, alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    """design.md, section 2: a kernel an image, number by number."""
    rows, terms = weight.shape
    p = torch.arange(rows) // (rows // groups)
    kernels = (weight * alpha.view(-1, groups, terms)[:, p]).sum(2)
    kernels = kernels.view(x.shape[0], rows // x.shape[1], x.shape[1])
    return torch.einsum("nof,nfhw->nohw", kernels, x)


def largest_error(value: Tensor, expected: Tensor) -> float:
    """Of any number, in units of the largest one."""
    if expected.numel() == 0:
        return 0.0
    error = (value.detach().cpu().double() - expected.detach()).abs().max()
    return float(error / expected.detach().abs().max().clamp_min(1e-300))


@runs_kernels
@pytest.mark.parametrize("channels_last", [False, True])
def test_views_of_images(channels_last: bool) -> None:
    x, alpha, weight = tensors(Case(2, 12, 6, (6, 8), 6, 1, channels_last=channels_last))
    check(x[:, :, ::2, ::2], alpha, weight, 6)
    check(x[:, :, :, :5], alpha, weight, 6)
    check(x[:, 3:9], alpha, weight[:36], 6)
    check(x[:, :, :1, :1].expand(-1, -1, 3, 4), alpha, weight, 6)


@runs_kernels
def test_views_of_the_generator_and_mixed_dtypes() -> None:
    x, alpha, weight = tensors(Case(2, 12, 6, (3, 4), 6, 3))
    check(x, torch.cat([alpha, alpha], 1)[:, 5:23], weight, 6)
    check(x, alpha, weight.t().contiguous().t(), 6)
    check(x.bfloat16(), alpha, weight, 6)
    check(x.half(), alpha.bfloat16(), weight, 6)
    check(x, alpha.half(), weight.half(), 6)


@runs_kernels
def test_a_gradient_of_any_strides() -> None:
    inputs = leaves(Case(2, 12, 6, (3, 4), 6, 3))
    exact = in_float64(inputs)
    expected = torch.autograd.grad(oracle(*exact, 6).sum(), exact)
    found = torch.autograd.grad(fused_conv1x1(*inputs, 6).sum(), inputs)
    for actual, true in zip(found, expected, strict=True):
        assert largest_error(actual, true) < 1e-5


@runs_kernels
@pytest.mark.parametrize("needed", range(3))
def test_only_one_gradient_is_requested(needed: int) -> None:
    inputs = tensors(Case(2, 6, 4, (3, 3), 4, 2))
    inputs[needed].requires_grad_()
    fused_conv1x1(*inputs, 4).sum().backward()
    assert [tensor.grad is not None for tensor in inputs] == [number == needed for number in range(3)]


@on_a_gpu
def test_runs_are_equal() -> None:
    inputs = leaves(Case(32, 116, 116, (14, 14), 232, 3))
    runs = [torch.autograd.grad(fused_conv1x1(*inputs, 232).square().sum(), inputs) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


@runs_kernels
def test_autocast_casts_the_images_alone() -> None:
    inputs = leaves(Case(2, 6, 4, (3, 3), 4, 2))
    with torch.autocast(DEVICE, torch.bfloat16):
        y = fused_conv1x1(*inputs, 4)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    x, alpha, weight = (tensor.cpu().double() for tensor in inputs)
    assert largest_error(y, oracle(x, alpha, weight, 4)) < 2e-2
    assert all(tensor.grad is not None and tensor.grad.dtype == torch.float32 for tensor in inputs)


@runs_kernels
def test_compiles_into_one_graph_with_any_batch() -> None:
    torch.compiler.reset()
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    compiled = torch.compile(_scaled, fullgraph=True, dynamic=True, backend=backend)
    check(*tensors(Case(2, 6, 5, (3, 3), 5, 3, channels_last=True)), 5, compiled)
    with torch.compiler.set_stance("fail_on_recompile"):
        check(*tensors(Case(4, 6, 5, (3, 3), 5, 3, channels_last=True)), 5, compiled)


def _scaled(x: Tensor, alpha: Tensor, weight: Tensor, groups: int) -> Tensor:
    return fused_conv1x1(x * 2, alpha, weight * 0.5, groups)


@runs_kernels
def test_what_torch_asks_of_an_operator() -> None:
    x, alpha, weight = leaves(Case(2, 12, 6, (3, 4), 6, 2))
    columns, grad = x.detach().flatten(2), torch.randn(2, 6, 12, device=DEVICE)
    ops, shapes = torch.ops.wnexplore, ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.fused_conv1x1, (x.flatten(2), alpha, weight, 6, True))
    alpha, weight = alpha.detach(), weight.detach()
    torch.library.opcheck(
        ops.fused_conv1x1_input_gradient, (grad, alpha, weight, 12, 6, True), test_utils=shapes
    )
    torch.library.opcheck(
        ops.fused_conv1x1_generator_gradients, (grad, columns, alpha, weight, 6), test_utils=shapes
    )


@on_a_gpu
def test_a_cuda_graph_repeats_it() -> None:
    inputs = leaves(Case(4, 64, 48, (14, 14), 96, 2))

    def step() -> tuple[Tensor, ...]:
        y = fused_conv1x1(*inputs, 96)
        return (y, *torch.autograd.grad(y, inputs, torch.ones_like(y)))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected = step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    for actual, true in zip(found, expected, strict=True):
        assert torch.equal(actual, true)


@on_a_gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_layers_of_real_size(dtype: torch.dtype) -> None:
    check(*tensors(Case(16, 232, 232, (14, 14), 464, 2, dtype)), 464)
    check(*tensors(Case(16, 464, 464, (7, 7), 1, 8, dtype, channels_last=True)), 1)
    check(*tensors(Case(8, 64, 64, (56, 56), 64, 1, dtype)), 64)


@on_a_gpu
def test_tf32_where_it_is_allowed() -> None:
    x, alpha, weight = tensors(Case(2, 256, 64, (14, 14), 64, 2))
    with tf32_set(False):
        exact = fused_conv1x1(x, alpha, weight, 64)
    with tf32_set(True):
        error = largest_error(fused_conv1x1(x, alpha, weight, 64), exact.cpu().double())
    assert 1e-6 < error < 1e-2


@not_interpreted
def test_kernels_compile_for_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = pytest.importorskip("triton.compiler")
    targets = pytest.importorskip("triton.backends.compiler")
    launches: list[Launch] = []
    for name in ("_product_kernel", "_input_gradient_kernel", "_generator_gradients_kernel"):
        monkeypatch.setattr(fused, name, Recorded(getattr(fused, name), launches))
    monkeypatch.setattr(fused, "_check", lambda *_: None)
    case = Case(2, 64, 48, (7, 7), 48, 3, torch.bfloat16)
    x, alpha, weight = (tensor.cpu() for tensor in leaves(case))
    fused_conv1x1(x, alpha, weight, 48).sum().backward()

    assert len(launches) == 3
    for kernel, arguments, options in launches:
        signature = {name: _type(value) for name, value in zip(kernel.arg_names, arguments, strict=False)}
        compiled_with = {name: options.pop(name) for name in ("num_warps", "num_stages")}
        signature |= dict.fromkeys(options, "constexpr")
        source = compiler.ASTSource(kernel, signature, options)
        made = compiler.compile(source, targets.GPUTarget("cuda", 80, 32), compiled_with)
        assert made.metadata.shared < 96 * 1024
        assert "mma.sync" in made.asm["ptx"]


MOST_REGISTERS, MOST_SPILLED = 255, 512
"""A thread's, and bytes that it writes for want of more: what a GPU has, and twice what was found."""


@pytest.mark.slow
@not_interpreted
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registers_suffice_where_it_is_chosen(
    capability: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = pytest.importorskip("triton.compiler")
    targets = pytest.importorskip("triton.backends.compiler")
    ptxas = Path(compiler.__file__).parents[1] / "backends/nvidia/bin/ptxas"
    if not ptxas.exists():
        pytest.skip("this Triton brings no ptxas")
    launches: list[Launch] = []
    for name in ("_product_kernel", "_input_gradient_kernel", "_generator_gradients_kernel"):
        monkeypatch.setattr(fused, name, Recorded(getattr(fused, name), launches))
    monkeypatch.setattr(fused, "_check", lambda *_: None)
    for terms, channels in ((1, 64), (2, 64), (fused.MAX_TERMS, 64), (4, fused.MIN_SLICE)):
        x, alpha, weight = (
            tensor.cpu() for tensor in leaves(Case(2, channels, 48, (14, 14), 48, terms, dtype))
        )
        fused_conv1x1(x, alpha, weight, 48).sum().backward()
    assert len(launches) == 12
    for kernel, arguments, options in launches:
        signature = {name: _type(value) for name, value in zip(kernel.arg_names, arguments, strict=False)}
        compiled_with = {name: options.pop(name) for name in ("num_warps", "num_stages")}
        signature |= dict.fromkeys(options, "constexpr")
        source = compiler.ASTSource(kernel, signature, options)
        made = compiler.compile(source, targets.GPUTarget("cuda", capability, 32), compiled_with)
        file = tmp_path / "kernel.ptx"
        file.write_text(made.asm["ptx"])
        name = f"--gpu-name=sm_{capability}{'a' if capability >= 90 else ''}"
        command = [str(ptxas), "-v", name, str(file), "-o", str(tmp_path / "kernel.cubin")]
        message = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers, spilled = (
            int(found)
            for found in re.findall(r"(?:Used |stack frame, )(\d+) (?:registers|bytes spill)", message)[::-1]
        )
        assert registers <= MOST_REGISTERS
        assert spilled <= MOST_SPILLED, (kernel, options)


Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Recorded(NamedTuple):
    """In place of a kernel: launching it is written down."""

    kernel: Any
    launches: list[Launch]

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: self.launches.append((self.kernel, arguments, options))


def _type(value: Any) -> str:
    names = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
    return names[value.dtype] if isinstance(value, Tensor) else "i32"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(2, 6, 3, 3, dtype=torch.float64)}, r"\bx\b.*float64.*float32"),
        ({"weight": torch.zeros(24, 2, dtype=torch.int32)}, r"\bweight\b.*int32.*float32"),
        ({"alpha": torch.zeros(2, 8, device="meta")}, r"\balpha\b.*meta.*\bx\b.*cpu"),
        ({"x": torch.zeros(2, 6, 3)}, r"\bx\b.*\(2, 6, 3\).*\(N, C_in, H, W\)"),
        ({"weight": torch.zeros(25, 2)}, r"\bweight\b.*\(25, 2\).*\(6·C_out, lambda\)"),
        ({"groups": 5}, r"\(6·C_out, lambda\).*\b5\b"),
        ({"weight": torch.zeros(24)}, r"\bweight\b.*\(24,\)"),
        ({"alpha": torch.zeros(2, 7)}, r"\balpha\b.*\(2, 7\).*\(2, 8\)"),
        ({"alpha": torch.zeros(1, 8)}, r"\balpha\b.*\(1, 8\).*\(2, 8\)"),
        ({"x": torch.zeros(1).expand(2, 6, 2**15, 2**14)}, r"2\*\*31"),
    ],
)
def test_wrong_inputs_are_refused(changes: dict[str, Any], message: str) -> None:
    right = {"x": torch.zeros(2, 6, 3, 3), "alpha": torch.zeros(2, 8), "weight": torch.zeros(24, 2)}
    with pytest.raises(InputError, match=message):
        fused_conv1x1(**{**right, "groups": 4, **changes})


@not_interpreted
def test_other_devices_are_refused() -> None:
    with pytest.raises(InputError, match=r"cpu.*'fused'.*CUDA"):
        fused_conv1x1(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2), torch.zeros(4, 1), 2)


@pytest.mark.slow
@not_interpreted
def test_without_triton_it_is_not_available() -> None:
    script = """
import sys
sys.modules["triton"] = None
import torch
from wnexplore.errors import InputError
from wnexplore.nn.formulations.fused import fused_conv1x1, is_available
assert not is_available()
try:
    fused_conv1x1(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2), torch.zeros(4, 1), 2)
except InputError as error:
    assert "Triton" in str(error), error
else:
    raise AssertionError("ran")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.slow
@not_interpreted
def test_in_the_interpreter() -> None:
    """This file again, in a process in which Triton interprets."""
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=True,
    )
