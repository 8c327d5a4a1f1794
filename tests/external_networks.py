"""A file of networks as people bring them, of every kind that was once counted or trained wrong."""

from __future__ import annotations

import sys
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Base(nn.Module):
    """A stem, a convolution that can be replaced, and a classifier; members say what lies between."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, num_classes)
        self.make()

    def make(self) -> None:
        pass

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.middle(self.conv(self.stem(x))))

    def middle(self, y: Tensor) -> Tensor:
        return y.mean((2, 3))


class Vector(Base):
    def make(self) -> None:
        self.vector = nn.Parameter(torch.randn(8))

    def middle(self, y: Tensor) -> Tensor:
        return y.mean((2, 3)) * torch.matmul(y.mean((2, 3)), self.vector)[:, None]


class Encoder(Base):
    def make(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def middle(self, y: Tensor) -> Tensor:
        t: Tensor = self.encoder(y.flatten(2).transpose(1, 2))
        return t.mean(1)


class Heads(Base):
    def make(self) -> None:
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def middle(self, y: Tensor) -> Tensor:
        n, c, h, w = y.shape
        t: Tensor = self.inner(y.view(2 * n, c // 2, h, w))
        return t.view(n, c, h, w).mean((2, 3))


class Dead(Base):
    def make(self) -> None:
        self.aside = nn.Conv2d(8, 8, 3, padding=1)
        self.never = nn.Conv2d(8, 8, 3, padding=1)

    def middle(self, y: Tensor) -> Tensor:
        self.aside(y)
        return y.mean((2, 3))


class Branch(Base):
    def make(self) -> None:
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def middle(self, y: Tensor) -> Tensor:
        t = functional.adaptive_avg_pool2d(y, 4).flatten(2).transpose(1, 2)
        if float(y.abs().sum()) > 0:
            t = self.attention(t, t, t)[0]
        return t.mean(1)


class Weights(Base):
    def make(self) -> None:
        self.kernel = nn.Conv2d(8, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.idle = nn.Identity()
        self.scale = nn.Parameter(torch.ones(8))

    def middle(self, y: Tensor) -> Tensor:
        y = functional.conv2d(y, self.kernel.weight, padding=1)
        y = self.twice(self.twice(y))
        return y.mean((2, 3)) * self.scale


class Lazy(Base):
    def make(self) -> None:
        self.lazy = nn.LazyConv2d(8, 1)
        self.wide = nn.LazyLinear(8)

    def middle(self, y: Tensor) -> Tensor:
        t: Tensor = self.wide(self.lazy(y).flatten(1))
        return t


class Late(Base):
    """A convolution and a buffer that are made when the first image comes."""

    def make(self) -> None:
        self.late: nn.Module | None = None

    def middle(self, y: Tensor) -> Tensor:
        if self.late is None:
            self.late = nn.Conv2d(8, 8, 3, padding=1, device=y.device)
            self.register_buffer("mean", torch.zeros(8, device=y.device))
        t: Tensor = self.late(y).mean((2, 3)) - self.get_buffer("mean")
        return t


class Nothing(nn.Module):
    """Without a convolution that could be replaced."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.stem(x).mean((2, 3)))


class Fourier(Base):
    def middle(self, y: Tensor) -> Tensor:
        spectrum: Tensor = torch.fft.rfft2(y)
        return spectrum.abs().mean((2, 3))


class Relu(Base):
    """With a layer that never learns."""

    def make(self) -> None:
        self.old = nn.Conv2d(8, 8, 3, padding=1)

    def middle(self, y: Tensor) -> Tensor:
        return y.relu().mean((2, 3))


def of_size(size: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.Flatten()),
        nn.Linear(4 * ((size + 1) // 2) ** 2, num_classes),
    )


def size12(num_classes: int) -> nn.Module:
    return of_size(12, num_classes)


def size36(num_classes: int) -> nn.Module:
    return of_size(36, num_classes)


def size150(num_classes: int) -> nn.Module:
    return of_size(150, num_classes)


def size518(num_classes: int) -> nn.Module:
    return of_size(518, num_classes)


def channels(read: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(read, 4, 3), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(4, num_classes),
    )


def grey(num_classes: int) -> nn.Module:
    return channels(1, num_classes)


def satellite(num_classes: int) -> nn.Module:
    return channels(13, num_classes)


class Side(nn.Module):
    """Its first convolution is not the one that reads the image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.late, self.first = nn.Conv2d(6, num_classes, 3), nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.late(self.first(x))
        return y.mean((2, 3))


class Out(NamedTuple):
    logits: Tensor
    aux: Tensor


class TwoHeads(Base):
    """Members say what they give of the logits `y` and those of an auxiliary head."""

    def make(self) -> None:
        self.aux = nn.Linear(8, self.fc.out_features)

    def forward(self, x: Tensor) -> Any:
        v = self.middle(self.conv(self.stem(x)))
        return self.give(self.fc(v), self.aux(v))

    def give(self, y: Tensor, aux: Tensor) -> Any:
        return y


class Mapped(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        return {"out": y, "aux": aux}


class Pair(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        return y, aux


class Features(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        return y[:, :, None, None]


class PairInTraining(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        return (y, aux) if self.training else y


class Main(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        return Out(y, aux) if self.training else y


class Second(TwoHeads):
    def forward(self, x: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x * mask)


class Leaves(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        sys.exit(3)


class Frozen(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        return y.detach()


class Speaks(TwoHeads):
    def give(self, y: Tensor, aux: Tensor) -> Any:
        print("to be seen on standard error")
        return y


def seven() -> nn.Module:
    return Relu(7)


def ten() -> nn.Module:
    return TwoHeads(10)


def in_double(num_classes: int) -> nn.Module:
    """A network in float64."""
    return ten().double()


def in_bfloat16(num_classes: int) -> nn.Module:
    """A network in bfloat16."""
    return ten().bfloat16()


KEPT = Base(10)
CONV = nn.Conv2d(8, 8, 3, padding=1)
WEIGHT = nn.Parameter(CONV.weight.detach().clone())
LAST: list[nn.Module] = []
ACTIVATION = nn.ReLU()


def same() -> nn.Module:
    return KEPT


def part() -> nn.Module:
    model = Base(10)
    model.conv = CONV
    return model


def tensor() -> nn.Module:
    model = Base(10)
    model.conv.weight = WEIGHT
    return model


def carried() -> nn.Module:
    model = Base(10)
    if LAST:
        model.load_state_dict(LAST[-1].state_dict())
    LAST.append(model)
    return model


def activation() -> nn.Module:
    return nn.Sequential(Base(10), ACTIVATION)


class Counting(Base):
    """Notes whether its images have numbers, and their height."""

    seen: ClassVar[list[tuple[bool, int]]] = []

    def forward(self, x: Tensor) -> Any:
        self.seen.append((not x.is_meta, x.shape[-1]))
        return super().forward(x)


class Deciding(Counting):
    seen: ClassVar[list[tuple[bool, int]]] = []

    def middle(self, y: Tensor) -> Tensor:
        return y.mean((2, 3)) if float(y.sum()) else y.amax((2, 3))


class Grows(Base):
    """Runs a layer more often on small images."""

    def make(self) -> None:
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def middle(self, y: Tensor) -> Tensor:
        for _ in range(max(1, 16 // y.shape[-1])):
            y = self.again(y)
        return y.mean((2, 3))


class Shrinks(Grows):
    """Runs it more often on large ones."""

    def middle(self, y: Tensor) -> Tensor:
        while y.shape[-1] > 4:
            y = functional.avg_pool2d(self.again(y), 2)
        return y.mean((2, 3))


class OnlyLarge(Grows):
    def middle(self, y: Tensor) -> Tensor:
        return (self.again(y) if y.shape[-1] > 16 else y).mean((2, 3))


def compiled(num_classes: int) -> nn.Module:
    made = torch.compile(Base(num_classes), backend="eager")
    assert isinstance(made, nn.Module)
    return made


def compiled_in_place(num_classes: int) -> nn.Module:
    model = Base(num_classes)
    model.compile(backend="eager")
    return model


class CompiledPart(Base):
    def make(self) -> None:
        part = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.part = torch.compile(part, backend="eager")

    def middle(self, y: Tensor) -> Tensor:
        return super().middle(self.part(y))


class CompiledMethod(Base):
    def make(self) -> None:
        self.matrix = nn.Parameter(torch.eye(8))

    @torch.compile(backend="eager")
    def middle(self, y: Tensor) -> Tensor:
        return y.mean((2, 3)) @ self.matrix


def scripted(num_classes: int) -> nn.Module:
    made: nn.Module = torch.jit.script(Plain(num_classes))
    return made


class Plain(nn.Module):
    """`Base` as a script can be made of it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]
