"""The options of trainings, made from one table for `train`, `sweep` and `search`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wnexplore.cli.axes import Command, make_option, one_of, with_options
from wnexplore.cli.options import comma_list
from wnexplore.design.start import INITS

if TYPE_CHECKING:
    from wnexplore.design.sweep_file import Overrides


@dataclass(frozen=True)
class TrainingOption:
    """The option of a field of `TrainSpec`; its value is checked with the sweep file's."""

    said: str
    names: tuple[str, ...] = ()
    """What is completed; all values of a field with names."""
    field: str = ""
    """The field, if it has another name."""
    switch: bool = False
    """--name and --no-name."""
    listed: bool = False
    """Several values, with commas."""


RECIPE_OPTIONS: dict[str, TrainingOption] = {
    "steps": TrainingOption("Steps, instead of epochs."),
    "init": TrainingOption("Starting weights: default, or published, the WeightNet authors'.", INITS),
    "batch_size": TrainingOption("Images per step, over all processes."),
    "optimizer": TrainingOption("sgd or adamw.", ("sgd", "adamw")),
    "lr": TrainingOption("Peak learning rate."),
    "kernel_lr": TrainingOption("Factor of the learning rate for kernels."),
    "lr_parity": TrainingOption("Whether generated kernels learn as fast as ordinary ones.", switch=True),
    "lr_schedule": TrainingOption("cosine, linear, or step: see milestones.", ("cosine", "linear", "step")),
    "milestones": TrainingOption("Epochs after which the rate falls to a tenth: 8,11.", listed=True),
    "warmup_epochs": TrainingOption("Epochs of warm-up."),
    "weight_decay": TrainingOption("Weight decay, except for biases and norms."),
    "label_smoothing": TrainingOption("Label smoothing."),
    "clip_grad_norm": TrainingOption("Largest norm of the gradients."),
    "ema": TrainingOption("Decay of a moving average of the weights: 0.9999."),
    "scales": TrainingOption("Shorter sides of images for detection, one a batch: 640,800.", listed=True),
    "start_from": TrainingOption("Checkpoint with which a detector's backbone starts."),
    "batch_norm": TrainingOption(
        "Statistics of tests: refreshed, running or frozen.", ("refreshed", "running", "frozen")
    ),
    "amp": TrainingOption("off, bfloat16 or float16.", ("off", "bfloat16", "float16")),
}
"""Of one training. Its length in epochs is an option of each command."""

SCHEDULE_OPTIONS: dict[str, TrainingOption] = {
    "schedule": TrainingOption("full, or halving: successive halving.", ("full", "halving")),
    "min_epochs": TrainingOption("Epochs before halving first drops variants."),
    "max_epochs": TrainingOption("Epochs of what halving never drops."),
    "eta": TrainingOption("Halving keeps about one in so many."),
    "by": TrainingOption("What halving ranks by: top1, test_loss or ap.", ("top1", "test_loss", "ap")),
    "test_every": TrainingOption("Epochs between two tests."),
    "train_target": TrainingOption(
        "Add seeds until differences in top-1 or AP are known to so many points.", (), "target"
    ),
    "max_seeds": TrainingOption("Most seeds of a network, with --train-target."),
    "hours": TrainingOption("Hours of training after which no seed is added, with --train-target."),
}
"""Of which trainings a sweep makes."""

_OF_LATENCY = ("batch_size",)
"""Options of a sweep that are a latency's."""

HALVING = ("min_epochs", "max_epochs", "eta", "by")
"""Fields of halving alone."""

Places = dict[str, tuple[str, ...]]

RECIPE_PLACES: Places = {
    name: ("train", option.field or name)
    for name, option in RECIPE_OPTIONS.items()
    if name not in _OF_LATENCY
}
"""Option of a sweep or search -> the path in the sweep file that it sets."""

SCHEDULE_PLACES: Places = {name: ("train", option.field or name) for name, option in SCHEDULE_OPTIONS.items()}
"""The same of a sweep alone."""


def training_options(*, after: str, only: Collection[str]) -> Callable[[Command], Command]:
    """The options `only`, put behind the command's parameter `after`; they have no defaults.

    The command reads them from its `context.params`.
    """
    made: list[inspect.Parameter] = []
    for name, option in (RECIPE_OPTIONS | SCHEDULE_OPTIONS).items():
        if name in only:
            kind: Any = bool if option.switch else str
            complete = one_of(option.names) if option.names else None
            made.append(make_option(name, kind | None, option.said, complete, None, negated=option.switch))
    return with_options(made, after)


def with_replaced(overrides: Overrides) -> Overrides:
    """`overrides` of a sweep file, and without its fields that don't go with them.

    One length replaces the other one, halving both, and the full schedule what is halving's. Values with
    commas become lists.
    """
    given = {path[1]: option for path, (option, _) in overrides.items() if path[0] == "train" and path[1:]}
    unset: dict[str, str] = {}
    for name, others in (("epochs", ["steps"]), ("steps", ["epochs"])):
        if name in given:
            unset |= dict.fromkeys(others, given[name])
    match overrides.get(("train", "schedule")):
        case (option, "halving"):
            unset |= dict.fromkeys(("epochs", "steps"), option)
        case (option, "full"):
            unset |= dict.fromkeys(HALVING, option)
    left_out: dict[tuple[str, ...], tuple[str, Any]]
    left_out = {("train", name): (option, None) for name, option in unset.items() if name not in given}
    # First: what is given for all trainings (--no-train) comes last.
    listed = {
        path: (option, comma_list(value))
        for path, (option, value) in overrides.items()
        if path[0] == "train" and isinstance(value, str) and _is_listed(path[-1])
    }
    return {**left_out, **overrides, **listed}


def _is_listed(field: str) -> bool:
    return field in RECIPE_OPTIONS and RECIPE_OPTIONS[field].listed
