"""The setup of a training: its data, checks of the network, and its threads."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from wnexplore.data import Augment, Data, load_data
from wnexplore.design.axes import listed
from wnexplore.design.counts import count
from wnexplore.design.data_source import DATA_SETS, DataSource
from wnexplore.design.external_names import is_external
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import Recipe, TrainSpec
from wnexplore.design.start import check_init
from wnexplore.errors import InputError, shown
from wnexplore.measure.memory_fit import split_misfit
from wnexplore.measure.thread_waiting import training_threads
from wnexplore.models import build
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.training.average_precision import require_coco_eval
from wnexplore.training.starting_weights import load_start, start_file


@lru_cache(maxsize=8)
def load(spec: TrainSpec, resolution: int) -> Data:
    """The data of `spec` at `resolution`, loaded once per process.

    Raises `InputError` if it can't be loaded.
    """
    augment = Augment(colour_jitter=spec.colour_jitter, min_crop=spec.min_crop)
    return load_data(
        spec.source,
        resolution=resolution,
        augment=augment,
        download=spec.download,
        scales=spec.scales or (),
    )


def check_trainable(spec: TrainSpec, point: DesignPoint) -> None:
    """Raise `InputError` unless the network of `point` can be trained on the data of `spec`."""
    check_init(spec.init, point.backbone)
    if spec.source.task != point.task:
        wanted = listed([name for name in DATA_SETS if DataSource(name).task == point.task], "or")
        raise InputError(
            f"data set '{shown(spec.source.label)}' is for task {spec.source.task}, and {point} is for"
            f" {point.task}: expected {wanted}, or --task {spec.source.task}"
        )
    if point.task == "detection":
        require_coco_eval()
        if spec.start_from is not None:
            start_file(spec.start_from, point)
        for name in ("min_crop", "label_smoothing"):
            if getattr(spec, name) != Recipe.model_fields[name].default:
                raise InputError(f"{name} is for images to be classified: leave it out")
    if spec.batch_norm == "frozen" and spec.start_from is None:
        raise InputError(
            "batch_norm 'frozen' keeps the statistics that a training starts with, which random weights have"
            " none of: expected refreshed or running, or start_from"
        )
    if point.task == "detection":
        return
    for name in ("scales", "start_from"):
        if getattr(spec, name) is not None:
            raise InputError(f"{name} is for detection: leave {name} out")
    if is_external(point.backbone):
        from wnexplore.models.external import check_external

        check_external(point.backbone, point.resolution, load(spec, point.resolution).num_classes)


def training_misfit(spec: TrainSpec, point: DesignPoint, device: str, world: int = 1) -> str | None:
    """Why one of `world` processes can't train the network of `point` on `device`; None if it can."""
    data = load(spec, point.resolution)
    largest = max((point.resolution, *(spec.scales or ())))
    return split_misfit(point, (data.train, data.test), -(-spec.batch_size // world), device, largest)


def threads_of(spec: TrainSpec, plain: DesignPoint, jobs: int = 1) -> int:
    """CPU threads of a training of `plain`, and of all networks compared with it, with `jobs` at once."""
    return training_threads(jobs, count(plain, skeleton_of(plain)).flops * spec.batch_size)


def started(spec: TrainSpec, point: DesignPoint) -> nn.Module:
    """The network of `point` as its training by `spec` starts. Raises `InputError` as `load_start`."""
    network = build(point, init=spec.init)
    if spec.start_from is not None:
        load_start(network, spec.start_from, point)
    return network
