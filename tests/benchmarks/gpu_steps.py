"""The steps of tests.benchmarks.gpu. Each prints what it does and writes its tables as the rows come."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.gpu import ROOT
from tests.sweeps import OWN
from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.measure.conditions import Watch
from wnexplore.measure.distinct_layers import DistinctLayer, distinct_layers
from wnexplore.measure.environment import device_name, environment, resolve_device
from wnexplore.measure.failure import ContextLostError, Failure
from wnexplore.measure.gpu import current_gpu, energy_per_image
from wnexplore.measure.latency import measure_latencies
from wnexplore.measure.layer_benchmark import TOLERANCES, difference
from wnexplore.measure.roofline import COPY_BYTES, WARM_UP_S, copy_rate, measure_peaks
from wnexplore.measure.runtimes import make_pass
from wnexplore.measure.torch_settings import DTYPES, precision_set
from wnexplore.models import build
from wnexplore.nn.formulations import apply_generated, legal_formulations
from wnexplore.nn.formulations.fused import is_available
from wnexplore.results.store import read_records

_ONE_LAYER = """

def one_layer(num_classes=10):
    return nn.Sequential(*convolution(3, 8), *convolution(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
"""


class Skipped(Exception):  # noqa: N818
    """A step that this machine can't do, and why."""


@dataclass(frozen=True)
class Bench:
    """Where a step runs, and how much it does there."""

    device: str
    out: Path

    @property
    def on_gpu(self) -> bool:
        """Whether it is the real thing."""
        return self.device == "cuda"

    @property
    def tiny(self) -> str:
        """A network that a processor runs in milliseconds."""
        path = self.out / "own.py"
        if not path.exists():
            path.write_text(OWN + _ONE_LAYER)
        return f"{path}:tiny"

    @property
    def points(self) -> tuple[DesignPoint, DesignPoint]:
        """A plain network and one with generated kernels."""
        backbone = "shufflenet_v2_x0_5" if self.on_gpu else self.tiny
        size: dict[str, Any] = {} if self.on_gpu else {"resolution": 32, "num_classes": 10}
        return DesignPoint.of(backbone, **size), DesignPoint.of(backbone, "weightnet", 2, 2, **size)

    @property
    def batch(self) -> int:
        """Images of a pass."""
        return 16 if self.on_gpu else 2

    def require_gpu(self, why: str) -> None:
        """Skip the step without one."""
        if not self.on_gpu:
            raise Skipped(f"needs a GPU: {why}")

    def table(self, name: str, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Write `rows` as they come to NAME.csv, which has the columns of the first, and print them."""
        kept: list[Mapping[str, Any]] = []
        with (self.out / f"{name}.csv").open("w", newline="") as file:
            for row in rows:
                writer = csv.DictWriter(file, list(row) if not kept else list(kept[0]), lineterminator="\n")
                if not kept:
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
                print(", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
                kept.append(row)
        return kept


def run_step(step: str, device: str, out: Path) -> None:
    """Run one step and write what became of it to STEP.json in `out`."""
    try:
        finding, status = STEPS[step](Bench(resolve_device(device), out)), "ok"
    except Skipped as reason:
        finding, status = str(reason), "skipped"
    except Exception as error:
        traceback.print_exc()
        finding, status = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "failed"
    print(status, finding, flush=True)
    (out / f"{step}.json").write_text(json.dumps({"status": status, "finding": finding}))


def versions(bench: Bench) -> str:
    """What is installed here, and what of it the GPU path needs."""
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    found = environment(bench.device) | {
        "triton": None if find_spec("triton") is None else _version("triton"),
        "compiler": compiler and _first_line(compiler, "--version"),
        "python_headers": headers.exists(),
        "fused_available": is_available(),
        "built_for": torch.cuda.get_arch_list() if bench.on_gpu else [],
        "capability": torch.cuda.get_device_capability() if bench.on_gpu else None,
        "gpus": torch.cuda.device_count(),
        "gpu_state": vars(current_gpu().read_state()),
        "machine": platform.machine(),
    }
    (bench.out / "versions.table.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1), flush=True)
    if bench.on_gpu:
        assert float((torch.ones(8, device="cuda") * 2).sum()) == 16
    return (
        f"{found['device_name']}, torch {found['torch']}, CUDA {found['cuda']}, cuDNN {found['cudnn']},"
        f" driver {found['driver']}, Triton {found['triton']}, compiler {found['compiler']}, Python.h"
        f" {found['python_headers']}, fused {found['fused_available']}"
    )


def formulations(bench: Bench) -> str:
    """Every formulation of every layer, output and gradients, against the published one in float64."""
    point = bench.points[1]
    networks = [point, DesignPoint.of("resnet18", "weightnet", 4, 1)] if bench.on_gpu else [point]
    rows: list[Mapping[str, Any]] = []

    def compared() -> Iterator[Mapping[str, Any]]:
        for network in networks:
            for layer in distinct_layers(build(network), network.resolution):
                for dtype in ("float32", "bfloat16"):
                    yield from _differences(bench, str(network), layer, dtype)

    rows = bench.table("formulations", compared())
    wrong = [row for row in rows if row["error"] or row["worst"] > row["tolerance"]]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {len(rows)} differ or failed, the first: {wrong[0]}")
    by_name = {name: [r["worst"] for r in rows if r["formulation"] == name] for name in _names(rows)}
    worst = ", ".join(
        f"{name} {max(gradients_of):.1e} ({len(gradients_of)})" for name, gradients_of in by_name.items()
    )
    return f"{len(rows)} agree in output and gradients; largest difference (cells): {worst}"


def _differences(bench: Bench, network: str, layer: DistinctLayer, dtype: str) -> Iterator[Mapping[str, Any]]:
    shape, batch = layer.shape, 3
    torch.manual_seed(0)
    size = (batch, shape.in_channels, min(layer.height, 14), min(layer.width, 14))
    x = torch.randn(size, device=bench.device).to(DTYPES[dtype])
    alpha = torch.rand(batch, shape.generator_groups * shape.inputs_per_group, device=bench.device)
    weight = layer.weight.to(bench.device, DTYPES[dtype])
    inputs = (x, alpha.to(DTYPES[dtype]), weight)
    with precision_set(dtype):
        expected = _with_gradients(tuple(tensor.double() for tensor in inputs), shape, "published")
        for name in legal_formulations(shape):
            worst, error = math.nan, ""
            try:
                found = _with_gradients(inputs, shape, name)
                worst = max(difference(*pair) for pair in zip(found, expected, strict=True))
            except Exception as raised:
                error = Failure.of(raised).error
            yield {
                "network": network,
                "layer": layer.name,
                "dtype": dtype,
                "formulation": name,
                "worst": worst,
                # Gradients are sums of many more terms than outputs.
                "tolerance": 5 * TOLERANCES[dtype],
                "error": error,
            }


def _with_gradients(inputs: tuple[Tensor, ...], shape: Any, name: str) -> list[Tensor]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y = apply_generated(leaves[0], leaves[1], leaves[2], shape, name)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(y.shape, generator=generator).to(y.device, inputs[0].dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream)]


def fused_tests(bench: Bench) -> str:
    """The tests of the fused kernels, on this GPU."""
    bench.require_gpu("the tests run these kernels in Triton's interpreter without one")
    for package in ("pytest", "hypothesis"):
        if find_spec(package) is None:
            raise Skipped(f"{package} is not installed")
    if not is_available():
        raise Skipped("fused.is_available() is false here: see versions")
    command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not interpreter"]
    return _called([*command, "tests/nn/test_fused.py"]).splitlines()[-1]


def runtimes(bench: Bench) -> str:
    """Eager and recorded passes, in inference and training."""
    return _timed(bench, "runtimes", ("eager", "cudagraph") if bench.on_gpu else ("eager",), bench.points)


def compiled(bench: Bench) -> str:
    """Compiled passes, in inference and training, of a network of few layers."""
    if bench.on_gpu:
        points = DesignPoint.of("resnet18"), DesignPoint.of("resnet18", "weightnet", 2, 2)
        return _timed(bench, "compile", ("compile",), points)
    one = DesignPoint.of(bench.tiny.replace(":tiny", ":one_layer"), resolution=32, num_classes=10)
    return _timed(bench, "compile", ("compile",), (one, one), ("inference",))


def _timed(
    bench: Bench,
    name: str,
    runtimes: Iterable[str],
    points: tuple[DesignPoint, DesignPoint],
    modes: Iterable[str] = ("inference", "train"),
) -> str:
    plain, ours = points

    def timed() -> Iterator[Mapping[str, Any]]:
        for mode in modes:
            for runtime in runtimes:
                protocol = LatencyProtocol(
                    device=bench.device,
                    device_name=device_name(bench.device),
                    dtype="float32",
                    batch_size=bench.batch,
                    runtime=runtime,
                    mode=mode,
                    target=0.01,
                    seconds=1.0 if bench.on_gpu else 0.05,
                )
                builds = {point: partial(build, point) for point in (plain, ours)}
                found = measure_latencies(builds, plain, builds[plain], protocol, plain.resolution)
                for point, latency in found:
                    yield {"mode": mode, "runtime": runtime, "network": str(point), **_figures(latency)}

    rows = bench.table(name, timed())
    _require_no_errors(rows)
    ratios = [
        f"{r['runtime']} {r['mode']} {r['latency_ratio']:.2f}" for r in rows if r["network"] == str(ours)
    ]
    return f"{len(rows)} timed; {ours} over plain: {', '.join(ratios)}"


def _figures(latency: Any) -> dict[str, Any]:
    names = [
        *("latency_ms", "latency_ratio", "latency_ratio_low", "latency_ratio_high"),
        *("peak_memory_mb", "compile_s", "energy_j", "rounds", "stopped_by"),
    ]
    if isinstance(latency, Failure):
        return dict.fromkeys(names) | {"warnings": "", "error": latency.error}
    value = latency.to_dict()
    warned = " ".join(warning["kind"] for warning in value["warnings"])
    return {name: value[name] for name in names} | {"warnings": warned, "error": ""}


def race(bench: Bench) -> str:
    """`wnexplore race` of two networks: who computes something else, and what auto loses."""
    networks = [("shufflenet_v2_x0_5", "2", "2"), ("resnet18", "4", "1")]
    options = ["--batch-size", "16", "--seconds", "0.05", "--target", "0.05"]
    if not bench.on_gpu:
        networks = [(bench.tiny, "2", "2")]
        options = ["--batch-size", "2", "--seconds", "0.001", "--resolution", "32", "--num-classes", "10"]
    message = []
    for number, (backbone, M, G) in enumerate(networks):
        axes = ["--backbone", backbone, "--M", M, "--G", G, "--device", bench.device]
        found = json.loads(_called(["-m", "wnexplore", "race", *axes, *options, "--json"]))
        (bench.out / f"race_{number}.table.json").write_text(json.dumps(found, indent=1) + "\n")
        regret = found["regret"]
        worst = regret["worst"]
        message.append(
            f"{Path(backbone).name} ({M}, {G}): {len(found['layers'])} layers, regret of auto"
            f" {_short(regret['geometric_mean'])}, at worst {_short(worst and worst['regret'])}"
            f" (picked {worst and worst['picked']}, fastest {worst and worst['fastest']})"
        )
    return "; ".join(message)


def speed(bench: Bench) -> str:
    """Latency ratios of "auto" and of the published formulation: tests.benchmarks.speed."""
    table = bench.out / "speed.csv"
    table.unlink(missing_ok=True)
    if bench.on_gpu:
        work = ["--backbones", "shufflenet_v2_x0_5", "resnet50", "--batch-sizes", "1", "64"]
        work += ["--seconds", "0.3"]
    else:
        work = ["--backbones", "shufflenet_v2_x0_5", "--batch-sizes", "1", "2", "--modes", "inference"]
        work += ["--seconds", "0.02", "--resolution", "32"]
    given = ["--device", bench.device, "--pairs", "2,2", "--no-timm", "--out", str(table)]
    _called(["-m", "tests.benchmarks.speed", *work, *given])
    with table.open() as file:
        rows = list(csv.DictReader(file))
    _require_no_errors(rows)
    ours = [float(row["latency_ratio"]) for row in rows if row["formulation"] == "auto"]
    return f"{len(rows)} timed; auto over plain {min(ours):.2f} to {max(ours):.2f}"


_GPU_SWEEP = """\
backbones: [shufflenet_v2_x0_5]
methods: [plain, weightnet]
stem: [small]
M: [2]
G: [2]
resolution: [32]
num_classes: [10]
latency: {batch_sizes: [16], dtypes: [float32, bfloat16], runtimes: [eager, cudagraph], seconds: 0.2}
train: {data: digits, epochs: 1, seeds: 2, batch_size: 256}
"""
_CPU_SWEEP = """\
backbones: [BACKBONE]
methods: [plain, weightnet]
M: [2]
G: [1]
resolution: [8]
num_classes: [10]
latency: {batch_sizes: [4], seconds: 0.001}
train: {data: digits, epochs: 1, seeds: 2, batch_size: 512}
"""


def sweep(bench: Bench, jobs: int) -> str:
    """A sweep with latencies and trainings, `jobs` trainings at once."""
    directory, file = bench.out / f"sweep_jobs_{jobs}", bench.out / f"sweep_jobs_{jobs}.yaml"
    shutil.rmtree(directory, ignore_errors=True)
    # Latencies have nothing to do with the jobs: once is enough for most.
    on_gpu = _GPU_SWEEP if jobs == 1 else _GPU_SWEEP.replace(", bfloat16", "").replace(", cudagraph", "")
    file.write_text(on_gpu if bench.on_gpu else _CPU_SWEEP.replace("BACKBONE", bench.tiny))
    given = ["--device", bench.device, "--jobs", str(jobs), "--out", str(directory)]
    _called(["-m", "wnexplore", "sweep", str(file), *given])
    records = read_records(directory)
    failed = [record for record in records if record.status != "ok"]
    if failed:
        raise AssertionError(f"{len(failed)} of {len(records)} failed, the first: {failed[0].error}")
    finding = f"{len(records)} measurements, all ok"
    other = bench.out / f"sweep_jobs_{3 - jobs}"
    if other.exists():
        same = _learnt(records) == _learnt(read_records(other))
        finding += f"; trainings by {jobs} and {3 - jobs} processes {'equal' if same else 'DIFFER'}"
    return finding


def _learnt(records: Iterable[Any]) -> dict[Any, Any]:
    return {
        (str(record.point), record.protocol["seed"]): record.samples["loss"]
        for record in records
        if record.figure == "training"
    }


def roofline(bench: Bench) -> str:
    """Peaks of an idle GPU and of a warm one."""
    if bench.on_gpu:
        torch.cuda.synchronize()
        time.sleep(2)

    def measured() -> Iterator[Mapping[str, Any]]:
        for state, seconds in (("idle", 0.0), ("warmed", WARM_UP_S)):
            yield {"state": state, "gigabytes_per_s": copy_rate(bench.device, seconds) / 1e9}

    rows = bench.table("roofline_copies", measured())
    dtypes = ("float32", "tf32", "bfloat16", "float16") if bench.on_gpu else ()

    def peaks() -> Iterator[Mapping[str, Any]]:
        for dtype in dtypes:
            with precision_set(dtype):
                found = measure_peaks(bench.device, dtype)
            yield {"dtype": dtype, "tera_multiply_adds_per_s": found.multiply_adds_per_s / 1e12}

    products = bench.table("roofline_products", peaks())
    idle, warmed = (row["gigabytes_per_s"] for row in rows)
    message = "".join(f", {row['dtype']} {row['tera_multiply_adds_per_s']:.1f} TMAC/s" for row in products)
    size = f"{COPY_BYTES / 1e9:g} GB" if bench.on_gpu else "four caches"
    return f"copies of {size}: idle {idle:.0f} GB/s, warmed {warmed:.0f}{message}"


def energy(bench: Bench) -> str:
    """Joules an image by the counter, beside power times time."""
    bench.require_gpu("a processor's energy isn't read")

    def measured() -> Iterator[Mapping[str, Any]]:
        for point in bench.points:
            images = torch.randn(bench.batch, 3, point.resolution, point.resolution, device="cuda")
            watched = _Watched(make_pass(build(point).cuda(), images, "inference", "eager").run)
            begun = time.perf_counter()
            joules = energy_per_image(watched, bench.batch)
            seconds = time.perf_counter() - begun
            power = watched.watch.readings().get("power_w", [])
            mean = sum(power) / len(power) if power else None
            yield {
                "network": str(point),
                "joules_per_image": joules,
                "power_w": mean,
                "power_times_time": None if mean is None else mean * seconds / (watched.passes * bench.batch),
            }

    rows = bench.table("energy", measured())
    if rows[0]["joules_per_image"] is None:
        raise Skipped("this GPU shows no counter of energy")
    return "; ".join(
        f"{row['network']}: {_short(row['joules_per_image'])} J an image"
        f" (power times time {_short(row['power_times_time'])})"
        for row in rows
    )


class _Watched:
    """A pass that is counted, and during which the GPU is looked at."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.passes, self.watch = 0, Watch("cuda", None)

    def __call__(self) -> None:
        self._run()
        self.passes += 1
        self.watch.look()


_POISON = '''

class Poisoned(nn.Sequential):
    """Counted like any other network; a batch of more than two takes the GPU's context with it."""

    def forward(self, x):
        if len(x) > 2 and x.is_cuda:
            # An index out of range is found on the device.
            x.new_zeros(4)[x.new_full((1,), 9).long()]
        elif len(x) > 2:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return super().forward(x)


def poisoned(num_classes=10):
    return Poisoned(*tiny(num_classes))
'''
_POISONED_SWEEP = """\
backbones: [BAD, BACKBONE]
methods: [plain]
resolution: [8]
num_classes: [10]
latency: {batch_sizes: [4], seconds: 0.001}
train: {data: digits, epochs: 1, seeds: 1, batch_size: 512}
"""


def poisoned(bench: Bench) -> str:
    """A sweep of which one network loses the context: only that is recorded, the same command goes on."""
    _poison_among_others(bench)
    script = bench.out / "poisoned.py"
    script.write_text(OWN + _POISON)
    directory, file = bench.out / "sweep_poisoned", bench.out / "sweep_poisoned.yaml"
    shutil.rmtree(directory, ignore_errors=True)
    text = _POISONED_SWEEP.replace("BAD", f"{script}:poisoned").replace("BACKBONE", f"{script}:tiny")
    file.write_text(text)
    command = ["-m", "wnexplore", "sweep", str(file), "--device", bench.device, "--out", str(directory)]
    codes = []
    # The poisoned network's latency ends the first run, its training the second.
    for _ in range(3):
        done = _run(command)
        codes.append(done.returncode)
        *_, line = done.stderr.strip().splitlines() or [""]
        if done.returncode and ("context was lost" not in line or "Traceback" in done.stderr):
            raise AssertionError(f"ended with {done.returncode} and {line}")
    records = read_records(directory)
    failed = [(r.figure, r.point.backbone.split(":")[-1]) for r in records if r.status != "ok"]
    assert failed == [("latency", "poisoned"), ("training", "poisoned")], failed
    assert codes == [1, 1, 0], codes
    assert len(records) == 6, len(records)
    return "only the poisoned network's latency and training failed; the same command ended the rest"


def _poison_among_others(bench: Bench) -> None:
    """In this process, which nothing else uses: networks that are timed in the same rounds."""
    passes = 0

    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal passes
            passes += 1
            if passes > 20 and x.is_cuda:
                x.new_zeros(4)[x.new_full((1,), 9).long()]
            elif passes > 20:
                raise RuntimeError("CUDA error: device-side assert triggered")
            y: Tensor = self.linear(x.mean((2, 3)))
            return y

    def good() -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))

    protocol = LatencyProtocol(
        device=bench.device,
        device_name=device_name(bench.device),
        dtype="float32",
        batch_size=2,
        target=1e-9,
        seconds=2.0,
    )
    networks: dict[str, Callable[[], nn.Module]] = {"plain": good, "good": good, "bad": Bad}
    found, culprit = [], None
    try:
        for name, latency in measure_latencies(networks, "plain", good, protocol, 8):
            found.append((name, isinstance(latency, Failure) and latency.context_lost))
    except ContextLostError as error:
        culprit = error.culprit
    assert (found, culprit) == ([("bad", True)], "bad"), (found, culprit)


def _called(arguments: list[str]) -> str:
    """Standard output of Python with `arguments`; an error that ends with its last line if it fails."""
    done = _run(arguments)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "nothing printed").splitlines()
        raise AssertionError(f"{' '.join(arguments[:3])} ended with {done.returncode}: {lines[-1]}")
    return done.stdout.strip()


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    print("$ python", *arguments, flush=True)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    return done


def _require_no_errors(rows: Iterable[Mapping[str, Any]]) -> None:
    failed = [row for row in rows if row.get("error")]
    if failed:
        raise AssertionError(f"{len(failed)} failed, the first: {dict(failed[0])}")


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["formulation"] for row in rows))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _first_line(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"{command[0]}: {error}"


STEPS: dict[str, Callable[[Bench], str]] = {
    "versions": versions,
    "formulations": formulations,
    "runtimes": runtimes,
    "roofline": roofline,
    "energy": energy,
    "race": race,
    "sweep_jobs_1": partial(sweep, jobs=1),
    "sweep_jobs_2": partial(sweep, jobs=2),
    "speed": speed,
    "fused_tests": fused_tests,
    "compile": compiled,
    "poisoned": poisoned,
}
