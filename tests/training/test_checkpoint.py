from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wnexplore
from wnexplore.errors import InputError
from wnexplore.models import ShuffleNetV2
from wnexplore.training.checkpoint import load_checkpoint


def _net(classes: int = 10) -> nn.Module:
    return wnexplore.build("shufflenet_v2_x0_5", stem="small", num_classes=classes)


@pytest.mark.parametrize("published_order", [False, True])
def test_weights_and_the_order_of_channels_come_back(published_order: bool, tmp_path: Path) -> None:
    saved, loaded, path = _net(), _net(), tmp_path / "weights.pth"
    assert isinstance(saved, ShuffleNetV2)
    if published_order:
        saved.use_published_order()
    torch.save(saved.state_dict(), path)
    load_checkpoint(loaded, path)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded.eval()(images), saved.eval()(images))


def _without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: _net(7).state_dict(), "size mismatch for fc.weight"),
        (lambda: _without(_net().state_dict(), "fc.bias"), "fc.bias"),
        (lambda: {**_net().state_dict(), "fc.gain": torch.ones(1)}, "fc.gain"),
        (lambda: {"state_dict": OrderedDict()}, "missing"),
        (lambda: {**_net().state_dict(), "fc.bias": "none"}, "fc.bias"),
        (lambda: [torch.ones(1)], "names"),
        (lambda: {1: torch.ones(1)}, "names"),
        (lambda: _net(), "torch.save"),
    ],
)
def test_weights_of_something_else(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content(), path)
    with pytest.raises(InputError) as error:
        load_checkpoint(_net(), path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.pth"):
        load_checkpoint(_net(), tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="directory"):
        load_checkpoint(_net(), tmp_path)
    (tmp_path / "text").write_text("weights")
    with pytest.raises(InputError, match=r"torch.save"):
        load_checkpoint(_net(), tmp_path / "text")
