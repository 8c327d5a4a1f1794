"""Trainings short enough for tests."""

from collections.abc import Callable

from torch import nn

from wnexplore.data import Data
from wnexplore.design.protocol import Recipe
from wnexplore.training.trainer import Callbacks, Trainer
from wnexplore.training.training_record import TrainingFigure


def train(
    make_model: Callable[[], nn.Module],
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    device: str,
    callbacks: Callbacks | None = None,
) -> TrainingFigure:
    """What a training through the whole of `recipe` gives."""
    trainer = Trainer(make_model, data, recipe, seed=seed, device=device)
    trainer.advance(trainer.epochs, callbacks)
    return trainer.figure
