"""How figures are measured: the settings of latencies and trainings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    create_model,
    model_validator,
)

from wnexplore.design.axes import TIMING_AXES, Axis, Number, Whole
from wnexplore.design.data_source import DETECTION, DataSource, check_data, parse_data
from wnexplore.design.start import Init
from wnexplore.errors import InputError, shown

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(Device)
Optimizer = Literal["sgd", "adamw"]
LrSchedule = Literal["cosine", "linear", "step"]
Amp = Literal["off", "bfloat16", "float16"]
BatchNormStatistics = Literal["refreshed", "running", "frozen"]
Schedule = Literal["full", "halving"]
RankedBy = Literal["top1", "test_loss", "ap"]


def _integer(value: object) -> object:
    """Only integers: pydantic also takes true for 1 and "1_000" for 1000."""
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number above 0, not {str(value).lower()}")
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value):
        raise ValueError(f"expected a whole number above 0, not '{shown(value)}'")
    return value


def _real(value: object) -> object:
    """Only numbers, likewise."""
    if isinstance(value, bool):
        raise ValueError(f"expected a number, not {str(value).lower()}")
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?[0-9.]{1,40}([eE][+-]?[0-9]{1,3})?\s*", value):
        raise ValueError(f"expected a number, not '{shown(value)}'")
    # Drop the text that a decimal number of a file carries.
    return float(value) if isinstance(value, float) else value


def _alone(value: object) -> object:
    """One value where a list of them is expected: `threads: 2`."""
    return (value,) if isinstance(value, int | str) else value


MAX_VALUES = 10_000
"""Most values of one axis."""

Positive = Annotated[int, BeforeValidator(_integer), Field(gt=0, le=10**9)]
Real = Annotated[float, BeforeValidator(_real)]

# Impossible sizes are refused before anything is allocated or started.
Batch = Annotated[Positive, Field(le=1_000_000)]


def _auto_or_count(value: object) -> object:
    """`auto` or a number of processes; one message, where a union of types would have two."""
    if value == "auto":
        return "auto"
    whole = not isinstance(value, bool) and re.fullmatch(r"\s*[+]?[0-9]{1,20}\s*", str(value))
    if not whole or not 1 <= int(str(value)) <= MAX_JOBS:
        raise ValueError(f"train.jobs is '{shown(value)}': expected auto, or a whole number up to {MAX_JOBS}")
    return int(str(value))


MAX_JOBS = 1024
Jobs = Annotated[int | Literal["auto"], BeforeValidator(_auto_or_count)]
Seeds = Annotated[Positive, Field(le=10_000)]
_Axis = Field(min_length=1, max_length=MAX_VALUES)


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _timing(axis: Axis) -> tuple[Any, Any]:
    """The type and the default of `axis` in a `LatencySpec`."""
    one: Any
    match axis.values:
        case Whole(most):
            one = Annotated[Positive, Field(le=most)]
        case Number(None):
            one = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
        case Number(below):
            one = Annotated[Real, Field(gt=0, lt=below)]
        case _:
            one = Literal[axis.names]
    default = axis.default
    if axis.listed:
        one = tuple[one, ...]
        if axis.sweep_key == axis.name:
            one = Annotated[one, BeforeValidator(_alone)]
        one = Annotated[one, _Axis]
        default = None if axis.grid is None else (axis.default,)
    return Annotated[one if default is not None else one | None, Field(description=axis.meaning)], default


if TYPE_CHECKING:

    class _Timing(_Spec):
        device: str = ""
        batch_sizes: tuple[int, ...] = ()
        dtypes: tuple[str, ...] = ()
        runtimes: tuple[str, ...] = ()
        memory_formats: tuple[str, ...] = ()
        threads: tuple[int, ...] | None = None
        baseline: tuple[str, ...] = ()
        target: float | None = None
        seconds: float = 0.0

else:
    _settings = [axis for axis in TIMING_AXES.values() if axis.part != "machine"]
    # The device, which all share, comes first.
    _settings.sort(key=lambda axis: axis.name != "device")
    _Timing = create_model("_Timing", __base__=_Spec, **{axis.sweep_key: _timing(axis) for axis in _settings})


class LatencySpec(_Timing):
    """The latencies to measure for each point, their precision and time budget.

    Its axes are those of `wnexplore.design.axes`, all crossed; threads are an axis only on a CPU.
    """

    if TYPE_CHECKING:

        def __init__(self, **given: Any) -> None: ...


class Recipe(_Spec):
    """How one training runs; the same for every point and seed of a sweep."""

    epochs: Positive | None = 5
    steps: Positive | None = None
    """Optimiser steps, instead of `epochs`."""
    init: Init = "default"
    """The starting weights: default keeps signals of order one at any depth; published is the start of the
    WeightNet authors' code, 1/shape[1] of each weight, for the backbones of this package."""
    batch_size: Batch = 32
    optimizer: Optimizer = "sgd"
    """sgd with `momentum`, or adamw (Loshchilov and Hutter, ICLR 2019), whose betas are 0.9 and 0.999."""
    lr: Annotated[Real, Field(gt=0, allow_inf_nan=False)] = 0.05
    """Peak learning rate; `kernel_lr` times as much for kernels and their generators.

    Batch normalisation makes the loss invariant to a kernel's scale, so the effective rate is the rate over
    the kernel's squared norm, which is large at Kaiming's variance.
    """
    kernel_lr: Annotated[Real, Field(gt=0, allow_inf_nan=False)] = 12.0
    lr_parity: StrictBool = True
    """Whether generated kernels learn as fast as ordinary ones at the same rate.

    A step on a generator's weight moves its kernels less, or further, than the same step moves an ordinary
    kernel; the rate of each such weight makes up for it.
    """
    lr_schedule: LrSchedule = "cosine"
    """How the learning rate falls after the warm-up: to 0, or with step to a tenth at each milestone."""
    milestones: Annotated[tuple[Positive, ...], _Axis] | None = None
    """Epochs after which it falls, with lr_schedule step."""
    warmup_epochs: Annotated[Real, Field(ge=0, allow_inf_nan=False)] = 0.5
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    nesterov: StrictBool = True
    weight_decay: Annotated[Real, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """Weight decay, except for biases and norms."""
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.1
    clip_grad_norm: Annotated[Real, Field(gt=0, allow_inf_nan=False)] | None = None
    """Gradient clipping: the largest norm of all gradients together."""
    ema: Annotated[Real, Field(gt=0, lt=1)] | None = None
    """Decay per step of a moving average of the weights, which is then tested and saved as best."""
    amp: Amp = "off"
    """Automatic mixed precision; float16 with its loss scaled."""
    batch_norm: BatchNormStatistics = "refreshed"
    """Batch-norm statistics of tests: of 512 training images, or the running averages of the training; or
    frozen at those that the training starts with, in its steps too."""
    colour_jitter: Annotated[Real, Field(ge=0, le=1)] = 0.0
    """Range of brightness, contrast and saturation jitter in training, for image files."""
    min_crop: Annotated[Real, Field(gt=0, le=1)] = 0.08
    """Smallest share of an image in a random resized crop, for image files to be classified."""
    scales: Annotated[tuple[Positive, ...], _Axis] | None = None
    """Shorter sides of training images for detection, in pixels, one a batch; left out: the resolution."""
    start_from: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Checkpoint of a classification network whose weights a detector's backbone starts with; {method}, {M}
    and others in its path stand for the point's axes."""

    @property
    def identity(self) -> dict[str, Any]:
        """Its fields, by which trainings are told apart, without those at their value of `BEFORE`."""
        fields = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if name not in BEFORE or value != BEFORE[name]}

    @model_validator(mode="before")
    @classmethod
    def _length_given(cls, content: Any) -> Any:
        """A length that is left out has no default if another length is given."""
        if not isinstance(content, dict) or content.get("epochs") is not None:
            return content
        if content.get("schedule") == "halving":
            if content.get("max_epochs") is None:
                raise InputError("schedule 'halving' needs max_epochs, such as 27")
            return content | {"epochs": content["max_epochs"]}
        return content if content.get("steps") is None else content | {"epochs": None}

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise InputError("a training has a length in epochs or in steps: give one of them")
        if (self.lr_schedule == "step") != (self.milestones is not None):
            raise InputError(
                "milestones are for lr_schedule step, and it needs some: give both, such as milestones:"
                " [8, 11]"
            )
        return self


BEFORE: dict[str, Any] = {
    "init": "default",
    "lr_parity": False,
    **dict.fromkeys(("milestones", "scales", "start_from")),
}
"""Fields of a recipe that older versions didn't have, and the values by which these trained."""


START = "start"
"""The field of a training's protocol with the hash of the checkpoint that it starts from."""

OF_NETWORK = ("source", "threads", START)
"""Fields of a training's protocol that depend on its network: others are compared with it all the same."""


def in_words(recipe: Mapping[str, Any]) -> str:
    """The fields of a recipe that decide what is learnt: its length, start and rates, what isn't usual."""
    length = "steps" if recipe.get("steps") is not None else "epochs"
    always = (length, "batch_size", "optimizer", "lr", "kernel_lr", "lr_parity", "init")
    usual = {
        name: field.default for name, field in Recipe.model_fields.items() if name not in ("epochs", "steps")
    }
    others = (name for name in usual if name not in always and recipe.get(name, usual[name]) != usual[name])
    texts = {
        name: str(recipe.get(name)).lower() for name in (*always, *others) if recipe.get(name) is not None
    }
    return ", ".join(f"{name} {shown(text)}" for name, text in texts.items())


class TrainSpec(Recipe):
    """A short training of each point, over several seeds."""

    data: Annotated[str, BeforeValidator(check_data)] = "digits"
    """As `parse_data` reads it."""
    path: Path | None = None
    """Folder of the data set, for those with files, if not in `data`."""
    download: StrictBool = False
    """Whether to download a torchvision data set into its folder if missing."""
    device: Device = "auto"
    seeds: Seeds = 3
    """How many: the seeds are 0, 1, ..., seeds - 1; with `target` those before the first look."""
    target: Annotated[Real, Field(gt=0, le=100)] | None = None
    """Seeds are added until a variant's difference to plain in top-1 or AP is known to so many percentage
    points (the half width of its interval), or certainly not 0, or the budget ends; left out: none is added.
    """
    max_seeds: Seeds | None = None
    """Most seeds of a network, with `target`; by default 30."""
    hours: Annotated[Real, Field(gt=0, allow_inf_nan=False)] | None = None
    """Hours of training after which no seed is added, with `target`: those of all trainings added up."""
    jobs: Jobs = "auto"
    """Concurrent trainings, each in a separate process; on a CPU they share the threads.

    auto: as many as cores are free on a CPU, if they are long enough to be worth the processes and memory
    suffices; 1 on a GPU. It affects no result of networks whose trainings use one thread each.
    """
    schedule: Schedule = "full"
    """halving: successive halving from `min_epochs` to `max_epochs`, keeping about one in `eta`."""
    min_epochs: Positive | None = None
    max_epochs: Positive | None = None
    eta: Annotated[Positive, Field(ge=2)] | None = None
    by: RankedBy | None = None
    """The figure by which halving ranks: by default top1, of detectors ap; or test_loss, of which less is
    better."""
    test_every: Positive = 1
    """Epochs between two tests; there is one after the last epoch too. Fewer tests take less time, the last
    figures are the same, and learning curves have fewer points. Halving tests after every epoch."""

    @property
    def source(self) -> DataSource:
        """The data set; `InputError` if its path is missing or superfluous."""
        return parse_data(self.data, self.path)

    @property
    def recipe(self) -> Recipe:
        """The recipe of one training."""
        return Recipe(**self.model_dump(include=set(Recipe.model_fields)))

    @property
    def most_seeds(self) -> int:
        """The most seeds of a network."""
        return self.seeds if self.target is None else self.max_seeds or max(30, self.seeds)

    @model_validator(mode="after")
    def _complete_target(self) -> Self:
        if self.target is None:
            given = next((name for name in ("max_seeds", "hours") if getattr(self, name) is not None), None)
            if given is not None:
                raise InputError(f"{given} is for seeds until it is known: leave it out, or set a target")
        elif self.schedule != "full":
            raise InputError("target is for 'schedule: full': leave it or 'halving' out")
        elif self.most_seeds < self.seeds:
            raise InputError(f"max_seeds is {self.max_seeds}: expected at least seeds, {self.seeds}")
        return self

    @model_validator(mode="after")
    def _complete_schedule(self) -> Self:
        rungs = {name: getattr(self, name) for name in ("min_epochs", "max_epochs", "eta", "by")}
        if self.schedule == "full":
            given = next((name for name, value in rungs.items() if value is not None), None)
            if given is not None:
                raise InputError(f"{given} is for 'schedule: halving': leave it out, or set the schedule")
            return self
        if self.max_epochs is None or self.epochs != self.max_epochs:
            raise InputError("epochs and steps are for 'schedule: full': 'halving' ends at max_epochs")
        figures = ("ap",) if self.data.partition(":")[0] in DETECTION else ("top1", "test_loss")
        if self.by is not None and self.by not in figures:
            raise InputError(
                f"by is '{self.by}', which a test on '{shown(self.data)}' doesn't give: expected"
                f" {' or '.join(figures)}"
            )
        if self.test_every != 1:
            raise InputError("test_every is for 'schedule: full': 'halving' tests after every epoch")
        if self.first_rung > self.max_epochs:
            raise InputError(
                f"min_epochs is {self.first_rung}: expected at most max_epochs, {self.max_epochs}"
            )
        return self

    @property
    def first_rung(self) -> int:
        """Epochs before the first variants are dropped."""
        return self.min_epochs or 1

    @property
    def reduction(self) -> int:
        """The reduction factor of each rung."""
        return self.eta or 3

    @property
    def ranked_by(self) -> RankedBy:
        """The figure by which halving ranks."""
        return self.by or ("ap" if self.source.task == "detection" else "top1")
