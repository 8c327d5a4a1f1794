"""The processor's name: checked against lscpu here, and on descriptions of other machines."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from wnexplore.measure.environment import device_name
from wnexplore.measure.processor import is_vague, processor_name

XEON = {
    "vendor_id": "GenuineIntel",
    "cpu family": "6",
    "model": "207",
    "model name": "Intel(R) Xeon(R) Processor",
    "stepping": "2",
    "cpu MHz": "2100.000",
    "flags": "fpu sse2 hypervisor avx2",
}


def _info(folder: Path, core: dict[str, str], **changed: str | None) -> Path:
    fields = {name: value for name, value in (core | changed).items() if value is not None}
    other = fields | {"cpu MHz": "800.000", "CPU part": "0xfff"} if "CPU part" in fields else fields
    path = folder / "cpuinfo"
    path.write_text("\n\n".join(_text(processor) for processor in (fields, other)) + "\n\n")
    return path


def _text(fields: dict[str, str]) -> str:
    return "\n".join(f"{name}\t: {value}" for name, value in fields.items())


@pytest.mark.skipif(shutil.which("lscpu") is None, reason="lscpu is not installed")
def test_device_name_of_the_cpu_is_its_model() -> None:
    lines = subprocess.run(["lscpu", "--json"], capture_output=True, text=True, check=True).stdout
    fields = {f["field"]: f["data"] for f in json.loads(lines)["lscpu"]}
    if "Model name:" not in fields or "CPU family:" not in fields:
        pytest.skip("lscpu gives no model name, or no family")
    name = fields["Model name:"]
    assert device_name("cpu").startswith(name)
    numbers = (fields["CPU family:"], fields["Model:"], fields["Stepping:"])
    expected = "family {}, model {}, stepping {}".format(*numbers)
    assert (expected in device_name("cpu")) == is_vague(name)


def test_two_models_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    names = []
    for model, stepping, mhz in (("207", "2", "2100.000"), ("85", "4", "2000.128"), ("85", "7", "2000.128")):
        info = _info(tmp_path, XEON, model=model, stepping=stepping, **{"cpu MHz": mhz})
        names.append(processor_name(info, tmp_path / "none"))
    assert names == [
        "Intel(R) Xeon(R) Processor (family 6, model 207, stepping 2, 2.1 GHz)",
        "Intel(R) Xeon(R) Processor (family 6, model 85, stepping 4, 2.0 GHz)",
        "Intel(R) Xeon(R) Processor (family 6, model 85, stepping 7, 2.0 GHz)",
    ]


@pytest.mark.parametrize(
    "name", ["Intel(R) Xeon(R) Platinum 8488C", "AMD EPYC 7B13", "Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz"]
)
def test_a_name_with_a_model_number_stays_as_it_is(tmp_path: Path, name: str) -> None:
    info = _info(tmp_path, XEON, **{"model name": name})
    assert processor_name(info, tmp_path / "none") == name


@pytest.mark.parametrize(
    "name",
    [
        "AMD EPYC Processor",
        "AMD EPYC-Rome Processor",
        "Intel(R) Xeon(R) CPU @ 2.20GHz",
        "Intel Xeon Processor (Skylake, IBRS)",
        "Intel Xeon Processor (Icelake-2)",
        "QEMU Virtual CPU version 2.5+",
        "Common 64-bit KVM processor",
    ],
)
def test_a_name_without_a_model_number_is_vague(name: str) -> None:
    assert is_vague(name)


def test_a_frequency_in_the_name_is_not_repeated(tmp_path: Path) -> None:
    name = "Intel(R) Xeon(R) CPU @ 2.20GHz"
    info = _info(tmp_path, XEON, model="79", stepping="0", **{"model name": name})
    assert processor_name(info, tmp_path / "none") == f"{name} (family 6, model 79, stepping 0)"


def test_only_a_constant_frequency_is_part_of_the_name(tmp_path: Path) -> None:
    """The present clock of a real machine changes: with it, the same machine would have many names."""
    info = _info(tmp_path, XEON, flags="fpu sse2")
    assert processor_name(info, tmp_path / "none").endswith("(family 6, model 207, stepping 2)")
    base = tmp_path / "base_frequency"
    base.write_text("2600000\n")
    assert processor_name(info, base).endswith("stepping 2, 2.6 GHz)")


def test_an_arm_core_is_named_by_its_design(tmp_path: Path) -> None:
    names = []
    for part in ("0xd0c", "0xd40"):
        core = {"processor": "0", "CPU implementer": "0x41", "CPU part": part}
        names.append(processor_name(_info(tmp_path, core), tmp_path / "none"))
    assert names[0] != names[1]
    assert names[1].endswith("(implementer 0x41, part 0xd40)")


def test_a_machine_without_a_description_has_a_name(tmp_path: Path) -> None:
    assert processor_name(tmp_path / "none", tmp_path / "none")
    garbled = tmp_path / "cpuinfo"
    garbled.write_bytes(b"\xff\x00 model name\n:::\n")
    assert processor_name(garbled, tmp_path / "none")
