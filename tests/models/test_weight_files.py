"""Weights as other people's trainings save them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from wnexplore.errors import InputError
from wnexplore.models.weight_files import unwrapped
from wnexplore.training.checkpoint import load_checkpoint


def a_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


class _Lightning(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def wrapped_states(network: nn.Module) -> dict[str, Any]:
    """What trainings save of `network`."""
    state = network.state_dict()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    return {
        "as it is": state,
        "beside other things": {
            "epoch": 3,
            "state_dict": state,
            "optimizer": {"state": {}, "param_groups": []},
        },
        "DataParallel": {
            "state_dict": nn.DataParallel(network).state_dict(),
            "arch": "net",
            "best_acc1": 7.0,
        },
        "compiled": {f"_orig_mod.{key}": value for key, value in state.items()},
        "compiled in DistributedDataParallel": {
            "model": {f"module._orig_mod.{k}": v for k, v in state.items()}
        },
        "Lightning": {"state_dict": _Lightning(network).state_dict(), "hyper_parameters": {}},
        "nested": {"model": {"state_dict": state}},
        "an average": AveragedModel(network).state_dict(),
        "an average among others": {"ema": AveragedModel(network).state_dict(), "step": 3},
        "an average beside the weights": {"model": state, "model_ema": other},
        "timm's average": {"state_dict_ema": state, "version": 2},
    }


@pytest.mark.parametrize("how", wrapped_states(a_network()))
def test_weights_are_found_where_trainings_put_them(how: str, tmp_path: Path) -> None:
    saved, loaded = a_network(), a_network()
    torch.save(wrapped_states(saved)[how], tmp_path / "weights.pth")
    load_checkpoint(loaded, tmp_path / "weights.pth")
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_which_weights_are_taken_is_reported_and_can_be_chosen(tmp_path: Path) -> None:
    network, average, network2 = a_network(), a_network(), a_network()
    path = tmp_path / "weights.pth"
    saved = {"model": network.state_dict(), "model_ema": {"state_dict": average.state_dict()}}
    torch.save(saved | {"mine": network2.state_dict(), "epoch": 1}, path)
    for key, expected in ((None, network), ("model", network), ("model_ema", average), ("mine", network2)):
        loaded, message = a_network(), list[str]()
        load_checkpoint(loaded, path, key, message.append)
        assert torch.equal(loaded.state_dict()["0.weight"], expected.state_dict()["0.weight"])
        (line,) = message
        assert f"'{key or 'model'}'" in line.partition(",")[0]
        assert "'model', 'model_ema'" in line.partition(",")[2]
    with pytest.raises(InputError, match=r"'epoch'.*'model', 'model_ema'"):
        load_checkpoint(a_network(), path, "epoch")
    torch.save(network.state_dict(), path)
    message = []
    load_checkpoint(a_network(), path, None, message.append)
    assert message == [], "there is no choice"
    with pytest.raises(InputError, match="'model'"):
        load_checkpoint(a_network(), path, "model")


def test_names_of_the_network_itself_are_never_taken_for_a_wrapper() -> None:
    network = _Lightning(nn.Linear(2, 2))
    for state in (network.state_dict(), nn.DataParallel(network).state_dict()):
        assert unwrapped(state, network.state_dict().keys()).keys() == network.state_dict().keys()


def test_a_mapping_that_holds_itself_ends(tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    state["model"] = state
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="missing"):
        load_checkpoint(a_network(), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (np.float64(0.7), r"a numpy scalar \(numpy\._core\.multiarray\.scalar\)"),
        (np.bool_(True), r"a numpy scalar"),
        (np.ones(3), r"a numpy array"),
        (argparse.Namespace(lr=0.1), r"an object \(argparse\.Namespace\)"),
        (Path("data"), r"an object \(pathlib\."),
        (nn.Linear(1, 1), r"an object \(torch\.nn\.modules\.linear\.Linear\)"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_not_read_is_named(extra: object, message: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    content = {"state_dict": a_network().state_dict(), "beside": extra}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=message) as error:
        load_checkpoint(a_network(), path)
    assert "state_dict()" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "empty"),
        (lambda whole: whole[:-100], "damaged"),
        (lambda whole: whole[:50], "damaged"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (lambda whole: b"<!DOCTYPE html>", "torch.save"),
    ],
)
def test_damaged_files_are_reported(damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(a_network().state_dict(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_checkpoint(a_network(), path)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "harm",)

    torch.save({"state_dict": a_network().state_dict(), "x": Harm()}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="code"):
        load_checkpoint(a_network(), tmp_path / "weights.pth")
    assert not (tmp_path / "harm").exists()
