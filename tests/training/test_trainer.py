from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainings import train
from wnexplore.data import Data, EpochPass, TensorSplit, load_data
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import Amp, Recipe
from wnexplore.errors import RunError
from wnexplore.nn import CondConv2d, WeightNetConv2d
from wnexplore.results.record import Record
from wnexplore.training.accuracy import evaluate, ready_for_test, refresh_batch_norm
from wnexplore.training.checkpoint import read_state, save_state
from wnexplore.training.distributed import Processes
from wnexplore.training.log import Row
from wnexplore.training.loop import TrainingLoop
from wnexplore.training.optimizer import lr_factor, parameter_groups
from wnexplore.training.trainer import Callbacks, Trainer
from wnexplore.training.training_record import TrainingFigure, trained_record

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SHORT = Recipe(epochs=1, batch_size=128, lr=0.05)


def convnet() -> nn.Module:
    def block(into: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        *block(3, 16), *block(16, 32), nn.Dropout(0.05), pool, nn.Flatten(), nn.Linear(32, 10)
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread, for long where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", resolution=16)


def brightness_data(*, labels: list[int]) -> Data:
    """Image i is evenly i bright; its label is labels[i]."""
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
    split = TensorSplit(
        images.contiguous(), torch.tensor(labels), 4, torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    )
    classes = max(labels) + 1
    return Data("brightness", classes, tuple(map(str, range(classes))), split, split)


class NearestBrightness(nn.Module):
    """The class whose number is the mean of the image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = torch.arange(classes)

    def forward(self, images: Tensor) -> Tensor:
        return -((images.mean((1, 2, 3))[:, None] - self.classes) ** 2)


@pytest.mark.parametrize("device", DEVICES)
def test_small_network_learns_the_digits(digits: Data, device: str) -> None:
    figure = train(convnet, digits, Recipe(epochs=4, batch_size=32, lr=0.1), seed=0, device=device)
    assert figure.score > 80
    assert len(figure.losses) == 4
    assert figure.losses[-1] < figure.losses[0]
    assert figure.seconds > 0


@pytest.mark.parametrize("device", DEVICES)
def test_same_seed_gives_the_same_bits_and_another_seed_others(digits: Data, device: str) -> None:
    def run(seed: int) -> TrainingFigure:
        return train(convnet, digits, SHORT, seed=seed, device=device)

    first = run(3)
    torch.rand(7)  # what happened before must not matter
    again, other = run(3), run(4)
    assert (again.losses, again.score) == (first.losses, first.score)
    assert other.losses != first.losses


def test_every_network_sees_the_same_images_in_the_same_order(digits: Data) -> None:
    class Watcher(nn.Module):
        def __init__(self, hidden: int, seen: list[float]) -> None:
            super().__init__()
            self.seen = seen
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, hidden), nn.Linear(hidden, 10))

        def forward(self, images: Tensor) -> Tensor:
            self.seen.append(images.sum().item())
            logits: Tensor = self.layers(images)
            return logits

    narrow: list[float] = []
    wide: list[float] = []
    train(lambda: Watcher(2, narrow), digits, SHORT, seed=0, device="cpu")
    train(lambda: Watcher(9, wide), digits, SHORT, seed=0, device="cpu")
    assert len(narrow) == 1437 // 128 + math.ceil(360 / 128)
    assert narrow == wide


def global_state() -> tuple[list[int], bool, bool, bool, bool]:
    return (
        torch.get_rng_state().tolist(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture
def unusual_switches() -> Iterator[None]:
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("unusual_switches")
def test_generators_and_switches_are_as_they_were_also_after_a_failure() -> None:
    data = brightness_data(labels=[0, 1, 2, 3])
    before = global_state()
    train(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), data, SHORT, seed=1, device="cpu")
    assert global_state() == before
    with pytest.raises(ZeroDivisionError):
        train(lambda: 1 / 0, data, SHORT, seed=1, device="cpu")  # type: ignore[arg-type, return-value]
    assert global_state() == before


def test_loss_is_the_smoothed_cross_entropy_averaged_over_the_epoch() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, 0.0])

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(logits.clone())

        def forward(self, images: Tensor) -> Tensor:
            return self.logits.expand(len(images), -1)

    data = brightness_data(labels=[0, 1, 2, 3])
    recipe = Recipe(epochs=1, batch_size=2, lr=1e-30, label_smoothing=0.2)
    total = sum(math.exp(x) for x in logits.tolist())
    minus_log_p = [math.log(total) - x for x in logits.tolist()]
    uniform = sum(minus_log_p) / 4
    expected = sum(0.8 * m + 0.2 * uniform for m in minus_log_p) / 4
    figure = train(Constant, data, recipe, seed=0, device="cpu")
    assert figure.losses == [pytest.approx(expected, rel=1e-6)]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_top1_counts_the_whole_split_at_any_batch_size(batch_size: int) -> None:
    right, one_wrong = list(range(8)), [0, 1, 2, 3, 4, 5, 6, 0]
    found = evaluate(NearestBrightness(8), brightness_data(labels=right).test, batch_size, "cpu")
    assert (found.top1, found.top5, found.images) == (100, 100, 8)
    found = evaluate(NearestBrightness(8), brightness_data(labels=one_wrong).test, batch_size, "cpu")
    assert (found.top1, found.top5) == (87.5, 87.5)


def test_test_loss_is_the_cross_entropy_of_all_test_images_at_once(digits: Data) -> None:
    # Smoothing and the average of weights are in the recipe: the loss of the tested weights is without both.
    recipe = Recipe(epochs=2, batch_size=128, label_smoothing=0.2, ema=0.5)
    found: list[float] = []

    class Whole(Callbacks):
        def on_test(self) -> None:
            (images, labels), *rest = digits.test.batches(len(digits.test), "cpu")
            assert not rest
            network = trainer.training.network.eval()
            with torch.inference_mode():
                found.append(nn.functional.cross_entropy(network(images).double(), labels).item())

    trainer = Trainer(convnet, digits, recipe, seed=1, device="cpu")
    trainer.advance(2, Whole())
    assert trainer.figure.tested_loss == pytest.approx(found, rel=1e-6)
    assert trainer.figure.test_loss == trainer.figure.tested_loss[-1]
    record = trained_record(Record("training", DesignPoint.of("resnet18"), {}), trainer.figure, {})
    assert record.value["test_loss"] == trainer.figure.test_loss
    assert record.samples["tested_loss"] == trainer.figure.tested_loss
    assert found[0] != found[1]


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100])
def test_test_loss_is_the_same_at_any_batch_size(batch_size: int) -> None:
    # Powers of 2 that float32 can't add up: 2^24 + 1.
    class Given(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            which = images.mean((1, 2, 3)) == 0
            return torch.stack([torch.where(which, -float(2**24), -1.0), torch.zeros(len(images))], 1)

    found = evaluate(Given(), brightness_data(labels=[0] * 64).test, batch_size, "cpu")
    expected = (2**24 + 63 * math.log(1 + math.e)) / 64
    assert found.loss == pytest.approx(expected, rel=1e-13)


class Overflowing(nn.Module):
    """Its outputs are not finite in the test after step `at`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.layers, self.at, self.steps = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), at, 0

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        self.steps += self.training
        return logits * (math.nan if not self.training and self.steps == self.at else 1)


def test_outputs_that_are_not_finite_are_no_number_in_a_record_and_at_the_end_no_result() -> None:
    data, recipe = brightness_data(labels=[0, 1, 2, 3]), Recipe(epochs=2, batch_size=64, lr=1e-3)
    figure = train(lambda: Overflowing(1), data, recipe, seed=0, device="cpu")
    assert figure.tested_loss[0] is None
    assert figure.test_loss is not None
    with pytest.raises(
        RunError, match=r"test loss is nan after epoch 2 of 2 \(seed 3\): .* diverged.*0\.001"
    ):
        train(lambda: Overflowing(2), data, recipe, seed=3, device="cpu")


def test_top1_uses_running_statistics_and_no_dropout(digits: Data) -> None:
    model = convnet()
    large, small = (evaluate(model, digits.test, batch_size, "cpu") for batch_size in (360, 7))
    assert small.top1 == pytest.approx(large.top1, abs=0.3)
    assert small.loss == pytest.approx(large.loss, rel=1e-4)
    assert not model.training


def test_batch_norm_statistics_become_those_of_the_training_images() -> None:
    data = brightness_data(labels=[0] * 60)
    norm = nn.BatchNorm2d(3, momentum=0.3)
    model = nn.Sequential(nn.Identity(), norm)
    for _ in range(3):  # statistics of something else must be forgotten
        model(1e3 * torch.randn(8, 3, 4, 4))
    refresh_batch_norm(model, data.train, 20, "cpu", EpochPass(0, 0))
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == pytest.approx([sum(range(60)) / 60] * 3)
    assert norm.momentum == 0.3


def test_refresh_reads_512_images_of_a_large_split() -> None:
    norm = nn.BatchNorm2d(3)
    images = torch.zeros(5000, 3, 1, 1, dtype=torch.uint8)
    split = TensorSplit(images, torch.zeros(5000), 1, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    refresh_batch_norm(norm, split, 100, "cpu", EpochPass(0, 0))
    assert norm.num_batches_tracked == 6


def test_short_training_is_tested_with_fresh_statistics() -> None:
    # One step: running averages would still be nine tenths of what they started from.
    data = brightness_data(labels=[0] * 32 + [1] * 32)
    recipe = Recipe(epochs=1, batch_size=64, lr=1e-30, label_smoothing=0)

    class Threshold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images: Tensor) -> Tensor:
            z = self.norm(images).mean((1, 2, 3))  # above 0: brighter than the mean image
            return torch.stack([-z, z], dim=1)

    assert train(Threshold, data, recipe, seed=0, device="cpu").score == 100


def test_progress_counts_every_step() -> None:
    calls: list[tuple[int, int]] = []

    class Progress(Callbacks):
        def on_step(self, step: int, steps: int) -> None:
            calls.append((step, steps))

    recipe = Recipe(epochs=3, batch_size=2, lr=1e-3)
    data = brightness_data(labels=[0, 1, 2, 3, 0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    train(lambda: model, data, recipe, seed=0, device="cpu", callbacks=Progress())
    assert calls == [(step, 6) for step in range(1, 7)]


def test_split_smaller_than_a_batch_is_one_batch() -> None:
    recipe = Recipe(epochs=2, batch_size=64, lr=1e-3)
    data = brightness_data(labels=[0, 1, 2])
    figure = train(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), data, recipe, seed=0, device="cpu")
    assert all(math.isfinite(loss) for loss in figure.losses)


def test_diverging_training_ends_with_the_epoch(digits: Data) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 64), nn.Linear(64, 10))
    recipe = Recipe(epochs=3, batch_size=128, lr=1e20)
    with pytest.raises(RunError, match=r"nan\b.* 1 of 3 \(seed 5\).*lr.*1e\+20"):
        train(lambda: model, digits, recipe, seed=5, device="cpu")


def test_schedule_without_warmup_is_torchs_cosine() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert lr_factor(step, 20, 0) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()


def test_linear_schedule_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    linear = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=20)
    for step in range(20):
        assert lr_factor(step, 20, 0, "linear") == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        linear.step()


def test_schedule_warms_up_linearly_then_falls_to_zero() -> None:
    factors = [lr_factor(step, 12, 4) for step in range(12)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert lr_factor(12, 12, 4) == 0


def test_warmup_as_long_as_the_training_is_cut_to_half() -> None:
    # With a constant gradient of 1 for one weight and neither momentum nor decay, plain SGD moves
    # it by the sum of all learning rates.
    class Falling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images: Tensor) -> Tensor:
            # Logits (w·1e-3, 0) with labels 1: d loss / d w is 1e-3 · sigmoid(w·1e-3) = 5e-4 near 0.
            return torch.stack([self.weight * 1e-3, self.weight * 0], dim=1).expand(len(images), -1)

    model = Falling()
    recipe = Recipe(epochs=1, batch_size=1, lr=1.0, momentum=0, label_smoothing=0, warmup_epochs=1)
    train(lambda: model, brightness_data(labels=[1] * 8), recipe, seed=0, device="cpu")
    warmup = 0.25 + 0.5 + 0.75 + 1
    cosine = sum(0.5 * (1 + math.cos(math.pi * t / 4)) for t in range(4))
    assert model.weight.item() == pytest.approx(-5e-4 * (warmup + cosine), rel=1e-4)


def as_before(trainer: Trainer) -> dict[str, Any]:
    """The state of `trainer` in the form in which halving once left trainings in files."""
    state = trainer.state()
    training = state["training"] | {"generators": state["generators"][0]}
    figure = asdict(trainer.figure)
    del figure["figures"]
    return {"training": training, "figure": figure | {"tested_top1": figure.pop("tested_scores")}}


def without_test_losses(trainer: Trainer) -> dict[str, Any]:
    """The state of a trainer that did not keep them."""
    state = trainer.state()
    del state["curves"]["tested_loss"]
    return state


@pytest.mark.parametrize("form", [Trainer.state, as_before, without_test_losses])
def test_training_in_parts_is_the_training_in_one(digits: Data, tmp_path: Path, form: Any) -> None:
    recipe = Recipe(epochs=3, batch_size=256, ema=0.9)
    full = train(convnet, digits, recipe, seed=2, device="cpu")
    first = Trainer(convnet, digits, recipe, seed=2, device="cpu")
    first.advance(1)
    save_state(tmp_path / "a.state", form(first))
    second = Trainer(convnet, digits, recipe, seed=2, device="cpu")
    second.load_state(read_state(tmp_path / "a.state"))
    seconds = second.figure.seconds
    assert seconds == first.figure.seconds
    second.advance(3)
    assert second.figure.seconds > seconds
    assert second.figure.losses == full.losses
    assert second.figure.tested_scores == full.tested_scores
    assert second.figure.tested_epochs == [1, 2, 3]
    known = full.tested_loss if form is Trainer.state else [None, *full.tested_loss[1:]]
    assert second.figure.tested_loss == known


def test_trainings_that_take_turns_in_one_process_do_not_touch_each_other(digits: Data) -> None:
    recipe = Recipe(epochs=2, batch_size=256)
    full = [train(convnet, digits, recipe, seed=seed, device="cpu").losses for seed in (0, 1)]
    trainers = [Trainer(convnet, digits, recipe, seed=seed, device="cpu") for seed in (0, 1)]
    for epochs in (1, 2):
        for trainer in trainers:
            trainer.advance(epochs)
    assert [trainer.figure.losses for trainer in trainers] == full


class Keeping(Callbacks):
    """Rows and saves of a training that stops after step `until`, within a test if one follows it."""

    def __init__(self, until: int) -> None:
        self.until, self.stopped = until, False
        self.rows: list[tuple[Any, ...]] = []
        self.saved: list[bool] = []

    def on_step(self, step: int, steps: int) -> None:
        self.stopped = step >= self.until

    def on_row(self, row: Row) -> None:
        self.rows.append((row.step, row.epoch, row.lr, row.loss, row.test_loss, row.top1, row.top5))

    def save(self, weights: bool) -> None:
        self.saved.append(weights)

    def stop(self) -> bool:
        return self.stopped


@pytest.mark.parametrize(
    ("until", "saved"),
    [
        (3, [True]),  # between two rows
        (4, [True]),  # at a row
        (5, [False]),  # in an epoch's test
        (10, [True, False]),  # in that of the last one
    ],
)
def test_a_training_that_is_stopped_resumes_to_the_same_rows(
    digits: Data, tmp_path: Path, until: int, saved: list[bool]
) -> None:
    def begun() -> Trainer:
        recipe = Recipe(epochs=2, batch_size=256)
        return Trainer(convnet, digits, recipe, seed=0, device="cpu", log_every=2)

    full, first, second = begun(), begun(), begun()
    rows, part, rest = Keeping(99), Keeping(until), Keeping(99)
    full.advance(2, rows)
    assert (full.finished, rows.saved) == (True, [True, True])
    assert [row[0] for row in rows.rows] == [2, 4, 5, 6, 8, 10]
    assert [row[0] for row in rows.rows if row[-1] is not None] == [5, 10]
    first.advance(2, part)
    assert (first.finished, part.saved) == (False, saved)
    save_state(tmp_path / "a.state", first.state())
    second.load_state(read_state(tmp_path / "a.state"))
    second.advance(2, rest)
    assert second.finished
    assert part.rows + rest.rows == rows.rows
    assert second.figure.tested_scores == full.figure.tested_scores
    assert second.figure.losses == full.figure.losses


def test_a_process_resumes_from_what_its_part_has_seen_and_drawn(digits: Data) -> None:
    def begun(seed: int, rank: int = 0) -> Trainer:
        recipe = Recipe(epochs=2, batch_size=512)
        return Trainer(convnet, digits, recipe, seed=seed, device="cpu", processes=Processes(rank))

    first, second = begun(0), begun(0, rank=1)
    first.advance(1)
    drawn = begun(7).state()["generators"][0]
    second.load_state(
        first.state() | {"generators": [*first.state()["generators"], drawn], "damaged": ["a.png"]}
    )
    assert torch.equal(second.state()["generators"][0]["cpu"], drawn["cpu"])
    second.advance(2)
    assert second.figure.damaged == ("a.png",)


def test_what_is_kept_after_a_test_is_the_network_before_it() -> None:
    class Counting(nn.Module):
        tested: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
            self.register_buffer("tested", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.tested += not self.training
            logits: Tensor = self.layers(images)
            return logits

    found = []

    class Looking(Callbacks):
        def on_test(self) -> None:
            found.append(network.tested.item())

    network, data = Counting(), brightness_data(labels=[0, 1, 2, 3])
    train(lambda: network, data, Recipe(epochs=2, batch_size=2), seed=0, device="cpu", callbacks=Looking())
    assert found == [0, 0]


def test_a_training_that_is_tested_is_the_one_that_is_not(digits: Data) -> None:
    def losses(tested: bool) -> list[float]:
        torch.manual_seed(0)
        recipe = Recipe(epochs=2, batch_size=256)
        training = TrainingLoop(convnet(), digits.train, recipe, seed=0, device="cpu")
        found = []
        for loss in training.losses(training.steps):
            assert loss is not None
            found.append(loss.item())
            if tested:
                with ready_for_test(training.network, digits.train, recipe, seed=0, device="cpu"):
                    evaluate(training.network, digits.test, 100, "cpu")
        return found

    assert losses(True) == losses(False)


def test_moving_average_is_that_of_the_weights_after_each_step(digits: Data) -> None:
    torch.manual_seed(0)
    recipe = Recipe(steps=4, epochs=None, batch_size=64, ema=0.75)
    linear = nn.Linear(768, 10)
    network = nn.Sequential(nn.Flatten(), linear)
    training = TrainingLoop(network, digits.train, recipe, seed=0, device="cpu")
    weight = linear.weight
    expected = None
    for _ in training.losses(4):
        now = weight.detach().clone()
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    assert expected is not None
    last = weight.detach().clone()
    with ready_for_test(network, digits.train, recipe, seed=0, device="cpu", average=training.average):
        assert torch.allclose(weight, expected, rtol=1e-5)
        assert not torch.equal(weight, last)
    assert torch.equal(weight, last)


def test_gradients_are_clipped_to_their_norm() -> None:
    # Plain SGD moves the weights by the learning rate times the gradient: clipped, by 0.01 in all.
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    before = [p.detach().clone() for p in network.parameters()]
    recipe = Recipe(
        steps=1,
        epochs=None,
        batch_size=4,
        lr=1.0,
        kernel_lr=1,
        momentum=0,
        weight_decay=0,
        clip_grad_norm=0.01,
    )
    data = brightness_data(labels=[0, 1, 2, 3])
    list(TrainingLoop(network, data.train, recipe, seed=0, device="cpu").losses(1))
    moved = [(p.detach() - b).norm() for p, b in zip(network.parameters(), before, strict=True)]
    assert math.hypot(*map(float, moved)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_mixed_precision_learns_what_float32_does(digits: Data, amp: Amp) -> None:
    full, mixed = (
        train(convnet, digits, Recipe(epochs=1, batch_size=64, amp=how), seed=0, device="cpu")
        for how in ("off", amp)
    )
    assert mixed.losses != full.losses
    assert mixed.losses == pytest.approx(full.losses, rel=0.02)


def test_a_loss_that_is_finite_and_hopeless_ends_the_training_too() -> None:
    class Confident(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((1,), 100.0))

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([self.scale, -self.scale], 1).expand(len(images), -1)

    recipe = Recipe(epochs=1, batch_size=4, lr=1e-9, label_smoothing=0)
    # Every label is 1, for which the loss is 200; ten times ln 2 is 7.
    with pytest.raises(RunError, match=r"\b200\b.* 1 of 1 \(seed 0\)"):
        train(Confident, brightness_data(labels=[1] * 4), recipe, seed=0, device="cpu")


def test_kernels_learn_faster_and_only_matrices_decay() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        WeightNetConv2d(4, 4, 3, M=2, G=1),
        CondConv2d(4, 4, 1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    model[5].bias.requires_grad_(False)
    recipe = Recipe(lr=0.5, kernel_lr=4, weight_decay=0.01, lr_parity=False)
    groups = parameter_groups(model, recipe)
    names = {id(p): name for name, p in model.named_parameters()}
    kernels, matrices, vectors = ([names[id(p)] for p in group["params"]] for group in groups)
    assert kernels == ["0.weight", "2.fc2.weight", "3.weight"]
    assert matrices == ["2.reduce.weight", "2.fc1.weight", "3.routing.weight", "5.weight"]
    assert vectors == ["0.bias", "1.weight", "1.bias", "2.reduce.bias", "2.fc1.bias", "3.routing.bias"]
    assert [group["peak_lr"] for group in groups] == [2.0, 0.5, 0.5]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.01, 0.0]
