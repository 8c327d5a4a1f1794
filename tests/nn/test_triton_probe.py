"""Whether Triton compiles here, asked where it can't, and of a GPU that is not there.

Everything up to the compiler is real: a library in the place of the driver's says that there is a GPU, and
Triton, in a process of its own, calls the compiler for the code that talks to it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

COMPILER = shutil.which("gcc") or shutil.which("cc")

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="no Triton here"),
    pytest.mark.skipif(COMPILER is None, reason="no C compiler here"),
]

DRIVER = """
int cuInit(unsigned int flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
"""

ASK = """
import json, sys, warnings
import torch

torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda *_: CAPABILITY
torch.cuda.is_current_stream_capturing = lambda: False
zeros = torch.zeros
torch.zeros = lambda *size, device=None: zeros(*size)

from wnexplore.errors import print_notices
from wnexplore.nn.formulations import legal_formulations, why_not
from wnexplore.nn.formulations import triton_probe
from wnexplore.nn.formulations.choose import choose
from wnexplore.nn.formulations.layer_shape import LayerShape

print_notices()
layers = [LayerShape(64, 64, (1, 1), (1, 1), (0, 0), (1, 1), 1, 128, terms) for terms in (1, 2)]
found = {
    "works": triton_probe.works(),
    "chosen": [choose(layer, 1, 2, 2, False, "cuda") for layer in layers for _ in range(2)],
    "trained": [choose(layer, 1, 2, 2, True, "cuda") for layer in layers],
    "legal": [list(legal_formulations(layer)) for layer in layers],
    "why": why_not("fused", layers[0]),
}
json.dump(found, sys.stdout)
"""


def ask(folder: Path, capability: tuple[int, int] = (9, 0), **variables: str) -> tuple[dict[str, Any], str]:
    """What a process answers in which `variables` are set, and its standard error."""
    (folder / "driver.c").write_text(DRIVER)
    assert COMPILER is not None
    library = folder / "libcuda.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    here = {"TRITON_LIBCUDA_PATH": str(folder), "TRITON_CACHE_DIR": str(folder / "cache")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "CC"))}
    done = subprocess.run(
        [sys.executable, "-c", ASK.replace("CAPABILITY", str(capability))],
        env=kept | here | variables,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer, done.stderr


def a_compiler(folder: Path, lines: str) -> Path:
    """A compiler that notes each call in calls.txt and then does what `lines` of shell say."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/bash\necho called >> "{folder}/calls.txt"\n{lines}\n')
    path.chmod(0o755)
    return path


def check_falls_back(answer: dict[str, Any], message: str) -> None:
    """Another formulation runs, of those that need no compiler, and one line says why."""
    assert not answer["works"]
    assert answer["chosen"] == ["kernel"] * 4
    assert "fused" not in answer["trained"]
    assert all(legal == ["published", "kernel", "shared"] for legal in answer["legal"])
    assert "Triton" in answer["why"]
    lines = [line for line in message.splitlines() if line.startswith("wnexplore: ")]
    assert len(lines) == 1
    assert "Triton" in lines[0]


def test_no_compiler(tmp_path: Path) -> None:
    answer, message = ask(tmp_path, CC=str(tmp_path / "missing"))
    check_falls_back(answer, message)
    assert f"{tmp_path}/missing" in message


@pytest.mark.slow
def test_no_headers_and_one_try(tmp_path: Path) -> None:
    # The compiler that is here, of which Python's headers are kept.
    compiler_options = (
        'args=(); for each in "$@"; do [[ $each == -I*/include/python3* ]] || args+=("$each"); done\n'
        f'exec {COMPILER} "${{args[@]}}"'
    )
    answer, message = ask(tmp_path, CC=str(a_compiler(tmp_path, compiler_options)))
    check_falls_back(answer, message)
    assert "Python.h" in message
    assert (tmp_path / "calls.txt").read_text() == "called\n"


def test_what_compiles_and_runs_is_chosen(tmp_path: Path) -> None:
    # Of a GPU only Triton's interpreter can take the place.
    answer, message = ask(tmp_path, TRITON_INTERPRET="1", CC=str(a_compiler(tmp_path, "exit 1")))
    assert answer["works"]
    assert answer["chosen"] == ["fused"] * 4
    assert all("fused" in legal for legal in answer["legal"])
    assert answer["why"] is None
    assert "wnexplore" not in message


@pytest.mark.slow
def test_older_gpus_are_not_asked(tmp_path: Path) -> None:
    answer, message = ask(tmp_path, (7, 5), CC=str(a_compiler(tmp_path, "exit 1")))
    assert answer["chosen"] == ["kernel"] * 4
    assert not (tmp_path / "calls.txt").exists()
    assert "wnexplore" not in message
