"""The trainer: trains one network by a recipe and tests it after epochs; can be stopped and resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.data import Data
from wnexplore.design.protocol import Recipe
from wnexplore.training.accuracy import Evaluation, StoppedError, ready_for_test
from wnexplore.training.average_precision import DetectionEvaluation
from wnexplore.training.determinism import generator_states, reproducible, set_generator_states
from wnexplore.training.distributed import Processes
from wnexplore.training.log import Row
from wnexplore.training.loop import TrainingLoop, check_loss, check_trained, diverged
from wnexplore.training.network_state import Snapshot
from wnexplore.training.objective import evaluation_of, hopeless_loss
from wnexplore.training.training_record import TrainingFigure


class Callbacks:
    """Hooks of a training, called in each of its processes; by default they do nothing."""

    def on_step(self, step: int, steps: int) -> None:
        """After each step: `step` of `steps` are done."""

    def on_row(self, row: Row) -> None:
        """After the steps of a row and its test, if there is one."""

    def on_test(self) -> None:
        """After a test, while the network still has the tested weights and statistics."""

    def on_end(self) -> None:
        """After the last step of `Trainer.advance`, unless it was stopped."""

    def save(self, weights: bool) -> None:
        """Save `Trainer.state` and, with `weights`, the network inside `Trainer.ready_for_test`."""

    def stop(self) -> bool:
        """Whether to save and stop after this step, or at once in a test, which is repeated later."""
        return False


class Trainer:
    """Trains a network from (N, 3, resolution, resolution) to logits (N, num_classes), or a detector, by
    `recipe`.

    `make_model` builds it. The same seed on the same machine, with as many threads and processes, gives
    bit-identical results, and the same order and augmentation of the images for every network; torch's
    generators and switches are restored after each call. On a GPU torch warns about operations without a
    deterministic implementation.

    There is a log row at the end of each epoch and every `log_every` steps, if given; a test every
    `test_every` epochs and after the last one; a save after each test and every `save_every` steps, if given.
    All `processes` share each batch; `skips`: some parameters may lack a gradient in a step.
    """

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        data: Data,
        recipe: Recipe,
        *,
        seed: int,
        device: str,
        log_every: int | None = None,
        save_every: int | None = None,
        test_every: int = 1,
        processes: Processes | None = None,
        skips: Callable[[nn.Module], bool] = lambda network: False,
    ) -> None:
        self.figure = TrainingFigure()
        self._data, self._recipe, self._seed, self._device = data, recipe, seed, device
        self._log_every, self._save_every, self._test_every = log_every, save_every or math.inf, test_every
        self._processes = processes or Processes()
        with reproducible(seed, device):
            network = make_model()
            self.training = TrainingLoop(
                network,
                data.train,
                recipe,
                seed=seed,
                device=device,
                rank=self._processes.rank,
                world=self._processes.world,
                skips=skips(network),
            )
            self._generators = generator_states(device)
        self._window, self._epoch = _Losses(device), _Losses(device)
        """Losses since the last row, and of the epoch so far."""
        self._pending: dict[str, float] | None = None
        """Loss and speed of the row pending its epoch's test."""
        self._damaged_before: tuple[list[str], dict[str, str]] = [], {}
        self._row_step = self._saved_step = 0
        """The steps of the last row and of the last save in this process, or of its start."""
        self._began = 0.0
        """Start time of the steps since the last row, adjusted for tests and saves."""

    @property
    def epochs(self) -> int:
        """Number of epochs, the last of which may be cut short by `Recipe.steps`."""
        return math.ceil(self.training.steps / self.training.steps_per_epoch)

    @property
    def finished(self) -> bool:
        """Whether it completed the recipe and its tests."""
        return self.training.step == self.training.steps and self._pending is None

    def advance(self, epochs: int, callbacks: Callbacks | None = None) -> None:
        """Train and test up to the end of epoch `epochs` (from 1), or until `callbacks` stops it.

        A test (`ready_for_test`) doesn't affect the training. Without refreshed batch-normalisation
        statistics, a training of few steps is tested with outdated ones (ShuffleNetV2 0.5x, digits of 16
        pixels, batches of 32, mean of 3 seeds: 23 % instead of 85 % after one epoch, no difference after
        three).

        Raises `RunError` naming the epoch or the step if the training diverges; that includes outputs of the
        last test that are not finite. All processes call this.
        """
        training, around = self.training, callbacks or Callbacks()
        with reproducible(self._seed, self._device):
            set_generator_states(self._generators)
            ended = self._train(min(epochs * training.steps_per_epoch, training.steps), around)
            self._generators = generator_states(self._device)
            if ended:
                around.on_end()
        damaged, why = self._damaged()
        self.figure.skipped = training.skipped
        self.figure.damaged, self.figure.why_damaged = tuple(damaged), why

    def state(self) -> dict[str, Any]:
        """The state for `load_state`, in this process or another: tensors, numbers and text, not copied.

        All processes call this, after `advance` or inside `Callbacks.save`. Raises `InputError` as
        `TrainingLoop.state`.
        """
        figure, training = self.figure, self.training.state()
        del training["generators"]
        damaged, why = self._damaged()
        return {
            "training": training,
            "generators": self._processes.gather(self._generators),
            "sum": self._window.sum,
            "count": self._window.count,
            "epoch_sum": self._epoch.sum,
            "epoch_count": self._epoch.count,
            "seconds": figure.seconds,
            "test_images": figure.test_images,
            "curves": {
                "loss": figure.losses,
                "tested_epochs": figure.tested_epochs,
                # Its name in states of earlier versions; of a detector average precision.
                "tested_top1": figure.tested_scores,
                "tested_loss": figure.tested_loss,
            },
            "best": figure.best,
            "figures": figure.figures,
            "untold": self._pending,
            "damaged": damaged,
            "why_damaged": why,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Resume from the `state` of a training of the same network, data, recipe, seed and processes.

        Raises as `TrainingLoop.load_state`, and any error of a damaged state; the trainer is then unusable.
        """
        if "figure" in state:
            state = _as_now(state)
        self._generators = state["generators"][self._processes.rank]
        with reproducible(self._seed, self._device):
            self.training.load_state(state["training"] | {"generators": self._generators})
        self._window = _Losses(self._device, state["sum"], state["count"])
        self._epoch = _Losses(self._device, state["epoch_sum"], state["epoch_count"])
        curves, self._pending = state["curves"], state["untold"]
        self._damaged_before = list(state["damaged"]), dict(state.get("why_damaged", {}))
        self.figure = TrainingFigure(
            losses=list(curves["loss"]),
            tested_epochs=list(curves["tested_epochs"]),
            tested_scores=list(curves["tested_top1"]),
            figures=dict(state.get("figures", {})),
            # Older states have none: their tests' losses are unknown.
            tested_loss=list(curves.get("tested_loss", [None] * len(curves["tested_epochs"]))),
            test_images=state.get("test_images"),
            seconds=state["seconds"],
            damaged=tuple(self._damaged_before[0]),
            why_damaged=self._damaged_before[1],
            skipped=self.training.skipped,
        )

    def ready_for_test(self, stop: Callable[[], bool]) -> AbstractContextManager[bool]:
        """The network in the state that is tested and saved: `wnexplore.training.accuracy.ready_for_test`.

        For callbacks: the generators must be in the state of the training.
        """
        return ready_for_test(
            self.training.network,
            self._data.train,
            self._recipe,
            seed=self._seed,
            device=self._device,
            world=self._processes.world,
            average=self.training.average,
            stop=stop,
        )

    def _train(self, until: int, callbacks: Callbacks) -> bool:
        """Train up to step `until`, where an epoch ends; False if it was stopped."""
        training = self.training
        # First repeat a stopped test.
        if self._pending is not None and not self._report(callbacks, tested=True):
            return False
        self._row_step, self._began, self._saved_step = training.step, perf_counter(), training.step
        while training.step < until:
            end = min((training.step // training.steps_per_epoch + 1) * training.steps_per_epoch, until)
            for loss in training.losses(end):
                if loss is not None:
                    self._window.add(loss)
                    self._epoch.add(loss)
                callbacks.on_step(training.step, training.steps)
                if training.step < end and not self._after_step(callbacks):
                    return False
            # Outside the loop: the workers that read the epoch's images have ended.
            if not self._after_step(callbacks, ends_epoch=True):
                return False
        return True

    def _after_step(self, callbacks: Callbacks, *, ends_epoch: bool = False) -> bool:
        """Row, test and save, if due after a step; False to stop the training."""
        step, processes = self.training.step, self._processes
        # Several processes stop together at a row, where they exchange losses anyway.
        stop = processes.world == 1 and callbacks.stop()
        if ends_epoch or (self._log_every and step % self._log_every == 0 and self._window.count):
            self._measure(ends_epoch)
            tested = step == self.training.steps or len(self.figure.losses) % self._test_every == 0
            if not self._report(callbacks, tested=ends_epoch and tested):
                return False
            stop = processes.any(callbacks.stop(), self._device)
            self._row_step, self._began = step, perf_counter()
        if step > self._saved_step and (stop or step - self._saved_step >= self._save_every):
            self._save(callbacks)
        return not stop

    def _measure(self, ends_epoch: bool) -> None:
        """Record loss and speed since the last row, and the loss of an epoch that ends."""
        training, processes = self.training, self._processes
        steps_of_epoch = (training.step - 1) % training.steps_per_epoch + 1
        check_trained(self._epoch.count, steps_of_epoch - self._epoch.count, self._data.train)
        # The epoch's, if all steps since the last row were skipped.
        loss = (self._window if self._window.count else self._epoch).mean(processes)
        passed = perf_counter() - self._began
        self.figure.seconds += passed
        if self._log_every is None:
            place = f"in epoch {len(self.figure.losses) + 1} of {self.epochs}"
        else:
            place = f"before step {training.step} of {training.steps}"
        hopeless = hopeless_loss(training.network, self._data.num_classes)
        check_loss(loss, hopeless, f"{place} (seed {self._seed})", self._recipe)
        rate = (training.step - self._row_step) * self._recipe.batch_size / passed
        self._pending = {"loss": loss, "rate": rate}
        self._window = _Losses(self._device)
        if ends_epoch:
            self.figure.losses.append(self._epoch.mean(processes))
            self._epoch = _Losses(self._device)

    def _report(self, callbacks: Callbacks, *, tested: bool) -> bool:
        """Test if the row is `tested`, and report the row; False if the test was stopped."""
        training, found = self.training, self._pending
        assert found is not None
        figures: dict[str, float | None] = {}
        if tested:
            try:
                evaluation = self._test(callbacks)
            except StoppedError:
                self._save(callbacks, weights=False)
                return False
            loss = self.figure.test_loss
            figures = {"test_loss": loss, **evaluation.logged}
        self._pending = None
        callbacks.on_row(
            Row(
                training.step,
                training.epoch,
                training.lr,
                found["loss"],
                found["rate"],
                self.figure.seconds,
                **figures,
            )
        )
        if tested:
            self._save(callbacks)
        return True

    def _test(self, callbacks: Callbacks) -> Evaluation | DetectionEvaluation:
        network, processes, figure = self.training.network, self._processes, self.figure
        with self.ready_for_test(callbacks.stop):
            before = Snapshot(network)
            found = evaluation_of(
                network,
                self._data.test,
                self._recipe.batch_size,
                self._device,
                rank=processes.rank,
                world=processes.world,
                stop=callbacks.stop,
            )
            before.put_back()
            finite, epoch = found.loss is None or math.isfinite(found.loss), len(figure.losses)
            # Earlier ones may recover, such as by better statistics of batch normalisation.
            if not finite and self.training.step == self.training.steps:
                place = f"after epoch {epoch} of {self.epochs} (seed {self._seed})"
                raise diverged(f"the test loss is {found.loss:.4g} {place}", self._recipe)
            figure.test_images = found.images
            figure.tested_epochs.append(epoch)
            figure.tested_scores.append(found.score)
            figure.figures = found.figures
            figure.tested_loss.append(found.loss if finite else None)
            callbacks.on_test()
        return found

    def _save(self, callbacks: Callbacks, *, weights: bool = True) -> None:
        began = perf_counter()
        self._generators = generator_states(self._device)
        callbacks.save(weights)
        self._saved_step = self.training.step
        self._began += perf_counter() - began

    def _damaged(self) -> tuple[list[str], dict[str, str]]:
        """Unreadable images of all processes and the reasons; all processes call this."""
        splits = (self._data.train, self._data.test)
        damaged = [path for split in splits for path in split.damaged]
        why = {path: reason for split in splits for path, reason in split.why_damaged.items()}
        paths, reasons = zip(self._damaged_before, *self._processes.gather((damaged, why)), strict=True)
        return list(dict.fromkeys(chain(*paths))), dict(chain(*(some.items() for some in reasons)))


class _Losses:
    """The sum of losses (), in nats, on `device`, without synchronisation."""

    def __init__(self, device: str, total: Tensor | None = None, count: int = 0) -> None:
        self.sum = torch.zeros((), device=device) if total is None else total.to(device, copy=True)
        self.count = count

    def add(self, loss: Tensor) -> None:
        self.sum += loss
        self.count += 1

    def mean(self, processes: Processes) -> float:
        """The mean over all processes, which all call this."""
        return processes.mean(self.sum) / self.count


def _as_now(state: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a state in the older format of halving's files."""
    figure, training = state["figure"], state["training"]
    nothing = {name: torch.zeros(()) for name in ("sum", "epoch_sum")} | {"count": 0, "epoch_count": 0}
    curves = {"loss": figure["losses"], **{name: figure[name] for name in ("tested_epochs", "tested_top1")}}
    return {
        "training": training,
        "generators": [training["generators"]],
        **nothing,
        "seconds": figure["seconds"],
        "curves": curves,
        "untold": None,
        "damaged": figure["damaged"],
    }
