"""How figures are measured: the parts of a protocol that a person may set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(Device)
Dtype = Literal["float32", "bfloat16", "float16"]
DataName = Literal["digits", "cifar10", "folder"]


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number above 0, not {str(value).lower()}")
    return value


Positive = Annotated[int, BeforeValidator(_no_bool), Field(gt=0, le=10**9)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LatencySpec(_Spec):
    """What latency to measure of each point, and for how long."""

    device: Device = "auto"
    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1,)
    dtypes: Annotated[tuple[Dtype, ...], Field(min_length=1)] = ("float32",)
    threads: Positive | None = None
    """Threads on a CPU; left out: as many as torch takes by itself."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Time budget of one measurement, its interleaved baseline included, warm-up apart."""


class Recipe(_Spec):
    """How one short training runs; the same for every point and seed of a sweep."""

    epochs: Positive = 5
    batch_size: Positive = 32
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    """Peak learning rate; `kernel_lr` times as much for kernels and what they are generated from.

    Batch normalisation makes the loss blind to the scale of a kernel, so that what counts is the
    rate over the kernel's squared norm, and kernels of Kaiming's variance have a large one.
    """
    kernel_lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 12.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5


class TrainSpec(Recipe):
    """A short training of each point, over several seeds."""

    data: DataName = "digits"
    path: Path | None = None
    """Folder of the data set, for those that are not embedded."""
    device: Device = "auto"
    seeds: Positive = 3
    """How many: the seeds are 0, 1, ..., seeds - 1."""

    @property
    def recipe(self) -> Recipe:
        """The part of this that says how one training runs."""
        return Recipe(**self.model_dump(include=set(Recipe.model_fields)))
