"""A short training: what a network has learnt after each epoch, the same numbers for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import nn

from wnexplore.data import Data
from wnexplore.design.protocol import Recipe
from wnexplore.training.determinism import generator_states, reproducible, set_generator_states
from wnexplore.training.loop import Training, check_loss, check_trained
from wnexplore.training.testing import evaluate, ready_for_test


@dataclass
class TrainingFigure:
    """What one training has given so far."""

    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch, in nats."""
    tested_epochs: list[int] = field(default_factory=list)
    tested_top1: list[float] = field(default_factory=list)
    """Share of the test images whose class came first after those epochs, in percent."""
    seconds: float = 0.0
    """Wall-clock time of the epochs, building and testing the network apart."""
    damaged: tuple[str, ...] = ()
    """Paths of images that couldn't be read."""
    skipped: int = 0
    """Steps without training: damaged images left too few in their batch."""

    @property
    def top1(self) -> float:
        """The last of `tested_top1`."""
        return self.tested_top1[-1]


def train(
    make_model: Callable[[], nn.Module],
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingFigure:
    """Build a network, train it on `data.train` through the whole of `recipe`, and test it on `data.test`.

    As `ShortTraining.advance`, from the first to the last epoch.
    """
    training = ShortTraining(make_model, data, recipe, seed=seed, device=device)
    training.advance(training.epochs, progress)
    return training.figure


class ShortTraining:
    """A network from (N, 3, resolution, resolution) to logits (N, num_classes) on its way through `recipe`.

    It is built by `make_model` when it is first trained. The same seed on the same machine, with as many
    threads, gives the same numbers to the last bit, and the same order and augmentation of the images for
    every network; torch's generators and switches are after each call as they were before. On a GPU an
    operation that has no deterministic form makes torch warn.
    """

    def __init__(
        self, make_model: Callable[[], nn.Module], data: Data, recipe: Recipe, *, seed: int, device: str
    ) -> None:
        self.figure = TrainingFigure()
        self._data, self._recipe, self._seed, self._device = data, recipe, seed, device
        with reproducible(seed, device):
            self._training = Training(make_model(), data.train, recipe, seed=seed, device=device)
            self._generators = generator_states(device)

    @property
    def epochs(self) -> int:
        """Epochs in all, the last of which may be cut short by `Recipe.steps`."""
        return math.ceil(self._training.steps / self._training.steps_per_epoch)

    def advance(self, epochs: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Train until `epochs` epochs are behind it, and test it after each.

        A test (`ready_for_test`) does not touch the training. Without refreshed statistics of batch
        normalisation a training of few steps is tested with those of the network it was, not the one it
        is (ShuffleNetV2 0.5x, digits of 16 pixels, batches of 32, mean of 3 seeds: 23 % instead of 85 %
        after one epoch, no difference after three).

        `progress` is called after each step with the steps done and the steps in all. Raises `RunError`
        naming the epoch if the training diverges.
        """
        with reproducible(self._seed, self._device):
            set_generator_states(self._generators)
            while len(self.figure.losses) < min(epochs, self.epochs):
                self._one_epoch(progress)
                self._test()
            self._generators = generator_states(self._device)
        self.figure.skipped = self._training.skipped
        seen = (*self.figure.damaged, *self._data.train.damaged, *self._data.test.damaged)
        self.figure.damaged = tuple(dict.fromkeys(seen))

    def state(self) -> dict[str, Any]:
        """What `load_state` takes, in this process or another: tensors, numbers and text alone.

        Raises `InputError` as `Training.state`.
        """
        training = self._training.state() | {"generators": self._generators}
        return {"training": training, "figure": asdict(self.figure)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, of a training of the same network, data, recipe and seed.

        Raises as `Training.load_state`; then this is not to be used.
        """
        self.figure, self._generators = TrainingFigure(**state["figure"]), state["training"]["generators"]
        with reproducible(self._seed, self._device):
            self._training.load_state(state["training"])

    def _one_epoch(self, progress: Callable[[int, int], None] | None) -> None:
        training = self._training
        began = perf_counter()
        total, count, skipped = torch.zeros((), device=self._device), 0, training.skipped
        until = min(training.step + training.steps_per_epoch, training.steps)
        for loss in training.losses(until):
            if loss is not None:
                total += loss
                count += 1
            if progress is not None:
                progress(training.step, training.steps)
        check_trained(count, training.skipped - skipped, self._data.train)
        mean = total.item() / count
        self.figure.seconds += perf_counter() - began
        self.figure.losses.append(mean)
        place = f"in epoch {len(self.figure.losses)} of {self.epochs} (seed {self._seed})"
        check_loss(mean, self._data.num_classes, place, self._recipe)

    def _test(self) -> None:
        training, data, recipe = self._training, self._data, self._recipe
        network, average = training.network, training.average
        with ready_for_test(
            network, data.train, recipe, seed=self._seed, device=self._device, average=average
        ):
            found = evaluate(network, data.test, recipe.batch_size, self._device)
        self.figure.tested_epochs.append(len(self.figure.losses))
        self.figure.tested_top1.append(found.top1)
