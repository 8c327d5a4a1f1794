"""Trainings of detectors: they learn, and a stopped or shared one is that of one process without a stop."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.commands import ended
from wnexplore.data import Data, EpochPass, load_data
from wnexplore.data.detection import Boxes, DetectionSplit
from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import Recipe, TrainSpec
from wnexplore.design.sweep_file import SweepSpec
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.models.detector import Detector
from wnexplore.results.store import read_records
from wnexplore.study.sweep import plan
from wnexplore.training.checkpoint import CheckpointMetadata, read_state, save_checkpoint, save_state
from wnexplore.training.full_training import TrainRun, train_fully
from wnexplore.training.log import Row, read_log
from wnexplore.training.optimizer import lr_factor, parameter_groups
from wnexplore.training.setup import check_trainable, started
from wnexplore.training.starting_weights import check_start, start_file
from wnexplore.training.trainer import Callbacks, Trainer

SHORT = Recipe(epochs=1, batch_size=8, lr=0.01)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes() -> Data:
    return load_data("scenes:2x24", resolution=64)


def maker(method: str = "plain", channels: int = 8, resolution: int = 64) -> Callable[[], Detector]:
    """Makes a small detector whose scores at the start are high enough for some boxes."""
    M, G = (2, 2) if method == "weightnet" else (None, None)
    point = DesignPoint.of(
        *("shufflenet_v2_x0_5", method, M, G),
        task="detection",
        resolution=resolution,
        num_classes=2,
        pyramid_channels=channels,
    )

    def make() -> Detector:
        network = build(point)
        assert isinstance(network, Detector)
        nn.init.constant_(network.head.classification_head.cls_logits.bias, -2.0)
        return network

    return make


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers() if "num_batches" not in name}


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        ("plain", {"optimizer": "sgd"}),
        ("weightnet", {"optimizer": "adamw", "lr": 1e-3, "clip_grad_norm": 1.0}),
        pytest.param("weightnet", {"optimizer": "sgd", "ema": 0.9}, marks=pytest.mark.slow),
        pytest.param("plain", {"optimizer": "adamw", "lr": 1e-3, "amp": "bfloat16"}, marks=pytest.mark.slow),
    ],
)
def test_a_short_training_is_finite_and_moves_every_part(
    scenes: Data, method: str, recipe: dict[str, Any]
) -> None:
    trainer = Trainer(
        maker(method), scenes, SHORT.model_copy(update={"epochs": 2, **recipe}), seed=0, device="cpu"
    )
    network = trainer.training.network
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    trainer.advance(2)
    figure = trainer.figure
    assert len(figure.losses) == len(figure.tested_scores) == 2
    assert all(math.isfinite(loss) for loss in figure.losses)
    assert figure.losses[1] < figure.losses[0]
    assert (figure.test_images, figure.tested_loss) == (12, [None, None])
    assert figure.figures.keys() == {"ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar"}
    assert figure.score == figure.figures["ap"]
    # No object of 64 pixels' images has more than 32² of them in these.
    assert (figure.figures["ap_medium"], figure.figures["ap_large"]) == (None, None)
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert all(value.isfinite().all() for value in network.state_dict().values())
    for part in ("backbone.body.", "backbone.fpn.", "head.classification_head.", "head.regression_head."):
        of_part = {name for name in before if name.startswith(part)}
        assert of_part
        # Where normalisations hardly have a gradient, they stay at 1.
        assert {name for name in of_part if before[name].ndim == 4} <= moved


@pytest.mark.parametrize("method", ["plain", pytest.param("weightnet", marks=pytest.mark.slow)])
def test_a_stopped_training_resumes_to_the_same_bits(scenes: Data, method: str, tmp_path: Path) -> None:
    recipe = SHORT.model_copy(update={"epochs": 2})
    full, first, second = (Trainer(maker(method), scenes, recipe, seed=3, device="cpu") for _ in range(3))
    full.advance(2)
    first.advance(1)
    save_state(tmp_path / "a.state", first.state())
    second.load_state(read_state(tmp_path / "a.state"))
    assert not second.finished
    second.advance(2)
    assert second.finished
    assert second.figure.losses == full.figure.losses
    assert second.figure.tested_scores == full.figure.tested_scores
    assert second.figure.figures == full.figure.figures
    # It found something: else any two tests would be alike.
    assert full.figure.figures["ar"] != 0
    ours, theirs = (one.training.network.state_dict() for one in (second, full))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("batch_norm", ["frozen", "running"])
def test_frozen_statistics_are_those_of_the_start_bit_for_bit(scenes: Data, batch_norm: str) -> None:
    recipe = SHORT.model_copy(update={"batch_norm": batch_norm})
    trainer = Trainer(maker(), scenes, recipe, seed=0, device="cpu")
    network = trainer.training.network
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(0.1)  # type: ignore[union-attr]
    before = statistics(network)
    trainer.advance(1)
    after = statistics(network)
    assert len(before) > 50
    assert all(torch.equal(before[name], after[name]) for name in before) == (batch_norm == "frozen")


def test_the_rate_falls_to_a_tenth_at_each_milestone() -> None:
    parameter = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6, 9], gamma=0.1)
    for step in range(12):
        expected = optimizer.param_groups[0]["lr"]
        assert lr_factor(step, 12, 0, "step", [6, 9]) == pytest.approx(expected, rel=1e-12)
        optimizer.step()
        schedule.step()
    assert [lr_factor(step, 12, 4, "step", [6, 9]) for step in range(4)] == [0.25, 0.5, 0.75, 1]
    assert lr_factor(4, 12, 4, "step", [6, 9]) == 1


def test_a_training_takes_its_milestones_in_epochs(scenes: Data) -> None:
    class Rates(Callbacks):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_row(self, row: Row) -> None:
            self.seen.append(row.lr)

    rates = Rates()
    recipe = Recipe(epochs=3, batch_size=12, lr=0.01, lr_schedule="step", milestones=(1, 2), warmup_epochs=0)
    trainer = Trainer(maker(), scenes, recipe, seed=0, device="cpu", test_every=3, log_every=1)
    trainer.advance(3, rates)
    # Those of the steps to come, of two an epoch.
    assert rates.seen == pytest.approx([0.01, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4], rel=1e-12)


@pytest.mark.parametrize("lr_parity", [True, False])
@pytest.mark.parametrize("method", ["plain", "weightnet"])
def test_pyramid_and_head_do_not_learn_at_the_rate_of_kernels(method: str, lr_parity: bool) -> None:
    network, recipe = maker(method)(), SHORT.model_copy(update={"lr_parity": lr_parity})
    rates = {
        id(parameter): group["peak_lr"]
        for group in parameter_groups(network, recipe)
        for parameter in group["params"]
    }
    named = dict(network.named_parameters())
    assert len(rates) == len(named)
    parts = {name for name in named if name.startswith(("backbone.fpn.", "head."))}
    assert len(parts) > 20
    assert {rates[id(named[name])] for name in parts} == {recipe.lr}
    first = next(name for name in named if named[name].ndim == 4)
    assert first.startswith("backbone.body.")
    assert rates[id(named[first])] == recipe.lr * recipe.kernel_lr
    assert recipe.kernel_lr > 1


@pytest.mark.slow
def test_a_detector_learns_sixteen_images_by_heart() -> None:
    data = load_data("scenes:2x16", resolution=128)
    assert isinstance(data.train, DetectionSplit)
    same = replace(data, train=replace(data.train, flip=False), test=DetectionSplit(data.train.pictures))
    point = DesignPoint.of(
        "shufflenet_v2_x0_5", task="detection", resolution=128, num_classes=2, pyramid_channels=32
    )
    recipe = Recipe(epochs=100, batch_size=4, optimizer="adamw", lr=1e-3, kernel_lr=1, clip_grad_norm=1.0)
    trainer = Trainer(lambda: build(point), same, recipe, seed=0, device="cpu", test_every=100)
    trainer.advance(100)
    assert trainer.figure.test_images == 16
    ap50 = trainer.figure.figures["ap50"]
    assert ap50 is not None
    assert ap50 > 20


@pytest.mark.slow
def test_two_processes_train_and_test_as_one_does(tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        options = (
            *("--backbone", "shufflenet_v2_x0_5", "--task", "detection", "--resolution", 64),
            *("--pyramid-channels", 8, "--data", "scenes:2x16", "--device", "cpu", "--epochs", 2),
            # Frozen: else each process normalises by its own half of a batch.
            *(
                "--batch-size",
                8,
                "--batch-norm",
                "frozen",
                "--start-from",
                start,
                "--lr",
                1e-4,
                "--kernel-lr",
                1,
            ),
            *("--log-every", 1, "--out", tmp_path / out),
        )
        return ["train", *map(str, options)]

    start = tmp_path / "classifier" / "checkpoints" / "best.safetensors"
    # Of images alike, for which its statistics hold.
    shapes = ("--resolution", "64", "--data", "shapes:2x64", "--epochs", "1", "--lr", "0.001")
    ended("train", "--backbone", "shufflenet_v2_x0_5", *shapes, "--out", str(tmp_path / "classifier"))
    ended(*command("alone"))
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*together, "-m", "wnexplore", *command("pair")], check=True, capture_output=True)
    pair, alone = read_log(tmp_path / "pair"), read_log(tmp_path / "alone")
    assert [row.step for row in pair] == [row.step for row in alone] == [1, 2, 3, 4]
    assert [row.loss for row in pair] == pytest.approx([row.loss for row in alone], rel=1e-4)
    assert [row.ap is None for row in pair] == [True, False] * 2
    ours, theirs = (
        load_file(tmp_path / out / "checkpoints" / "step_00000004.safetensors") for out in ("pair", "alone")
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-3, rtol=1e-3)
    # Both halves of the test's images count.
    tested = [read_records(tmp_path / out)[0].value["test_images"] for out in ("pair", "alone")]
    assert tested == [8, 8]


def test_a_backbone_starts_with_the_weights_of_a_classifier(tmp_path: Path) -> None:
    def point(method: str = "plain", **axes: Any) -> DesignPoint:
        return DesignPoint.of("shufflenet_v2_x0_5", method, resolution=64, **axes)

    made = _classifier(tmp_path / "plain.safetensors")
    spec = TrainSpec(data="scenes:2x16", start_from=str(tmp_path / "{method}.safetensors"))
    detector = point(task="detection", pyramid_channels=8, num_classes=2)
    check_trainable(spec, detector)
    body = started(spec, detector).get_submodule("backbone.body.body")
    weights = body.state_dict()
    assert weights
    assert all(torch.equal(made.state_dict()[name], value) for name, value in weights.items())
    with pytest.raises(InputError, match=r"se\.safetensors"):
        check_trainable(spec, replace(detector, method="se", reduction=16))
    same = spec.model_copy(update={"start_from": str(tmp_path / "plain.safetensors")})
    with pytest.raises(InputError, match="its method is another"):
        check_trainable(same, replace(detector, method="se", reduction=16))
    with pytest.raises(InputError, match="start_from is for detection"):
        check_trainable(same.model_copy(update={"data": "digits"}), point())
    for stages in ("head", "pyramid+head"):
        # The method isn't in the backbone.
        check_trainable(same, replace(detector, method="se", reduction=16, stages=stages))
    with pytest.raises(InputError, match="its method is another"):
        check_trainable(same, replace(detector, method="se", reduction=16, stages="4+head"))


def test_trainings_that_start_from_other_weights_are_others(tmp_path: Path) -> None:
    sweep = {
        "task": ["detection"],
        "methods": ["plain", "se"],
        "resolution": [64],
        "pyramid_channels": [8],
        "latency": False,
        "train": {"data": "scenes:2x16", "start_from": str(tmp_path / "{method}.safetensors"), "seeds": 1},
    }
    spec = SweepSpec.model_validate(sweep)

    def planned() -> dict[str, tuple[str, str]]:
        trainings = [m for m in plan(spec).measurements if m.figure == "training"]
        return {m.point.method: (m.protocol["start"], m.key) for m in trainings}

    _classifier(tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match=r"se\.safetensors"):
        planned()
    _classifier(tmp_path / "se.safetensors", "se")
    before = planned()
    digest = hashlib.sha256((tmp_path / "se.safetensors").read_bytes()).hexdigest()
    assert before["se"][0] == digest[:12] != before["plain"][0]
    _classifier(tmp_path / "se.safetensors", "se")
    after = planned()
    assert after["plain"] == before["plain"]
    assert after["se"][0] != before["se"][0]
    assert after["se"][1] != before["se"][1]
    assert spec.train is not None
    (squeezed,) = (point for point in plan(spec).points if point.method == "se")
    check_start(spec.train.start_from, squeezed, after["se"][0])
    with pytest.raises(InputError, match="has changed since this was planned"):
        check_start(spec.train.start_from, squeezed, before["se"][0])
    # The backbone is plain.
    assert (
        start_file(str(spec.train.start_from), replace(squeezed, stages="head")).name == "plain.safetensors"
    )


def test_a_training_goes_on_from_the_weights_that_it_started_from(tmp_path: Path) -> None:
    _classifier(tmp_path / "plain.safetensors")
    point = DesignPoint.of("shufflenet_v2_x0_5", task="detection", resolution=64, pyramid_channels=8)
    start = str(tmp_path / "{method}.safetensors")
    spec = TrainSpec(data="scenes:2x16", start_from=start, epochs=1, batch_size=8, device="cpu")
    run = TrainRun(point, spec, tmp_path / "run")
    train_fully(run)
    (record,) = read_records(run.directory)
    digest = hashlib.sha256((tmp_path / "plain.safetensors").read_bytes()).hexdigest()
    assert record.protocol["start"] == digest[:12]
    assert train_fully(run).finished
    _classifier(tmp_path / "plain.safetensors")
    with pytest.raises(InputError, match=r"the checkpoint of start_from has changed since .*run was trained"):
        train_fully(run)


def _classifier(path: Path, method: str = "plain") -> nn.Module:
    """A checkpoint of a network that wasn't trained."""
    point = DesignPoint.of("shufflenet_v2_x0_5", method, resolution=64, num_classes=10)
    made = build(point)
    how, classes = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), tuple(map(str, range(10)))
    recipe = SHORT.model_dump(mode="json")
    save_checkpoint(path, made, CheckpointMetadata(point, "digits", classes, how, recipe, 0, 1, 1.0))
    return made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data": "scenes", "batch_norm": "frozen"}, "'frozen' keeps the statistics"),
        ({"data": "scenes", "min_crop": 0.5}, "min_crop is for images to be classified"),
        ({"data": "scenes", "label_smoothing": 0.2}, "label_smoothing is for images to be classified"),
        ({"data": "digits", "scales": [64]}, "for task classification"),
    ],
)
def test_what_a_recipe_of_detection_can_not_have_is_refused(given: dict[str, Any], said: str) -> None:
    point = DesignPoint.of("shufflenet_v2_x0_5", task="detection", resolution=64, pyramid_channels=8)
    with pytest.raises(InputError, match=said):
        check_trainable(TrainSpec(**given), point)


@pytest.mark.parametrize(("data", "by"), [("scenes", "top1"), ("scenes:2x16", "test_loss"), ("digits", "ap")])
def test_halving_ranks_by_what_a_test_gives(data: str, by: str) -> None:
    with pytest.raises(ValueError, match=f"by is '{by}', which a test on"):
        TrainSpec.model_validate({"data": data, "schedule": "halving", "max_epochs": 3, "by": by})


def test_a_box_that_rounding_leaves_nothing_of_is_no_target() -> None:
    thin = torch.tensor([[1e-9, 1.0, 2e-9, 9.0], [3.0, 4.0, 20.0, 30.0]])
    boxes = Boxes(thin, torch.tensor([0, 1]), torch.ones(2), torch.zeros(2, dtype=torch.bool))

    class Same:
        sizes, objects, from_files = [(64, 64)] * 8, [boxes] * 8, False

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Tensor:
            return torch.zeros(3, 64, 64, dtype=torch.uint8)

        def name(self, index: int) -> str:
            return str(index)

    batches = DetectionSplit(Same()).batches(8, "cpu", EpochPass(0, 0))
    targets = [target for _, found in batches for target in found]
    # A flip moves both sides of the thin one to 64.
    assert {len(target["boxes"]) for target in targets} == {1, 2}
    assert all((t["boxes"][:, 2:] > t["boxes"][:, :2]).all() for t in targets)
    assert all(len(t["labels"]) == len(t["boxes"]) for t in targets)


def test_images_of_a_training_are_as_large_as_its_scales_say(scenes: Data) -> None:
    detector = maker()()
    seen: list[tuple[int, ...]] = []
    detector.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    assert isinstance(scenes.train, DetectionSplit)
    scaled = replace(scenes, train=replace(scenes.train, scales=(40, 200)))
    trainer = Trainer(lambda: detector, scaled, Recipe(epochs=1, batch_size=4, lr=0.01), seed=0, device="cpu")
    trainer.advance(1)
    # Padded to multiples of 128; tests resize to the resolution, 64.
    assert set(seen) == {(128, 128), (256, 256)}


def test_a_state_holds_nothing_of_the_last_batch(scenes: Data) -> None:
    trainer = Trainer(maker(), scenes, SHORT, seed=0, device="cpu")
    before = sum(value.numel() for value in _tensors(trainer.training.state()["network"]))
    trainer.advance(1)
    assert sum(value.numel() for value in _tensors(trainer.training.state()["network"])) == before


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
