"""The training loop: one network on its way through a recipe, step by step, to be left and taken up again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wnexplore.design.protocol import Recipe
from wnexplore.errors import RunError
from wnexplore.measure.data import Pass, Split
from wnexplore.measure.determinism import generator_states, set_generator_states
from wnexplore.measure.optimizer import lr_factor, make_optimizer, set_lr
from wnexplore.measure.waiting import yield_to_others


class Training:
    """A network from (N, 3, H, W) to logits (N, classes) in training on `split`, `step` steps behind it.

    Cross-entropy with label smoothing, under `recipe`. The batch size is that of all `world` processes
    together, of which this is number `rank`; with more than one, torch.distributed is initialised and the
    gradients are averaged over them. The images of each step follow from `seed` and the number of the step
    alone: every network of a seed sees the same ones.
    """

    def __init__(
        self,
        network: nn.Module,
        split: Split,
        recipe: Recipe,
        *,
        seed: int,
        device: str,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.network = network.to(device)
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.steps_per_epoch = split.batches_per_pass(recipe.batch_size)
        self.steps = recipe.steps or (recipe.epochs or 0) * self.steps_per_epoch
        self.step = 0
        self._split, self._rank, self._world = split, rank, world
        # A run shorter than two warm-ups spends half of itself warming up.
        self._warmup = min(round(recipe.warmup_epochs * self.steps_per_epoch), self.steps // 2)
        self._optimizer = make_optimizer(self.network, recipe)
        self._scaler = torch.amp.GradScaler(device, enabled=recipe.amp == "float16")
        self._average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
            if recipe.ema is not None
            else None
        )
        self._called: nn.Module = self.network
        if world > 1:
            # Gradients of some layers come in another order of memory than their parameters.
            self._called = DistributedDataParallel(self.network)

    @property
    def tested(self) -> nn.Module:
        """What is tested and kept: the moving average of the network if the recipe has one."""
        return self.network if self._average is None else self._average.module

    @property
    def epoch(self) -> float:
        """Epochs behind it."""
        return self.step / self.steps_per_epoch

    @property
    def lr(self) -> float:
        """The learning rate of the next step, that of kernels apart."""
        return self.recipe.lr * lr_factor(self.step, self.steps, self._warmup, self.recipe.lr_schedule)

    def losses(self, until: int) -> Iterator[Tensor]:
        """Train up to step `until`, giving after each step its loss (), in nats, still on the device.

        A batch of which no image could be read gives no loss: the epoch ends as many steps early.
        """
        while self.step < until:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            last = min(until, (epoch + 1) * self.steps_per_epoch)
            batches = self._split.batches(
                self.recipe.batch_size,
                self.device,
                Pass(self.seed, epoch, start),
                rank=self._rank,
                world=self._world,
            )
            self._called.train()
            yield_to_others(at_once=True)
            batch = next(batches, None)
            while batch is not None:
                yield_to_others()
                loss = self._advance(*batch)
                after = self.step + 1
                batch = next(batches, None) if after < last else None
                # Whoever sees the last loss of an epoch sees its end, also where further batches are damaged.
                self.step = last if batch is None else after
                yield loss
            self.step = last

    def state(self) -> dict[str, Any]:
        """All that decides how it goes on but the network's own state: tensors, numbers and text alone."""
        return {
            "step": self.step,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "generators": generator_states(self.device),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; the network's own state is loaded before."""
        self.step = state["step"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        set_generator_states(state["generators"])

    def _advance(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the optimiser; the loss stays on the device, so that nothing waits for it."""
        set_lr(self._optimizer, lr_factor(self.step, self.steps, self._warmup, self.recipe.lr_schedule))
        with self._precision():
            logits = self._called(images)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        if self.recipe.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return loss.detach()

    def _precision(self) -> AbstractContextManager[Any]:
        if self.recipe.amp == "off":
            return nullcontext()
        return torch.autocast(self.device, getattr(torch, self.recipe.amp))


def check_loss(loss: float, classes: int, place: str, recipe: Recipe) -> None:
    """Raise `RunError` if `loss`, the mean in nats over the steps of `place`, shows a training that diverged.

    It did where the loss is not finite, or over ten times that of a network that takes all classes for
    equally likely.
    """
    if math.isfinite(loss) and loss <= _HOPELESS * math.log(max(classes, 2)):
        return
    raise RunError(
        f"the loss is {loss:.4g} {place}: the training diverged; a lower lr than {recipe.lr} may help"
    )


_HOPELESS = 10.0
