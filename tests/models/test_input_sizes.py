"""Networks for images of one size, and of other channels, that `convert` is message nothing of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.examples import rest_slow
from wnexplore.errors import InputError
from wnexplore.models import convert
from wnexplore.models.conv_calls import RESOLUTIONS, layout
from wnexplore.models.input_sizes import likely_channels, stated_sizes


def flat(size: int, channels: int = 3) -> nn.Module:
    """As LeNet ends: in a linear layer that fits one size."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 4, 3, 1, 1), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, 1, 1), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(8 * (size // 4) ** 2, 10)),
    )


def alex() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 5, padding=2), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(8 * 36, 10)),
    )


class Tokens(nn.Module):
    """Patches with a position each, and what the network says of the size."""

    def __init__(self, size: int, patch: int, position: str = "positions", **stated: Any) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, patch, patch)
        self.mix = nn.Conv2d(8, 8, 3, padding=1)
        self.register_parameter(position, nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, 8)))
        self.position = position
        for name, value in stated.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        t = self.mix(self.patch(x)).flatten(2).transpose(1, 2)
        t = torch.cat([t.mean(1, keepdim=True), t], 1) + self.get_parameter(self.position)
        return t.mean(1)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        *((flat(size), size) for size in (8, 336)),
        *(pytest.param(flat(size), size, marks=pytest.mark.slow) for size in (40, 72, 160)),
        (alex(), 227),
        (Tokens(56, 8), 56),
        (Tokens(336, 14), 336),
        (Tokens(36, 6, "learned", image_size=36), 36),
        (Tokens(36, 6, "learned", img_size=(36, 36)), 36),
        (Tokens(36, 6, "learned", config=SimpleNamespace(image_size=36)), 36),
        (Tokens(36, 6, "learned", config={"image_size": {"height": 36, "width": 36}}), 36),
        (Tokens(36, 6, "learned", default_cfg={"input_size": (3, 36, 36)}), 36),
        (Tokens(36, 6, "learned", part=Tokens(36, 6, input_resolution=[36, 36])), 36),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else type(value).__name__,
)
def test_the_size_is_found_where_it_is_not_said(model: nn.Module, size: int) -> None:
    assert size not in RESOLUTIONS
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    before = model.double().eval()(x)
    done = convert(model, M=1, G=1)
    assert done.replaced
    torch.testing.assert_close(model(x), before)
    # Also the largest size that a pooling cuts down to it: the same layers run.
    assert 0 <= layout(model).resolution - size < 32


def test_a_size_that_can_not_be_found_is_requested() -> None:
    with pytest.raises(InputError, match=r"\b224\b.*\b256\b.*resolution=") as message:
        convert(Tokens(36, 6, "learned"), M=1, G=1)
    assert "\n" not in str(message.value)
    assert convert(Tokens(36, 6, "learned"), M=1, G=1, resolution=36).replaced


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("size", rest_slow([28, 40], 40))
def test_the_channels_of_an_image_are_found_by_trying(channels: int, size: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Made before the one that reads the image.
            self.later = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in (5, 6, 7, 9, 8))
            self.body = flat(size, channels)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            more: Tensor = self.later[4](torch.ones_like(x[:, :1]).expand(-1, 8, -1, -1))
            return y + more.mean()

    model = Net()
    assert channels in likely_channels(model, size)
    assert layout(model).channels == channels
    assert {change.name for change in convert(model, M=1, G=1).replaced} >= {"body.2"}


def test_what_is_no_size_is_not_taken_for_one() -> None:
    class Odd(nn.Module):
        image_size = True
        input_size = "large"
        resolution = 10**9
        img_size = ()

        @property
        def crop_size(self) -> int:
            raise RuntimeError("not yet")

    assert stated_sizes(Odd()) == []
