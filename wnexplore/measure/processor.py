"""The name of the processor, with what tells its models apart where the name alone doesn't."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

INFO = Path("/proc/cpuinfo")
BASE_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/base_frequency")
"""In kHz, on machines whose clock Linux controls."""


def processor_name(info: Path = INFO, base_frequency: Path = BASE_FREQUENCY) -> str:
    """The processor's model; with family, model, stepping and frequency where its name is vague.

    Virtual machines often name only a brand ("Intel(R) Xeon(R) Processor"), which many generations share.
    `info` is Linux's description of the cores, `base_frequency` a file with the frequency in kHz; where
    they are missing the operating system's own name is returned.
    """
    core = _first_core(info)
    name = core.get("model name", "")
    if "CPU part" in core or not name:
        return _arm(core) or _brand() or platform.processor() or platform.machine()
    if not is_vague(name):
        return name
    known = {"family": core.get("cpu family"), "model": core.get("model"), "stepping": core.get("stepping")}
    details = [f"{what} {value}" for what, value in known.items() if value]
    frequency = None if "@" in name else _frequency(core, base_frequency)
    if frequency:
        details.append(frequency)
    return f"{name} ({', '.join(details)})" if details else name


def is_vague(name: str) -> bool:
    """Whether `name` has no model number: "AMD EPYC Processor", "Intel(R) Xeon(R) CPU @ 2.20GHz"."""
    return not re.search(r"\d", _NOT_OF_THE_MODEL.sub("", name))


_NOT_OF_THE_MODEL = re.compile(r"@.*|version \S+|\b(32|64)-bit\b|\(.*?\)", re.IGNORECASE)


def _first_core(info: Path) -> Mapping[str, str]:
    """The fields of the first core; {} without the file."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        # An ARM core has no field that all processors have: the first core's come first.
        fields.setdefault(name.strip(), value.strip())
    return fields


def _arm(core: Mapping[str, str]) -> str:
    """An ARM processor, which Linux doesn't name, by the codes of its core's design; "" for others."""
    codes = {"implementer": core.get("CPU implementer"), "part": core.get("CPU part")}
    if not all(codes.values()):
        return ""
    return f"{platform.machine()} ({', '.join(f'{what} {code}' for what, code in codes.items())})"


def _frequency(core: Mapping[str, str], base_frequency: Path) -> str:
    """The nominal frequency; "" where only the present one is known, which changes from second to second."""
    try:
        mhz = int(base_frequency.read_text(encoding="ascii")) / 1000
    except (OSError, ValueError):
        # A virtual machine is told a constant.
        if "hypervisor" not in core.get("flags", "").split():
            return ""
        try:
            mhz = float(core.get("cpu MHz", ""))
        except ValueError:
            return ""
    return f"{mhz / 1000:.1f} GHz" if mhz > 0 else ""


def _brand() -> str:
    """What macOS calls the processor; "" elsewhere."""
    if platform.system() != "Darwin":
        return ""
    command = ("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
