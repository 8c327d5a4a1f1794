"""Every command and every block of code that a document shows runs as it stands, at small sizes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wnexplore
from tests.cli.conftest import Command
from tests.documents import DOCUMENTS, ROOT, blocks, commands
from tests.report.pages import CHROMIUM
from wnexplore.design.sweep_file import load_sweep
from wnexplore.space.expansion import space_of

SWEPT = "--seeds 1 --epochs 1 --seconds 0.01 --method plain,se --batch-size 1 --data shapes:10x40"
TRAINED = "--seeds 1 --epochs 1 --jobs 1 --method plain,se --data shapes:10x40 --resolution 16"
HALVED = "--seeds 1 --jobs 1 --method plain,se --data shapes:10x40 --resolution 8"
TIMED = "--seconds 0.01"
PREDICTED = "--backbone shufflenet_v2_x0_5 --stem small --resolution 16 --M 1,2,4 --G 1"
DETECTED = "--seconds 0.01 --resolution 64 --pyramid-channels 8"
CALLS = "--seconds 0.1 --resolution 32 --passes 1"

# What is added to a command so that it takes little time, where it takes some.
RUNS = {
    "wnexplore --help": "",
    "wnexplore --install-completion": "",
    "wnexplore published": "",
    "wnexplore sweep quickstart --seeds 5": SWEPT,
    "wnexplore sweep my_sweep.yaml": f"{SWEPT} --resolution 32",
    "wnexplore sweep my_sweep.yaml --workers 4": f"{SWEPT} --resolution 32 --workers 1",
    "wnexplore sweep shapes": TRAINED,
    "wnexplore sweep shapes_halving": HALVED,
    "wnexplore sweep NAME": "--dry-run",
    'wnexplore space my_sweep.yaml --where "params < 2.5M and flops < 150M" --pareto params,flops': "",
    "wnexplore space my_sweep.yaml --count": "",
    "wnexplore space my_sweep.yaml --sample 50 --seed 0 --out sample.csv": "",
    "wnexplore space shufflenet_per_stage"
    ' --where "params < 2.5M and flops < 150M" --pareto params,flops --out front.csv': "",
    "wnexplore calibrate shufflenet_per_stage --out runs/times": f"--networks 19 --seconds 0.05 {PREDICTED}",
    "wnexplore space shufflenet_per_stage --latency runs/times"
    ' --where "params < 3M and latency_ratio < 1.2" --pareto latency_ms,params --out fast.csv': (
        f'{PREDICTED} --where "params < 3M"'
    ),
    "wnexplore profile --layers": f"{TIMED} --backbone shufflenet_v2_x0_5 --stem small --resolution 16",
    "wnexplore profile --backbone shufflenet_v2_x0_5 --method weightnet --M 2 --G 2 --layers": TIMED,
    "wnexplore profile --backbone resnet50 --method weightnet --M 4 --G 1 --layers": (
        f"{TIMED} --resolution 32"
    ),
    "wnexplore profile --task detection --backbone shufflenet_v2_x0_5 --method weightnet": DETECTED,
    "wnexplore profile --task detection --backbone resnet18 --method weightnet --resolution 256": DETECTED,
    "wnexplore train --task detection --backbone shufflenet_v2_x0_5 --resolution 64 --pyramid-channels 16"
    " --data scenes:2x64 --epochs 1 --kernel-lr 1 --lr 0.01 --out runs/detector": "--data scenes:2x16",
    "wnexplore evaluate runs/detector/checkpoints/best.safetensors": "",
    "wnexplore sweep scenes_detection": "--dry-run",
    "wnexplore predict CHECKPOINT IMAGE --out FOLDER": "",
    'wnexplore pick runs/quickstart --where "params < 1e6" --objective top1 --prefer latency_ms': "",
    "wnexplore report runs/quickstart": "",
    "wnexplore export runs/quickstart > results.csv": "",
    'wnexplore export runs/quickstart --format markdown --where "batch_size == 1"': "",
    "wnexplore compare A B --column latency_ratio": "",
    "wnexplore train --backbone shufflenet_v2_x0_5 --method weightnet --stem small --data digits"
    " --epochs 30": "--epochs 1 --resolution 8 --batch-size 256",
    "torchrun --nproc-per-node 8 -m wnexplore train --recipe imagenet_published --data folder:imagenet"
    " --backbone shufflenet_v2_x0_5 --method weightnet --M 2 --G 2 --amp bfloat16 --out runs/imagenet": (
        "--steps 2 --batch-size 4 --resolution 32 --device cpu --lr 0.001"
    ),
    "python -m tests.reference": "",
    "python -m tests.benchmarks.calls --seconds 12": CALLS,
    "python -m tests.benchmarks.calls --backbone resnet18 -M 8 -G 2 --batch-size 16 --seconds 5": (
        f"{CALLS} --batch-size 1 --backbone shufflenet_v2_x0_5"
    ),
    "python -m tests.benchmarks.calls --backbone resnet18 -M 4 --mode train --batch-size 16": (
        f"{CALLS} --batch-size 2 --backbone shufflenet_v2_x0_5"
    ),
    "python -m tests.benchmarks.cost_model measure fitted_to.csv --layers 700 --seconds 0.15": (
        "--layers 9 --seconds 0.01"
    ),
    "python -m tests.benchmarks.cost_model measure tested_on.csv --layers 500 --seconds 0.15 --seed 1": (
        "--layers 9 --seconds 0.01"
    ),
    "python -m tests.benchmarks.cost_model fit fitted_to.csv tested_on.csv": "",
    "python -m tests.benchmarks.counting": "--rounds 1",
    # The calibration of these documents is of smaller images than the space that it counts.
    "python -m tests.benchmarks.counting --latency runs/times": "--help",
    "python -m tests.benchmarks.latency": (
        "--seconds 0.1 --repeats 1 --quiet --device cpu --resolution 32 --networks plain se"
    ),
    "python -m tests.benchmarks.proxy --data shapes:20x8000:fine --resolutions 16 --epochs 8 --seeds 4"
    " --variants 8x --kernel-lr 6": "--data shapes:10x40 --resolutions 8 --epochs 1 --seeds 1",
    "python -m tests.benchmarks.proxy --data shapes:20x8000:superclasses --resolutions 16 --epochs 3"
    " --seeds 4 --variants se 8x --kernel-lr 6 --jobs 2": (
        "--data shapes:10x40 --resolutions 8 --epochs 1 --seeds 1 --jobs 1"
    ),
    "wnexplore sweep published_ranking --seeds 4": "--dry-run",
    'wnexplore sweep published_ranking --seeds 4 --where "backbone == shufflenet_v2_x0_5"': "--dry-run",
    "python -m tests.benchmarks.allocator --backbone resnet18 --batch-size 16 --processes 2 --seconds 1": (
        "--backbone shufflenet_v2_x0_5 --batch-size 1 --processes 1 --seconds 0.05 --resolution 32"
    ),
    "python -m tests.benchmarks.allocator --processes 2 --seconds 0.5": (
        "--processes 1 --seconds 0.05 --resolution 32"
    ),
    "python -m tests.benchmarks.calls --stem small --seconds 4": f"{CALLS} --backbone shufflenet_v2_x0_5",
    "python -m tests.benchmarks.speed --modes inference --formulations auto --no-timm --seconds 3 --out"
    " speed_deployed.csv": (
        "--backbones shufflenet_v2_x0_5 --batch-sizes 1 --pairs 1,1 --seconds 0.1 --device cpu --stem small"
    ),
    "python -m tests.benchmarks.speed --out speed.csv": (
        "--backbones shufflenet_v2_x0_5 --batch-sizes 1 --modes inference --pairs 1,1 --no-timm"
        " --seconds 0.1 --device cpu --resolution 32"
    ),
    "python -m tests.benchmarks.prediction OUT": (
        "--backbones shufflenet_v2_x0_5 --batch-sizes 1 --networks 19 --held-out 3 --seconds 0.02"
        " --layer-seconds 0.01 --stem small --resolution 16 --M 1 2 4 --G 1"
    ),
    "python -m tests.benchmarks.prediction OUT --print": "",
    "wnexplore sweep scenes_detection --workers 2": "--dry-run",
    "wnexplore train --recipe scenes_detection --task detection --backbone shufflenet_v2_x0_5"
    " --resolution 128 --pyramid-channels 64 --method weightnet --M 8 --G 2 --seed 2 --out runs/statistics": (
        "--resolution 64 --data scenes:4x16 --epochs 1"
    ),
    "python -m tests.benchmarks.batch_statistics runs/statistics/checkpoints/best.safetensors": (
        "--data scenes:4x16 --batches 8"
    ),
    "python -m tests.benchmarks.scale --ray": "--tasks 50 --workers 2 --counted 1",
    # tests/study has shorter ones of its kind.
    "python -m tests.benchmarks.faults": "--help",
    "python -m tests.benchmarks.page": "--points 20" if CHROMIUM else "--help",
    "python -m tests.benchmarks.speed_table speed.csv": "",
    "python -m tests.benchmarks.training --rounds 24 --seconds 8": (
        "--quick --rate-seconds 0.01 --resolutions 8 --device cpu"
    ),
    "python -m tests.benchmarks.transfer OUT": (
        "--variants se --rates 24 --seeds 1 --jobs 1 --data shapes:10x40"
    ),
    "python -m tests.benchmarks.warm_cache": "cpu 2 32",
    "python -m pytest -n 2": "tests/test_reference.py",
    "python -m pytest -n 2 -m slow": "--collect-only tests/test_package.py",
    "python -m pytest tests/results -k interval": "--collect-only",
    # What is installed takes what it needs from the environment that runs the tests.
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/wnexplore sweep quickstart": SWEPT,
    'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest -n 2': (
        "tests/test_reference.py"
    ),
}
INSTEAD = {
    "sweep NAME": "sweep quickstart",
    "--nproc-per-node 8": "--nproc-per-node 2",
    "CHECKPOINT IMAGE --out FOLDER": (
        "runs/detector/checkpoints/best.safetensors imagenet/val/cat/0.png --out boxes"
    ),
}

BENCHMARKS = "python -m tests.benchmarks.NAME"
"""Each of which has a row in the table of tests/README.md."""


def is_name(command: str) -> bool:
    """Whether `command` only names one, as in a sentence, or what pip would install."""
    return bool(re.fullmatch(r'wnexplore [a-z-]+|pip install "wnexplore\[\w+\]"', command))


def test_every_command_of_the_documents_is_run_here() -> None:
    shown = {command for document in DOCUMENTS for command in commands(document)}
    needed = {command for command in shown - {BENCHMARKS} if command in RUNS or not is_name(command)}
    assert needed == RUNS.keys()


def test_every_command_that_is_named_is_one(command: Command) -> None:
    named = {command for document in DOCUMENTS for command in commands(document) if is_name(command)}
    extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("optional-dependencies]")[2]
    for name in sorted(named):
        if name.startswith("pip"):
            assert re.search(rf"^{name.partition('[')[2].partition(']')[0]} = ", extras, re.M), name
        else:
            assert command(name.partition(" ")[2], "--help").code == 0, name


def test_every_benchmark_is_named() -> None:
    table = (ROOT / "tests" / "README.md").read_text(encoding="utf-8").partition(BENCHMARKS)[2]
    named = set(
        re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines() if "|" in row))
    )
    runnable = {
        path.stem
        for path in (ROOT / "tests" / "benchmarks").glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert named == runnable


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_sweep_file_is_one(document: str, tmp_path: Path) -> None:
    for text in blocks(document, "yaml"):
        (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
        assert space_of(load_sweep(tmp_path / "sweep.yaml")).legal.any()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_python_runs(document: str) -> None:
    names = {"wnexplore": wnexplore, "model": wnexplore.build(backbone="resnet18", num_classes=10)}
    for text in blocks(document, "python"):
        exec(text, names)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents' commands read, and with programs of their names."""
    folder = tmp_path_factory.mktemp("workplace")
    (text,) = blocks("README.md", "yaml")
    (folder / "my_sweep.yaml").write_text(text, encoding="utf-8")
    modules = {"wnexplore": "-m wnexplore", "torchrun": "-m torch.distributed.run", "python": ""}
    (folder / "bin").mkdir()
    for name, arguments in modules.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    dice = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (folder / "imagenet" / part / label).mkdir(parents=True)
            for number in range(4):
                # Of one colour, they would leave a normalisation nothing but rounding errors to go by.
                pixels = dice.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "imagenet" / part / label / f"{number}.png")
    run(f"wnexplore sweep quickstart {SWEPT}", folder, folder / "bin", ROOT)
    for copy in ("A", "B"):
        shutil.copytree(folder / "runs" / "quickstart", folder / copy)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository, to be installed and written to."""
    copy = tmp_path_factory.mktemp("checkout") / "wnexplore"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "runs", "build", "dist")
    return Path(shutil.copytree(ROOT, copy, ignore=ignored))


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_run(
    document: str, workplace: Path, checkout: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    for shown in commands(document):
        if shown not in RUNS:
            continue
        text = f"{instead(shown)} {RUNS[shown]}"
        if shown.startswith("wnexplore ") and "completion" not in shown and " > " not in shown:
            done = command(*shlex.split(text)[1:])
            assert done.code == 0, f"{text}\n{done.err}"
        elif ".venv" in shown:
            run(text, checkout, workplace / "bin", *map(Path, site.getsitepackages()))
        elif "pytest" in shown or "tests.reference" in shown:
            run(text, checkout, workplace / "bin", checkout)
        else:
            run(text, workplace, workplace / "bin", ROOT)


def instead(command: str) -> str:
    """`command` with what this machine has in place of what it asks for."""
    for old, new in INSTEAD.items():
        command = command.replace(old, new)
    return command


def run(command: str, folder: Path, programs: Path, *python_path: Path) -> None:
    """Run a command in `folder` as a shell does; `programs` come before those of the machine."""
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(map(str, python_path)),
        "HOME": str(programs.parent),
    }
    # Before a second command bash isn't replaced by the first: completion is for the shell that runs it.
    shell = ["bash", "-euo", "pipefail", "-c", f"{command}\n:"]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
