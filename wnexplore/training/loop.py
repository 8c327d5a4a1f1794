"""The training loop: trains one network by a recipe, step by step; can be stopped and resumed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from wnexplore.data import Batch, EpochPass, Split
from wnexplore.design.protocol import Recipe
from wnexplore.errors import InputError, RunError
from wnexplore.measure.failure import NetworkError, network_step
from wnexplore.measure.thread_waiting import yield_to_others
from wnexplore.models.detector_parts import has_parts
from wnexplore.models.trial_run import changed_parameter
from wnexplore.training.accuracy import is_too_few, run_in_training
from wnexplore.training.determinism import generator_states, set_generator_states
from wnexplore.training.network_state import SideState, Snapshot, load_network_state, network_state
from wnexplore.training.objective import loss_of
from wnexplore.training.optimizer import (
    clip_gradients,
    load_optimizer_state,
    lr_factor,
    make_optimizer,
    set_lr,
)
from wnexplore.training.weight_average import Average


class TrainingLoop:
    """The training of a network from (N, 3, H, W) to logits (N, classes), or of a detector, on `split`, after
    `step` steps.

    By `wnexplore.training.objective.loss_of`, under `recipe`. The batch size is that of all `world` processes
    together, of which this is number `rank`; with more than one, torch.distributed is initialised and the
    gradients are averaged over them. The images of each step depend only on `seed` and the step: every
    network of a seed sees the same images. `skips`: some parameters may lack a gradient in a step, which the
    processes then detect.

    Raises `InputError` if batches have one image and the network's batch normalisation needs more.
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
        skips: bool = False,
    ) -> None:
        self.network = network.to(device)
        if has_parts(network):
            # Its images are of the size that the recipe says.
            network.resizes_in_training = False  # type: ignore[assignment]
        self.recipe = recipe
        self.seed = seed
        self.device = device
        self.steps_per_epoch = split.batches_per_pass(recipe.batch_size)
        self.steps = recipe.steps or (recipe.epochs or 0) * self.steps_per_epoch
        self.step = 0
        self.skipped = 0
        """Skipped steps: damaged images left too few in the batch."""
        self._split, self._rank, self._world = split, rank, world
        # In a run shorter than two warm-ups, the warm-up is half of it.
        self._warmup = min(round(recipe.warmup_epochs * self.steps_per_epoch), self.steps // 2)
        self._milestones = [epoch * self.steps_per_epoch for epoch in recipe.milestones or ()]
        self._has_run = False
        self._make_optimizer()
        self._scaler = torch.amp.GradScaler(device, enabled=recipe.amp == "float16")
        self.average = None if recipe.ema is None else Average(self.network, recipe.ema)
        """The moving average of the weights, which is tested and saved; None if the recipe has none."""
        self.side_state = SideState(self.network)
        """The network's state that is not in its state dict."""
        if min(recipe.batch_size, len(split)) // world == 1:
            self._check_one_image()
        self._called: nn.Module = self.network
        if world > 1:
            # The gradients of some layers have another memory layout than their parameters.
            # It warns if no parameter lacked a gradient.
            warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified")
            self._called = DistributedDataParallel(self.network, find_unused_parameters=skips)

    @property
    def epoch(self) -> float:
        """Completed epochs."""
        return self.step / self.steps_per_epoch

    @property
    def lr(self) -> float:
        """The learning rate of the next step, except that of kernels."""
        return self.recipe.lr * self._lr_factor

    @property
    def _lr_factor(self) -> float:
        return lr_factor(self.step, self.steps, self._warmup, self.recipe.lr_schedule, self._milestones)

    def losses(self, until: int) -> Iterator[Tensor | None]:
        """Train up to step `until`, yielding each step's loss (), in nats, on the device.

        A step is skipped, and yields None, if damaged images left none in its batch, or only one where batch
        normalisation needs more.
        """
        while self.step < until:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            last = min(until, (epoch + 1) * self.steps_per_epoch)
            batches = self._split.batches(
                self.recipe.batch_size,
                self.device,
                EpochPass(self.seed, epoch, start, counted=True),
                rank=self._rank,
                world=self._world,
            )
            if start == 0:
                # Within an epoch, modules that put themselves into evaluation mode stay so after a stop too.
                self._called.train()
                if self.recipe.batch_norm == "frozen":
                    _freeze_statistics(self.network)
            yield_to_others(at_once=True)
            for images, targets in islice(batches, last - self.step):
                yield_to_others()
                loss = self._advance(images, targets)
                self.skipped += loss is None
                self.step += 1
                yield loss

    def state(self) -> dict[str, Any]:
        """The complete state for resuming: only tensors, numbers and text, not copied.

        Raises `InputError` as `network_state` does.
        """
        return {
            "version": STATE_VERSION,
            "network": network_state(self.network),
            "step": self.step,
            "skipped": self.skipped,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self.average is None else self.average.state(),
            "generators": generator_states(self.device),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from a `state`; raises as `load_network_state`."""
        load_network_state(self.network, state["network"], self._run_once)
        self.step, self.skipped = state["step"], state["skipped"]
        self._has_run = self._has_run or self.step > self.skipped
        load_optimizer_state(self._optimizer, state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state(state["average"])
        set_generator_states(state["generators"])

    def _advance(self, images: Any, targets: Any) -> Tensor | None:
        """One step of the optimiser; the loss stays on the device, without synchronisation."""
        if len(images) == 0:
            return None
        with network_step(f"in step {self.step + 1} of {self.steps}"):
            loss = self._gradients(images, targets)
        if loss is None:
            return None
        set_lr(self._optimizer, self._lr_factor)
        if self.recipe.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            clip_gradients(self._optimizer, self.recipe.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self.average is not None:
            self.average.update()
        return loss.detach()

    def _gradients(self, images: Any, targets: Any) -> Tensor | None:
        """The loss, and its gradients at the parameters; None as `_outputs`."""
        outputs = self._outputs(images, targets)
        if outputs is None:
            return None
        self._take_in_layers()
        loss = loss_of(outputs, targets, self.recipe)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        for parameter in self._parameters.values():
            # Embeddings may have sparse ones, for which optimisers have less than for dense ones.
            if parameter.grad is not None and parameter.grad.layout != torch.strided:
                parameter.grad = parameter.grad.to_dense()
        return loss

    def _outputs(self, images: Any, targets: Any) -> Any:
        """Logits (N, classes), or a detector's losses; None, without a trace, if one image is too few."""
        before = Snapshot(self.network) if len(images) == 1 and not self._is_unmade() else None
        generators = generator_states(self.device) if before is not None else {}
        try:
            with self._precision():
                # A detector's losses are computed in it.
                return self._called(images, targets) if has_parts(self.network) else self._called(images)
        except ValueError as error:
            if before is None or not is_too_few(error):
                raise
        if self._world > 1:
            # The other processes would wait for its gradients.
            raise RunError(
                f"damaged images left one in a batch of process {self._rank}: batch normalisation needs more"
            )
        before.put_back()
        set_generator_states(generators)
        return None

    def _check_one_image(self) -> None:
        batch = next(self._batches_to_try(), None)
        if batch is None or self._is_unmade():
            return
        images, targets = batch
        before, generators = Snapshot(self.network), generator_states(self.device)
        self.network.train()
        try:
            with torch.no_grad(), self._precision():
                run_in_training(self.network, images[:1], targets[:1])
        except ValueError as error:
            if not is_too_few(error):
                raise
            raise InputError(
                f"batch_size {self.recipe.batch_size} gives batches of one image, and batch normalisation in"
                f" this network needs two: expected a batch_size of {2 * self._world} or more, and as many"
                " images"
            ) from None
        finally:
            before.put_back()
            set_generator_states(generators)

    def _batches_to_try(self) -> Iterator[Batch]:
        return self._split.batches(
            self.recipe.batch_size, self.device, EpochPass(self.seed, 0), rank=self._rank, world=self._world
        )

    def _run_once(self) -> None:
        """Run the network once, since it may create layers or buffers in its first forward pass."""
        generators = generator_states(self.device)
        batch = next(self._batches_to_try(), None)
        self.network.train()
        if batch is not None:
            with torch.no_grad(), self._precision():
                run_in_training(self.network, *batch)
            self._take_in_layers()
        set_generator_states(generators)

    def _is_unmade(self) -> bool:
        """Whether a lazy layer is uninitialised."""
        return any(is_lazy(tensor) for tensor in (*self.network.parameters(), *self.network.buffers()))

    def _take_in_layers(self) -> None:
        """Add parameters created in the first forward pass to the optimiser.

        Raises `NetworkError` if a later pass creates others: the optimiser would not have them, and a stopped
        training could not be resumed.
        """
        if self._has_run:
            changed = changed_parameter(self._parameters, self.network)
            if changed is not None:
                raise NetworkError(
                    f"the network {changed} in step {self.step + 1} of {self.steps}, after its first pass in"
                    " training: expected the same parameters from then on, as others would not be trained"
                )
            return
        self._has_run = True
        if changed_parameter(self._parameters, self.network) is not None:
            self._make_optimizer()

    def _make_optimizer(self) -> None:
        self._optimizer = make_optimizer(self.network, self.recipe)
        named = self.network.named_parameters()
        self._parameters = {name: parameter for name, parameter in named if not is_lazy(parameter)}

    def _precision(self) -> AbstractContextManager[Any]:
        if self.recipe.amp == "off":
            return nullcontext()
        return torch.autocast(self.device, getattr(torch, self.recipe.amp))


def _freeze_statistics(network: nn.Module) -> None:
    """Let batch normalisations use their running statistics, and keep them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def check_loss(loss: float, hopeless: float, place: str, recipe: Recipe) -> None:
    """Raise `RunError` if `loss`, the mean in nats over the steps of `place`, shows that training diverged.

    That is a loss that is not finite, or over the `hopeless` one.
    """
    if math.isfinite(loss) and loss <= hopeless:
        return
    raise diverged(f"the loss is {loss:.4g} {place}", recipe)


def diverged(what: str, recipe: Recipe) -> RunError:
    """The error of a training that diverged, shown by `what`."""
    return RunError(f"{what}: the training diverged; a lower lr than {recipe.lr} may help")


def check_trained(losses: int, skipped: int, split: Split) -> None:
    """Raise `RunError` if all steps of an epoch were skipped."""
    if losses:
        return
    if split.damaged:
        raise RunError(
            f"none of {skipped} batches could be trained on: {len(split.damaged)} images can't be read,"
            f" such as {split.damaged[0]}"
        )
    raise RunError(f"none of {skipped} batches could be trained on: they have too few images")


STATE_VERSION = 2
"""Version of the format of `TrainingLoop.state`."""
