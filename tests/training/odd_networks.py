"""Networks that hold more than parameters and the statistics of batch normalisation, as people bring them."""

from __future__ import annotations

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d


class Net(nn.Module):
    """Images (N, 3, H, W) to logits: two convolutions, each followed by what `make` gives for its width."""

    def __init__(
        self,
        num_classes: int,
        make: Callable[[int], nn.Module] = nn.BatchNorm2d,
        wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer,
    ) -> None:
        super().__init__()
        self.first = wrap(nn.Conv2d(3, 8, 3, 2, 1))
        self.one = make(8)
        self.second = wrap(nn.Conv2d(8, 16, 3, 2, 1))
        self.two = make(16)
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(self.first(images)).relu()
        x = self.two(self.second(x)).relu()
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def _pretrained(norm: nn.Module) -> nn.Module:
    """`norm` with statistics that aren't 0 and 1."""
    buffers: Any = dict(norm.named_buffers())
    buffers["running_mean"].copy_(torch.linspace(-0.2, 0.3, len(buffers["running_mean"])))
    buffers["running_var"].copy_(torch.linspace(0.5, 1.5, len(buffers["running_var"])))
    return norm


class _FrozenInTrain(Net):
    """The first norm stays in evaluation mode, whatever is asked for."""

    def train(self, mode: bool = True) -> _FrozenInTrain:
        super().train(mode)
        self.one.eval()
        return self


class _FrozenInForward(Net):
    def forward(self, images: Tensor) -> Tensor:
        self.one.eval()
        return super().forward(images)


class _FrozenLater(Net):
    """Frozen from the third forward pass in training on, the stem's weights with it."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
            if self.passes > 3:
                self.one.eval()
                self.first.requires_grad_(False)
        return super().forward(images)


def frozen_by_train(num_classes: int) -> nn.Module:
    net = _FrozenInTrain(num_classes)
    _pretrained(net.one)
    return net


def frozen_in_forward(num_classes: int) -> nn.Module:
    net = _FrozenInForward(num_classes)
    _pretrained(net.one)
    return net


def frozen_later(num_classes: int) -> nn.Module:
    return _FrozenLater(num_classes)


def frozen_by_momentum(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: _pretrained(nn.BatchNorm2d(width, momentum=0.0)))


def frozen_torchvision(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: _pretrained(FrozenBatchNorm2d(width)))


def frozen_affine(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: nn.BatchNorm2d(width).requires_grad_(False))


def no_statistics(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: nn.BatchNorm2d(width, track_running_stats=False))


def cumulative(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: nn.BatchNorm2d(width, momentum=None))


def synced(num_classes: int) -> nn.Module:
    # Not SyncBatchNorm itself, which a CPU has none of: a subclass as people write them.
    class Own(nn.BatchNorm2d):
        pass

    return Net(num_classes, Own)


def instance(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: nn.InstanceNorm2d(width, affine=True, track_running_stats=True))


def spectral(num_classes: int) -> nn.Module:
    return Net(num_classes, wrap=nn.utils.parametrizations.spectral_norm)


def spectral_old(num_classes: int) -> nn.Module:
    return Net(num_classes, wrap=nn.utils.spectral_norm)


def weight_norm(num_classes: int) -> nn.Module:
    return Net(num_classes, wrap=nn.utils.parametrizations.weight_norm)


def weight_norm_old(num_classes: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Net(num_classes, wrap=nn.utils.weight_norm)


class _Late(nn.Module):
    """A scale that is made in the first forward pass and remade in every one, its flag no buffer."""

    scale: Tensor
    seen: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.made = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.made:
            self.register_buffer("scale", torch.ones(x.shape[1]))
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
            self.made = True
        if self.training:
            self.scale = 0.8 * self.scale + 0.2 * x.detach().abs().mean((0, 2, 3))
            self.seen += len(x)
        return x / self.scale[:, None, None]


def late(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: nn.Sequential(_Late(width), nn.BatchNorm2d(width)))


class _Queue(nn.Module):
    """A buffer, in no state dict, that grows with training."""

    kept: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones(1, width), persistent=False)
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.kept = torch.cat([self.kept, x.detach().std((0, 2, 3))[None]])[-5:]
        return x / self.kept.mean(0)[:, None, None]


def remade(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: nn.Sequential(_Queue(width), nn.BatchNorm2d(width)))


class _Extra(nn.BatchNorm2d):
    """Batch normalisation with a number, or more, of its own that no tensor holds."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__(width)
        self.kind = kind
        self._hidden: Any = {"steps": 0}

    def forward(self, x: Tensor) -> Tensor:
        self._hidden["steps"] += self.training
        scaled: Tensor = super().forward(x) * (1 + 0.01 * self._hidden["steps"])
        return scaled

    def get_extra_state(self) -> Any:
        steps = self._hidden["steps"]
        if self.kind == "none":
            return None
        if self.kind == "tensor":
            return torch.tensor(steps)
        return (
            steps if self.kind == "int" else {"of": [("steps", steps)], "mean": np.float32(0.5), "no": None}
        )

    def set_extra_state(self, state: Any) -> None:
        if state is not None:
            self._hidden["steps"] = int(state["of"][0][1] if self.kind == "dict" else state)


class _NoAttributes(_Extra):
    """Its number is where nobody sees it but its own methods."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__(width, kind)
        self._hidden: Any = _Box(self._hidden)


class _Box:
    """Without attributes that anybody could list."""

    __slots__ = ("_steps",)

    def __init__(self, content: dict[str, int]) -> None:
        self._steps = content["steps"]

    def __getitem__(self, name: str) -> int:
        return self._steps

    def __setitem__(self, name: str, value: int) -> None:
        self._steps = value


def extra_dict(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: _NoAttributes(width, "dict"))


def extra_int(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: _NoAttributes(width, "int"))


def extra_tensor(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: _NoAttributes(width, "tensor"))


def extra_none(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda width: _Extra(width, "none"))


class _Noise(nn.Module):
    """Noise from generators of its own, and of the process."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.torchs = torch.Generator().manual_seed(1)
        self.numpys = np.random.default_rng(2)
        self.pythons = random.Random(3)
        self.temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x) * self.temperature
        if self.training:
            self.temperature *= 0.99
            x = x + 0.1 * torch.randn(x.shape, generator=self.torchs)
            x = x * (0.9 + 0.2 * self.numpys.random() * self.pythons.random())
            x = x * (0.9 + 0.2 * np.random.rand() * random.random())
        return functional.dropout(x, 0.1, self.training)


def generators(num_classes: int) -> nn.Module:
    return Net(num_classes, _Noise)


class _Teacher(Net):
    """A second head that follows the first in each forward pass in training, and a buffer of one number."""

    wide: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.teacher = nn.Linear(16, num_classes).requires_grad_(False)
        self.register_buffer("wide", torch.full((1,), 0.5).expand(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(self.first(images)).relu()
        x = self.two(self.second(x)).relu().mean((2, 3))
        if self.training:
            with torch.no_grad():
                self.teacher.weight.lerp_(self.head.weight, 0.2)
        logits: Tensor = self.head(x) + self.wide * self.teacher(x)
        return logits


def teacher(num_classes: int) -> nn.Module:
    return _Teacher(num_classes)


class _Phase(Enum):
    FIRST = 1
    SECOND = 2


class _Span(NamedTuple):
    low: float
    high: float


class _Schedule:
    """A number of its own, and what it has seen."""

    def __init__(self) -> None:
        self.calls = 0
        self.last = torch.zeros(1)
        self.of_itself = self

    def __call__(self) -> float:
        self.calls += 1
        return float(1 + 0.02 * self.calls)


class _Objects(nn.Module):
    """Values of classes of its own, and of Python's that are no plain list or dictionary."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.schedule, self.others = _Schedule(), [_Schedule(), _Schedule()]
        self.phase = _Phase.FIRST
        self.span = _Span(0.0, 1.0)
        self.counts: Counter[str] = Counter()
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.space = SimpleNamespace(scale=1.0)
        self.code = b"\x00"

    def forward(self, x: Tensor) -> Tensor:
        # In evaluation too, where they must be put back.
        self.counts["evaluated"] += 1
        if self.training:
            self.counts["trained"] += 1
            self.phase = _Phase.SECOND if self.counts["trained"] > 3 else _Phase.FIRST
            self.span = _Span(self.span.low - 0.01, self.span.high + 0.01)
            self.sums["all"] += 0.01
            self.space.scale *= 0.99
            self.code += b"\x01"
            self.schedule.last = x.detach().abs().mean()[None]
        factor = self.schedule() * self.others[self.phase.value - 1]() * self.space.scale
        factor *= (self.span.high - self.span.low) * (1 + self.sums["all"]) * (1 + 0.01 * len(self.code))
        scaled: Tensor = self.norm(x) * factor / (1 + self.schedule.last)
        return scaled


def objects(num_classes: int) -> nn.Module:
    return Net(num_classes, _Objects)


class _Tied(Net):
    """A head whose weight is used twice, and a parameter that never gets a gradient."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.again = nn.Linear(16, num_classes)
        self.again.weight = self.head.weight
        self.unused = nn.Parameter(torch.ones(3))
        self.fixed = nn.Parameter(torch.full((1,), 0.7), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(self.first(images)).relu()
        x = self.two(self.second(x)).relu().mean((2, 3))
        logits: Tensor = self.head(x) + self.fixed * self.again(x.flip(1))
        return logits


def tied(num_classes: int) -> nn.Module:
    return _Tied(num_classes)


class _Lazy(Net):
    """Sizes that the first images tell, and a layer that is only made then."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.LazyLinear(num_classes)
        self.more: nn.Module | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.more is None:
            self.more = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
        return super().forward(self.more(images))


def lazy(num_classes: int) -> nn.Module:
    return _Lazy(num_classes)


NAMES = [
    name
    for name, made in list(globals().items())
    if callable(made) and not name.startswith("_") and getattr(made, "__module__", "") == __name__
]
NAMES.remove("Net")
