"""Validates the whole path on a machine with one GPU: python -m tests.benchmarks.gpu --out FOLDER

Steps (tests.benchmarks.gpu_steps), each in a process of its own and with a time limit of its own, so that
none can hang or poison another: what is installed; formulations and their gradients against float64; tests
of the fused kernels; eager, graph and compile in inference and training; races; speed at batch 1 and 64; a
sweep by one process and by two; the roofline idle and warmed; energy; and last a network that takes the GPU's
context with it. At most eight minutes: what a step leaves of its time the later ones may use.

A line is printed for each step, and FOLDER gets them as findings.json and findings.md, with each step's
tables and what it printed (STEP.log). Exit code 1 if a step failed or ran out of time. With `--device cpu`
everything runs on smaller work, but for what only a GPU has.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).parents[2]

LIMITS_S = {
    "versions": 25,
    "formulations": 60,
    "runtimes": 45,
    "roofline": 20,
    "energy": 15,
    "race": 40,
    "sweep_jobs_1": 35,
    "sweep_jobs_2": 40,
    "speed": 60,
    "fused_tests": 45,
    "compile": 50,
    "poisoned": 45,
}
"""Step -> its seconds of eight minutes, in the order they run in; the last leaves a context behind."""


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: str
    status: str
    """ "ok", "failed", "timed out" or "skipped"."""
    seconds: float
    finding: str

    def __str__(self) -> str:
        return f"{self.step:14} {self.status:10} {self.seconds:6.1f} s  {self.finding}"


def main() -> None:
    """Run the steps asked for, print a line for each, and leave with 1 if one did not pass."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu"])
    options.add_argument("--out", type=Path, required=True, help="folder for findings and tables")
    options.add_argument("--minutes", type=float, default=8.0, help="for all steps together")
    options.add_argument("--steps", nargs="+", choices=list(LIMITS_S), default=list(LIMITS_S), metavar="STEP")
    options.add_argument("--run", choices=list(LIMITS_S), help=argparse.SUPPRESS)
    requested = options.parse_args()
    if requested.run is not None:
        from tests.benchmarks.gpu_steps import run_step

        run_step(requested.run, requested.device, requested.out)
        return
    out = requested.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if run_all(requested.steps, requested.device, out, requested.minutes) else 1)


def run_all(steps: list[str], device: str, out: Path, minutes: float) -> bool:
    """Run `steps` one after another, whatever becomes of each; whether all passed or were skipped."""
    begun, planned = monotonic(), 0.0
    share = minutes * 60 / sum(LIMITS_S.values())
    outcomes: list[Outcome] = []
    for step in [step for step in LIMITS_S if step in steps]:
        planned += LIMITS_S[step] * share
        outcome = run_in_process(step, device, out, planned - (monotonic() - begun))
        print(outcome, flush=True)
        outcomes.append(outcome)
        _write(out, outcomes)
    passed = all(outcome.status in ("ok", "skipped") for outcome in outcomes)
    print(
        f"{'all passed' if passed else 'NOT all passed'}, {monotonic() - begun:.0f} s; see {out}", flush=True
    )
    return passed


def run_in_process(step: str, device: str, out: Path, limit_s: float) -> Outcome:
    """The step in a process of its own, ended with all that it started after `limit_s` seconds."""
    message, log = out / f"{step}.json", out / f"{step}.log"
    message.unlink(missing_ok=True)
    itself = [sys.executable, "-m", "tests.benchmarks.gpu"]
    command = [*itself, "--run", step, "--device", device, "--out", str(out)]
    begun = monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return Outcome(
                step, "timed out", monotonic() - begun, f"after {limit_s:.0f} s: {_last_line(log)}"
            )
        finally:
            _end_group(process.pid)
            process.wait()
    seconds = monotonic() - begun
    try:
        found = json.loads(message.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Outcome(step, "failed", seconds, f"ended with {code}: {_last_line(log)}")
    return Outcome(step, found["status"], seconds, found["finding"])


def _end_group(group: int) -> None:
    # Where all of it has ended by itself there is no such group.
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _write(out: Path, outcomes: list[Outcome]) -> None:
    (out / "findings.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    rows = [
        f"| {outcome.step} | {outcome.status} | {outcome.seconds:.1f} | {outcome.finding.replace('|', '/')} |"
        for outcome in outcomes
    ]
    (out / "findings.md").write_text(
        "\n".join(["| step | | s | finding |", "| :- | :- | -: | :- |", *rows, ""])
    )


if __name__ == "__main__":
    main()
