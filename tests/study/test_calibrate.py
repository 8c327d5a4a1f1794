"""What a calibration is going to time."""

from __future__ import annotations

from wnexplore.design.protocol import LatencySpec
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.study.calibrate import calibration_plan
from wnexplore.study.sweep import plan


def test_protocols_are_counted_as_they_are_timed() -> None:
    """A training step is the same over either baseline."""
    latency = LatencySpec(device="cpu", modes=("inference", "train"), baseline=("deployed", "trained"))
    axes = {"M": (1, 2, 4, 8), "G": (1, 2), "per_stage": True, "resolution": (32,), "stem": ("small",)}
    spec = SweepSpec.model_validate({"methods": ("weightnet",), "latency": latency.model_dump(), **axes})
    chosen = calibration_plan(spec, 19)
    timed = [m for m in plan(chosen.spec).measurements if m.figure == "latency"]
    assert chosen.protocols * len(chosen.spec.points or ()) == len(timed)
    assert chosen.protocols == 3
