"""What a network is trained for, and how it is tested: by whether it classifies or detects."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wnexplore.data import Split
from wnexplore.data.detection import DetectionSplit
from wnexplore.design.protocol import Recipe
from wnexplore.models.detector_parts import has_parts
from wnexplore.training.accuracy import Evaluation, evaluate
from wnexplore.training.average_precision import DetectionEvaluation, evaluate_detector


def loss_of(outputs: Any, targets: Any, recipe: Recipe) -> Tensor:
    """The loss () of a batch, in nats: cross-entropy with label smoothing of logits (N, classes), or the sum
    of a detector's losses, a dict."""
    if isinstance(outputs, dict):
        return torch.stack(list(outputs.values())).sum()
    return functional.cross_entropy(outputs.float(), targets, label_smoothing=recipe.label_smoothing)


def hopeless_loss(network: nn.Module, classes: int) -> float:
    """The mean loss above which a training has diverged: many times that of guessing."""
    # A detector's is about 2 at the start.
    return 50.0 if has_parts(network) else 10.0 * math.log(max(classes, 2))


def evaluation_of(
    network: nn.Module,
    split: Split,
    batch_size: int,
    device: str,
    *,
    rank: int = 0,
    world: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | DetectionEvaluation:
    """`evaluate` for a network that classifies, `evaluate_detector` for a detector."""
    if has_parts(network):
        assert isinstance(split, DetectionSplit)
        return evaluate_detector(network, split, batch_size, device, rank=rank, world=world, stop=stop)
    return evaluate(network, split, batch_size, device, rank=rank, world=world, stop=stop)
