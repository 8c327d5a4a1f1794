"""CPU time of --help of every command: python -m tests.benchmarks.startup [RUNS]."""

import os
import statistics
import subprocess
import sys

COMMANDS = ["", "sweep", "profile", "race", "plot", "export", "table", "compare", "export-onnx", "published"]
TARGET_S = 0.4


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one run of the command line."""
    before = os.times()
    subprocess.run([sys.executable, "-m", "wnexplore", *arguments], check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    """Print the median and the largest of several runs of each, commands in turn."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    times: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for _ in range(runs):
        for command in COMMANDS:
            times[command].append(cpu_seconds([*command.split(), "--help"]))
    print(f"CPU seconds of --help over {runs} runs (target: under {TARGET_S})")
    for command, samples in times.items():
        print(
            f"{command or 'wnexplore':10} median {statistics.median(samples):.2f}  largest {max(samples):.2f}"
        )


if __name__ == "__main__":
    main()
