"""What a network holds beside its parameters: kept in files, put back, and left alone by a test."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.examples import examples
from tests.training import odd_networks
from wnexplore.data import Data, EpochPass, load_data
from wnexplore.data.preprocessing import Preprocessing
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import Recipe
from wnexplore.models import build
from wnexplore.nn.activations import ActivationVectors
from wnexplore.training.accuracy import ready_for_test, refresh_batch_norm
from wnexplore.training.checkpoint import (
    CheckpointMetadata,
    load_checkpoint,
    read_state,
    save_checkpoint,
    save_state,
)
from wnexplore.training.determinism import reproducible
from wnexplore.training.network_state import SideState, Snapshot, load_network_state, network_state
from wnexplore.training.plain_values import NotPlainError, packed, same, unpacked
from wnexplore.training.weight_average import Average

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", resolution=8)


_numbers = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**130), 2**130),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.integers(-9, 9).map(np.int32),
    st.floats(-9, 9).map(np.float64),
    st.lists(st.integers(0, 9), max_size=4).map(lambda values: np.array(values, dtype=">u2")),
    st.lists(st.floats(-9, 9, width=32), max_size=4).map(torch.tensor),
)
_keys = st.one_of(st.text(max_size=3), st.integers(0, 9), st.tuples(st.integers(0, 3), st.booleans()))
_values = st.recursive(
    _numbers,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda values: deque(values, 7)),
        st.dictionaries(_keys, inner, max_size=3),
        st.dictionaries(_keys, inner, max_size=3).map(OrderedDict),
        st.sets(st.integers(0, 9), max_size=3),
    ),
    max_leaves=8,
)


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=_values)
def test_a_value_comes_back_from_a_file_that_runs_no_code(value: Any, tmp_path: Path) -> None:
    save_state(tmp_path / "a.state", {"value": packed(value)})
    found = unpacked(read_state(tmp_path / "a.state")["value"])
    assert type(found) is type(value)
    assert same(packed(found), packed(value))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.Generator().manual_seed(5),
        lambda: random.Random(5),
        lambda: np.random.default_rng(5),
        lambda: np.random.Generator(np.random.Philox(5)),
        lambda: np.random.RandomState(5),
    ],
)
def test_a_generator_continues_where_it_was(make: Any, tmp_path: Path) -> None:
    def draw(generator: Any) -> float:
        if isinstance(generator, torch.Generator):
            return torch.rand(1, generator=generator).item()
        return float(generator.random())

    first, second = make(), make()
    draw(first)
    save_state(tmp_path / "a.state", {"value": packed(first)})
    expected = [draw(first) for _ in range(3)]
    state = read_state(tmp_path / "a.state")["value"]
    assert unpacked(state, second) is second, "others hold it too"
    assert [draw(second) for _ in range(3)] == expected
    anew = unpacked(state)
    assert [draw(anew) for _ in range(3)] == expected


def test_what_would_need_code_is_not_kept() -> None:
    itself: list[Any] = []
    itself.append(itself)
    for value in (object(), Path(), lambda: 0, nn.Linear(1, 1), itself, [torch.ones(1, requires_grad=True)]):
        with pytest.raises(NotPlainError):
            packed(value)


@pytest.mark.parametrize("name", odd_networks.NAMES)
def test_a_pass_that_is_put_back_leaves_no_trace(name: str) -> None:
    with reproducible(0, "cpu"):
        network: nn.Module = getattr(odd_networks, name)(num_classes=4)
        network.train()(IMAGES).sum().backward()
        before = copy.deepcopy(network_state(network))
        snapshot = Snapshot(network, parameters=True)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)
            network(IMAGES)
            network.eval()(IMAGES)
        snapshot.put_back()
        assert same_state(network_state(network), before)
        # It can still learn.
        network(IMAGES).sum().backward()


def same_state(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[key], other[key]) for key in one)
    return same(one, other)


@pytest.mark.parametrize(
    "name", ["frozen_by_train", "frozen_in_forward", "frozen_by_momentum", "frozen_torchvision"]
)
@pytest.mark.parametrize("ema", [None, 0.5])
def test_frozen_statistics_are_those_that_are_tested(name: str, ema: float | None, digits: Data) -> None:
    network: nn.Module = getattr(odd_networks, name)(num_classes=10)
    expected = {key: value.clone() for key, value in network.named_buffers() if key.startswith("one.running")}
    average = None if ema is None else Average(network, ema)
    for _ in range(2):
        network.train()(IMAGES)
        if average is not None:
            average.update()
    recipe = Recipe(batch_size=128)
    with ready_for_test(network, digits.train, recipe, seed=0, device="cpu", average=average):
        assert len(expected) == 2
        for key, value in expected.items():
            assert torch.equal(network.get_buffer(key), value)


def test_others_are_refreshed_as_they_are_behind_a_frozen_one(digits: Data) -> None:
    network = odd_networks.frozen_in_forward(10)
    assert isinstance(network, odd_networks.Net)
    seen: list[Tensor] = []
    network.two.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    with torch.no_grad():
        for images, _ in list(digits.train.batches(256, "cpu", EpochPass(0, 0)))[:2]:
            network.train()(images)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    refresh_batch_norm(network, digits.train, 256, "cpu", EpochPass(0, 0))
    assert torch.allclose(network.get_buffer("two.running_mean"), means, atol=1e-5)
    assert torch.allclose(network.get_buffer("two.running_var"), variances, rtol=1e-4)


@pytest.mark.parametrize("name", ["spectral", "spectral_old", "late", "remade", "generators"])
def test_a_refresh_changes_nothing_but_batch_norm(name: str, digits: Data) -> None:
    with reproducible(0, "cpu"):
        network: nn.Module = getattr(odd_networks, name)(num_classes=10)
        network.train()(IMAGES)
        before = copy.deepcopy(network_state(network))
        refresh_batch_norm(network, digits.train, 256, "cpu", EpochPass(0, 0))
        after = network_state(network)
    norms = ("running_mean", "running_var", "num_batches_tracked")
    for state in (before, after):
        for key in [key for key in state["buffers"] if key.endswith(norms)]:
            del state["buffers"][key]
    assert same_state(before, after)


def test_a_moving_average_is_of_weights_and_statistics_alone() -> None:
    network = odd_networks.spectral_old(4)
    average = Average(network, 0.75)
    expected: dict[str, Tensor] = {}
    for _ in range(4):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(0.9)
        network.train()(IMAGES)
        average.update()
        for name, now in [*network.named_parameters(), *network.named_buffers()]:
            value = now.detach().clone()
            averaged = name in dict(network.named_parameters()) or "running" in name
            old = expected.get(name)
            expected[name] = 0.75 * old + 0.25 * value if averaged and old is not None else value
    average.put_in()
    found: dict[str, Tensor] = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5), name
    # The singular vectors are of norm one, as those of a mean are not.
    assert found["first.weight_u"].norm().item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["late", "remade", "extra_dict", "generators"])
def test_a_checkpoint_has_what_a_network_made_anew_lacks(name: str, tmp_path: Path) -> None:
    with reproducible(0, "cpu"):
        trained, anew = (getattr(odd_networks, name)(num_classes=10) for _ in range(2))
        side_state = SideState(trained)
        for _ in range(3):
            trained.train()(IMAGES)
        path, how = tmp_path / "a.safetensors", Preprocessing((0.5,) * 3, (0.5,) * 3)
        point = DesignPoint.of("resnet18", num_classes=10)  # of which nothing is built here
        metadata = CheckpointMetadata(
            point, "digits", tuple("0123456789"), how, {}, seed=0, step=1, epoch=1.0
        )
        save_checkpoint(path, trained, metadata, side_state.changed(trained))
        load_checkpoint(anew, path)
    found, expected = network_state(anew), network_state(trained)
    for kind in ("parameters", "buffers", "extra", "attributes"):
        assert same_state(found[kind], expected[kind]), kind


def test_a_state_of_another_network_is_reported() -> None:
    state = network_state(odd_networks.tied(4))
    with pytest.raises(ValueError, match="parameter"):
        load_network_state(odd_networks.cumulative(4), state)


def test_pythons_and_numpys_generators_are_seeded_and_put_back() -> None:
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    drawn = []
    for _ in range(2):
        with reproducible(3, "cpu"):
            drawn.append((random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]
    assert (random.random(), np.random.rand()) == expected


def test_a_state_of_an_earlier_version_leaves_nothing_in_layers_that_no_longer_have_it() -> None:
    def make() -> nn.Module:
        return build(
            DesignPoint.of("shufflenet_v2_x0_5", "weightnet", M=2, G=1, resolution=16, num_classes=10)
        )

    network, state = make(), network_state(make())
    beside = SideState(network)
    name = next(name for name, layer in network.named_modules() if isinstance(layer, ActivationVectors))
    state["attributes"][name]["_of_before"] = packed(False)
    load_network_state(network, state)
    assert not hasattr(network.get_submodule(name), "_of_before")
    assert beside.changed(network) == {}
