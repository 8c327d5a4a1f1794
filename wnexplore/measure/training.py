"""Top-1 accuracy of a network after one short training, the same numbers for the same seed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wnexplore.design.protocol import Recipe
from wnexplore.errors import RunError
from wnexplore.measure.data import Data, Pass, Split


@dataclass(frozen=True)
class TrainingFigure:
    """What one training gave."""

    top1: float
    """Share of the test images whose class came first, in percent."""
    losses: list[float]
    """Mean training loss of each epoch, in nats."""
    seconds: float
    """Wall-clock time of the epochs, building and testing the network apart."""


def train(
    make_model: Callable[[], nn.Module],
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingFigure:
    """Build a network, train it on `data.train` and test it on the whole of `data.test`.

    `make_model` gives a network from (N, 3, resolution, resolution) to logits (N, num_classes).
    Cross-entropy with label smoothing, SGD with Nesterov momentum, `lr_factor`'s schedule a step;
    before the test `refresh_batch_norm`, without which a training of few steps is tested with
    statistics of the network it was, not the one it is (ShuffleNetV2 0.5x, digits of 16 pixels,
    batches of 32, mean of 3 seeds: 23 % instead of 85 % after one epoch, no difference after three).
    The same seed on the same machine, with as many threads, gives the same numbers to the last bit,
    and the same order and augmentation of the images for every network; torch's generators and
    switches are afterwards as they were before. On a GPU an operation that has no deterministic form
    makes torch warn.

    `progress` is called after each step with the steps done and the steps in all. Raises `RunError`
    naming the epoch if the loss is not finite.
    """
    with _reproducible(seed, device):
        model = make_model().to(device)
        began = perf_counter()
        losses = _epochs(model, data.train, recipe, seed, device, progress)
        seconds = perf_counter() - began
        refresh_batch_norm(model, data.train, recipe.batch_size, device, Pass(seed, recipe.epochs))
        return TrainingFigure(top1(model, data.test, recipe.batch_size, device), losses, seconds)


def top1(model: nn.Module, split: Split, batch_size: int, device: str) -> float:
    """Top-1 accuracy of `model`, put in evaluation mode, in percent of the images read of `split`."""
    model.eval()
    read = 0
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with torch.inference_mode():
        for images, labels in split.batches(batch_size, device):
            correct += (model(images).argmax(dim=1) == labels).sum()
            read += len(labels)
    return 100 * correct.item() / read


def refresh_batch_norm(model: nn.Module, split: Split, batch_size: int, device: str, training: Pass) -> None:
    """Set the running statistics of batch normalisation to their mean over batches of a training pass.

    The batches hold at least 512 images or all of `split`; the weights stay as they are. "Precise
    BN" of Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average of all batches
    model.train()
    batches = split.batches(batch_size, device, training)
    with torch.no_grad():
        for images, _ in islice(batches, math.ceil(_REFRESH_IMAGES / batch_size)):
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


_REFRESH_IMAGES = 512


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """What the learning rate is multiplied by in step 0, 1, ..., steps - 1.

    It rises linearly to 1 over `warmup` steps, then falls to 0 along half a cosine (Loshchilov and
    Hutter, ICLR 2017, without restarts).
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters of `model` for an optimiser: kernels, other matrices, and biases and norms.

    Kernels and what they are generated from have a peak learning rate `recipe.kernel_lr` times that
    of the rest; biases and norms (one dimension) have no weight decay.
    """
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    groups: dict[str, list[nn.Parameter]] = {"kernels": [], "matrices": [], "vectors": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = "matrices" if id(parameter) in linear else "kernels"
            groups["vectors" if parameter.ndim <= 1 else kind].append(parameter)
    factor = {"kernels": recipe.kernel_lr}
    return [
        {
            "params": parameters,
            "peak_lr": recipe.lr * factor.get(kind, 1.0),
            "weight_decay": 0.0 if kind == "vectors" else recipe.weight_decay,
        }
        for kind, parameters in groups.items()
    ]


def _epochs(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    seed: int,
    device: str,
    progress: Callable[[int, int], None] | None,
) -> list[float]:
    optimizer = torch.optim.SGD(
        parameter_groups(model, recipe),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
    per_epoch = split.batches_per_pass(recipe.batch_size)
    steps = recipe.epochs * per_epoch
    # A run shorter than two warm-ups spends half of itself warming up.
    warmup = min(round(recipe.warmup_epochs * per_epoch), steps // 2)
    model.train()
    step = 0
    losses = []
    for epoch in range(1, recipe.epochs + 1):
        total = torch.zeros((), device=device)
        for images, labels in split.batches(recipe.batch_size, device, Pass(seed, epoch - 1)):
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * lr_factor(step, steps, warmup)
            total += _step(model, optimizer, images, labels, recipe.label_smoothing)
            step += 1
            if progress is not None:
                progress(step, steps)
        losses.append(total.item() / per_epoch)
        if not math.isfinite(losses[-1]):
            raise RunError(
                f"the loss is {losses[-1]} in epoch {epoch} of {recipe.epochs} (seed {seed}): "
                f"the training diverged; a lower lr than {recipe.lr} may help"
            )
    return losses


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, smoothing: float
) -> Tensor:
    """One step of the optimiser; the loss stays on the device, so that nothing waits for it."""
    loss = functional.cross_entropy(model(images), labels, label_smoothing=smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


@contextmanager
def _reproducible(seed: int, device: str) -> Iterator[None]:
    """Seeded generators and deterministic algorithms inside, everything as it was outside."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    enabled = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if device == "cuda":
        # cuBLAS reads it once, when it is first used, and torch asks for it in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # All GPUs, also for a training on the CPU: torch.manual_seed seeds every one of them.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            torch.manual_seed(seed)
            torch.use_deterministic_algorithms(True, warn_only=True)
            cudnn.deterministic, cudnn.benchmark = True, False
            # Deterministic mode would write to every tensor twice; nothing here reads unwritten memory.
            memory.fill_uninitialized_memory = False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
            memory.fill_uninitialized_memory = fill
