"""The time in which a detector's boxes are decoded and chosen, apart from its network's."""

from __future__ import annotations

import time

import torch

from wnexplore.design.latency_protocol import LatencyProtocol
from wnexplore.design.point import DesignPoint
from wnexplore.measure.rounds import warm_up
from wnexplore.measure.statistics import bootstrap_interval
from wnexplore.measure.stopwatch import before_sample, sampler
from wnexplore.measure.torch_settings import threads_set
from wnexplore.models.detector import Detector
from wnexplore.results.intervals import MedianInterval


def measure_post_processing(
    detector: Detector, point: DesignPoint, protocol: LatencyProtocol
) -> MedianInterval:
    """Milliseconds of one batch, with a 95 % interval, where every anchor's scores are random.

    Then each level has as many candidates as it may have, of which images with objects have fewer: it is
    about the most that it takes. Float32, warm caches.
    """
    device, images = protocol.device, protocol.batch_size
    size = (point.resolution, point.resolution)
    detector.to(device).eval()
    with torch.inference_mode(), threads_set(protocol.threads):
        shape = detector(torch.zeros(1, 3, *size, device=device)).shape[1:]
        dice = torch.Generator().manual_seed(0)
        # The same for each image, in the memory of one.
        outputs = torch.randn(1, *shape, generator=dice).to(device).expand(images, -1, -1)

        def step() -> object:
            return detector.boxes(outputs, size)

        sample = sampler(step, device, before_sample(step, device, "warm"))
        warm_up(sample, protocol.seconds / 4)
        samples: list[float] = []
        began = time.perf_counter()
        while len(samples) < _LEAST or time.perf_counter() - began < protocol.seconds:
            samples.append(sample())
    return bootstrap_interval(samples)


_LEAST = 10
"""Fewest samples."""
