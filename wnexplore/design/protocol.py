"""How figures are measured: the parts of a protocol that a person may set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from wnexplore.design.data_source import DataSource, check_data, parse_data

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[str, ...] = get_args(Device)
Dtype = Literal["float32", "tf32", "bfloat16", "float16"]
Runtime = Literal["eager", "compile", "cudagraph", "onnxruntime"]
MemoryFormat = Literal["contiguous", "channels_last"]
Cache = Literal["warm", "cold"]
Mode = Literal["inference", "train"]


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a whole number above 0, not {str(value).lower()}")
    return value


def _alone(value: object) -> object:
    """One value where a list of them is expected: `threads: 2`."""
    return (value,) if isinstance(value, int) else value


Positive = Annotated[int, BeforeValidator(_no_bool), Field(gt=0, le=10**9)]
_Axis = Field(min_length=1)


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class LatencySpec(_Spec):
    """What latency to measure of each point, how exactly, and for how long at most.

    Every axis is crossed with every other; threads are an axis of a CPU alone.
    """

    device: Device = "auto"
    batch_sizes: Annotated[tuple[Positive, ...], _Axis] = (1,)
    dtypes: Annotated[tuple[Dtype, ...], _Axis] = ("float32",)
    runtimes: Annotated[tuple[Runtime, ...], _Axis] = ("eager",)
    memory_formats: Annotated[tuple[MemoryFormat, ...], _Axis] = ("contiguous",)
    threads: Annotated[tuple[Positive, ...], BeforeValidator(_alone), _Axis] | None = None
    """Threads on a CPU; left out: as many as torch takes by itself."""
    caches: Annotated[tuple[Cache, ...], _Axis] = ("warm",)
    """warm: as the passes before left them; cold: flushed before every sample."""
    modes: Annotated[tuple[Mode, ...], _Axis] = ("inference",)
    """inference: one forward pass; train: one training step, its update of the weights included."""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Half-width of the latency ratio's 95 % interval, relative to it, at which a measurement ends;
    left out: 0.01 on a GPU, 0.03 on a CPU."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Time budget of one measurement: it ends then, whatever its interval; warm-up apart."""


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

    data: Annotated[str, BeforeValidator(check_data)] = "digits"
    """As `parse_data` reads it."""
    path: Path | None = None
    """Folder of the data set, for those that have files, where `data` doesn't say it."""
    download: bool = False
    """Whether a data set of torchvision's is fetched into its folder, if it isn't there."""
    device: Device = "auto"
    seeds: Positive = 3
    """How many: the seeds are 0, 1, ..., seeds - 1."""

    @property
    def source(self) -> DataSource:
        """The data set; `InputError` if its path is missing or not wanted."""
        return parse_data(self.data, self.path)

    @property
    def recipe(self) -> Recipe:
        """The part of this that says how one training runs."""
        return Recipe(**self.model_dump(include=set(Recipe.model_fields)))
