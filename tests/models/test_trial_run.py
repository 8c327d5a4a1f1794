"""Trials of networks: what they cost, what is remembered of them, and what a network wants of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import external_networks
from wnexplore.design.counts import count
from wnexplore.design.point import DesignPoint
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models.build import build
from wnexplore.models.copies import with_numbers, without_numbers
from wnexplore.models.external import load
from wnexplore.models.fingerprint import fingerprint
from wnexplore.models.multiply_adds import counted
from wnexplore.models.trial_run import try_out
from wnexplore.nn import GeneratedConv2d
from wnexplore.space.skeleton_cache import skeleton_of

FILE = Path(external_networks.__file__)


class Rows(nn.Module):
    """A recurrent layer along the rows of an image."""

    def __init__(self, layers: nn.RNNBase) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        rows = x.mean(2).transpose(1, 2)
        y: Tensor = self.layers(rows if self.layers.batch_first else rows.transpose(0, 1))[0]
        return y.mean(1 if self.layers.batch_first else 0)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda **options: nn.LSTM(3, 8, 2, bidirectional=True, proj_size=4, dropout=0.1, **options),
        lambda **options: nn.GRU(3, 8, **options),
        lambda **options: nn.RNN(3, 8, nonlinearity="relu", **options),
    ],
)
def test_a_recurrent_layer_costs_a_trial_one_step(make: Callable[..., nn.RNNBase], batch_first: bool) -> None:
    model = Rows(make(batch_first=batch_first))
    short, long = (try_out(model, size, training=True) for size in (16, 512))
    assert len(long.steps) == len(short.steps)
    assert long.output.shape == model(torch.zeros(2, 3, 16, 16)).shape
    assert not long.without_gradient
    assert not long.decided


def test_a_packed_sequence_counts_its_steps_with_numbers_and_without() -> None:
    lengths = torch.tensor([5, 3, 2])
    layer = nn.LSTM(3, 8, 2, bidirectional=True)
    weights = sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() == 2)
    for device in ("cpu", "meta"):
        x = torch.zeros(5, 3, 3, device=device)
        with torch.no_grad(), counted(layer) as products:
            output, (last, _) = layer.to(device)(nn.utils.rnn.pack_padded_sequence(x, lengths))
        assert products.total == 10 * weights
        assert (output.data.shape, last.shape) == ((10, 16), (4, 3, 8))


def test_what_is_laid_out_stays_so() -> None:
    """A view of what a recurrent layer gives is one with numbers and without."""

    class Viewed(Rows):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers(x.mean(2).transpose(1, 2))[0]
            return y.transpose(0, 1).view(-1, 8).view(x.shape[-1], -1, 8).mean(0)

    assert not try_out(Viewed(nn.GRU(3, 8, batch_first=True)), 16, training=True).decided


@pytest.mark.parametrize(("name", "again"), [("Counting", 0), ("Deciding", None)])
def test_a_file_s_network_is_tried_once_a_process(name: str, again: int | None) -> None:
    point = DesignPoint.of(f"{FILE}:{name}", "se", resolution=48, num_classes=10)
    seen: list[tuple[bool, int]] = type(load(point.backbone, 10)).seen  # type: ignore[attr-defined]
    runs = []
    for _ in range(3):
        seen.clear()
        build(point)
        runs.append(len(seen))
    # Where the layers stand in the network that was made is looked at each time.
    assert runs[1] == runs[2]
    if again is None:
        assert runs[1] == runs[0]
        # With numbers only at the size of its images.
        assert {size for has_numbers, size in seen if has_numbers} == {48}
    else:
        assert runs[1] == 1 < runs[0]
        assert not any(has_numbers for has_numbers, _ in seen)


def test_what_is_like_another_network_and_what_is_not() -> None:
    def made(value: object = 1, act: object = torch.relu, width: int = 8) -> nn.Module:
        model = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        model.value, model.act = value, act  # type: ignore[assignment]
        model.register_forward_hook(lambda module, images, output: act(output))  # type: ignore[operator]
        return model

    assert fingerprint(made()) == fingerprint(made()) is not None
    assert fingerprint(made([1, {"a": 2.0}])) == fingerprint(made([1, {"a": 2.0}])) is not None
    others = [made(), made(2), made(True), made(1.0), made(act=torch.tanh), made(width=4), made([1])]
    others += [made(act=lambda x: x), made({"b": 1}), made(torch.zeros(2)), made(torch.zeros(3))]
    found = [fingerprint(network) for network in others]
    assert None not in found
    assert len(set(found)) == len(others)
    assert fingerprint(made(iter([1]))) is None
    shared, apart = nn.ReLU(), nn.Sequential(nn.ReLU(), nn.ReLU())
    assert fingerprint(nn.Sequential(shared, shared)) != fingerprint(apart)


def test_a_network_that_holds_what_it_computed_is_copied() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model[0])
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(with_numbers(model)(x), model(x))
    assert without_numbers(model)(x.to("meta")).shape == (2, 2)


@pytest.mark.parametrize("name", ["compiled", "compiled_in_place", "CompiledPart", "CompiledMethod"])
def test_a_network_that_compiles_itself_is_as_it_was_written(name: str) -> None:
    for method in ("plain", "condconv"):
        point = DesignPoint.of(f"{FILE}:{name}", method, resolution=32, num_classes=10)
        model = build(point)
        counted = measure_complexity(model, 32)
        assert count(point, skeleton_of(point)) == (counted.params, counted.flops)
        assert not any("_orig_mod" in name for name, _ in model.named_parameters())
        assert any(isinstance(module, GeneratedConv2d) for module in model.modules()) == (
            method == "condconv"
        )


@pytest.mark.parametrize("name", ["Grows", "Shrinks", "OnlyLarge"])
@pytest.mark.parametrize("method", ["plain", "condconv", "se"])
def test_what_runs_otherwise_on_images_of_another_size(name: str, method: str) -> None:
    point = DesignPoint.of(f"{FILE}:{name}", method, resolution=16, num_classes=10)
    counted = measure_complexity(build(point), 16)
    assert count(point, skeleton_of(point)) == (counted.params, counted.flops)


@pytest.mark.parametrize("script", [False, True])
def test_scripts_count(script: bool) -> None:
    """Of a script the modules can't be seen: its work is that of what it stands in."""
    point = DesignPoint.of(f"{FILE}:{'scripted' if script else 'Base'}", resolution=32, num_classes=10)
    expected = 16 * 16 * 8 * (27 + 72) + 80
    assert count(point, skeleton_of(point)).flops == expected
    assert measure_complexity(build(point), 32).flops == expected
