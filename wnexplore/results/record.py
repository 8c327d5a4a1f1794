"""The record: one measured fact about one design point under one protocol on one machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from wnexplore.design.axes import DESIGN_AXES, TIMING_AXES, Axis
from wnexplore.design.point import DesignPoint

Figure = Literal["complexity", "latency", "training", "seeds"]
Status = Literal["ok", "out_of_memory", "failed"]
EndedBy = Literal["target", "difference", "max_seeds", "hours", "failed"]
"""What ended the seeds of a variant: its difference is known to the target, or certainly not 0; the budget;
fewer than two seeds succeeded in both networks."""
FIGURES: tuple[Figure, ...] = get_args(Figure)


@dataclass(frozen=True)
class Record:
    """The result of one measurement, or its failure.

    `protocol`, `value`, `samples` and `environment` hold JSON values, unrounded. By figure:

    - complexity: protocol {}; value params, flops, fvcore_flops (None where fvcore fails), operators {name:
      multiply-adds of one image}, uncounted and, of these, uncounted_products {name: calls}.
    - latency: protocol (a `LatencyProtocol`, or what the store has of one) device, device_name, dtype,
      batch_size, runtime, memory_format, threads, cache, mode, baseline ("deployed", or as in older records,
      which lack it, "trained"), allocator ("settled", or as in older ones "as_is"; None on a GPU),
      wait_policy (how torch's threads wait for each other; None on a GPU), target, seconds; value latency_ms
      and latency_ratio with their _low and _high, peak_memory_mb (None where torch doesn't hand out the
      memory), compile_s (None where nothing is compiled or exported), energy_j (joules per image; None
      without a counter), rounds, stopped_by ("target" or "budget"), warnings [{kind, text}]; samples
      latency_ms, baseline_ms and, on a GPU, if available, sm_clock_mhz, temperature_c, power_w and
      throttle_reasons (a bit mask).
    - training: protocol dataset, path, device, threads, the recipe (its epochs are those planned), seed,
      and with halving schedule ("halving"), min_epochs, max_epochs, eta and by (left out: top1); value top1
      (percent), or of a detector ap, ap50, ap75, ap_small, ap_medium, ap_large and ar (percent; None where
      there is no such object), test_loss (mean cross-entropy of the test images in nats; None or left out:
      unknown), test_images (how many; None or left out: unknown), seconds, epochs (those trained; left out:
      as planned), dropped_at (the epoch after which halving dropped it, None or left out: never), damaged
      (images skipped; left out: none), why_damaged {path: reason}; in a sweep with a target also
      seed_target, first_seeds, max_seeds and seed_hours, as below; samples loss (one mean per epoch) and,
      side by side, tested_epochs, tested_top1 or tested_ap (percent after these epochs) and tested_loss
      (nats; None where unknown, left out in older records).
    - seeds: what ended the seeds of a variant. Protocol: its training's, without seed, and seed_target
      (percentage points), first_seeds, max_seeds, seed_hours (None: no limit) and seeds, after which it was
      decided; value ended_by ("target", "difference", "max_seeds", "hours" or "failed"), and top1_diff or
      ap_diff with its _low and _high (None: no interval).
    """

    figure: Figure
    point: DesignPoint
    protocol: Mapping[str, Any]
    status: Status = "ok"
    value: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    error: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The identity of this measurement: a hash of figure, point and protocol."""
        return record_key(self.figure, self.point, self.protocol)


def record_key(figure: Figure, point: DesignPoint, protocol: Mapping[str, Any]) -> str:
    """The key of a record of this figure, point and protocol."""
    return key_of_parts(figure, point_part(point), protocol_part(protocol))


def key_of_parts(figure: Figure, point: str, protocol: str) -> str:
    """The key of a record from the parts of its point and protocol, which many records share."""
    return hashlib.sha256(f'["{figure}",{point},{protocol}]'.encode()).hexdigest()


def point_part(point: DesignPoint) -> str:
    """The part of a key for `point`."""
    return _text(_known(point.to_dict(), DESIGN_AXES))


def protocol_part(protocol: Mapping[str, Any]) -> str:
    """The part of a key for `protocol`."""
    return _text(_known(protocol, TIMING_AXES))


def _known(values: Mapping[str, Any], axes: Mapping[str, Axis]) -> dict[str, Any]:
    """Axes added later count only if used: earlier measurements keep their keys."""
    return {
        name: value
        for name, value in values.items()
        if name not in axes or axes[name].early or value not in (None, axes[name].usual)
    }


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
