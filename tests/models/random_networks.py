"""Networks drawn by hypothesis: a stem, up to six pieces of any kind, a classifier; with their arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

Shape = tuple[int, int, int]
"""Channels, height and width."""
RESOLUTION = 16
CLASSES = 5


class Piece(nn.Module):
    """(N, *`into`) -> (N, *`out`) in `flops` multiply-adds per image."""

    def __init__(self, into: Shape) -> None:
        super().__init__()
        self.into = self.out = into
        self.flops = 0

    @property
    def pixels(self) -> int:
        return self.into[1] * self.into[2]


class Convolution(Piece):
    """Of random settings, normalised or not, run once, twice or in vain."""

    def __init__(self, into: Shape, draw: Callable[..., Any], kind: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__(into)
        width = into[0]
        kernel = draw(st.sampled_from([1, 2, 3, 5, (1, 3), (3, 1)]))
        groups = draw(st.sampled_from([1, 2, 4, width]))
        outputs = draw(st.sampled_from([width, 2 * width])) if groups != width else width
        stride, dilation = draw(st.sampled_from([1, 1, 2, (2, 1)])), draw(st.sampled_from([1, 1, 2]))
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding: Any = (dilation * (high // 2), dilation * (wide // 2))
        if stride == 1 and draw(st.booleans()):
            padding = "same"
        bias = draw(st.booleans())
        self.conv = kind(width, outputs, kernel, stride, padding, dilation, groups, bias)
        self.norm = nn.BatchNorm2d(outputs) if draw(st.booleans()) else nn.Identity()
        with torch.no_grad():
            _, _, *size = self.conv(torch.zeros(1, *into)).shape
        self.out = (outputs, size[0], size[1])
        self.times = draw(st.sampled_from([1, 1, 1, 2])) if self.out == into else 1
        self.dead = draw(st.sampled_from([False, False, False, True])) and self.out == into
        self.flops = self.times * math.prod(self.out) * (width // groups * high * wide)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for _ in range(self.times):
            y = self.norm(self.conv(y))
        return x if self.dead else y


class Own(nn.Conv2d):
    """A convolution of a class that nothing is known of."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class OfOneAndThree(Piece):
    """A one-dimensional convolution over the pixels, and a three-dimensional one."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        self.row = nn.Conv1d(into[0], into[0], 3, padding=1, groups=draw(st.sampled_from([1, 2])))
        self.deep = nn.Conv3d(1, 2, 3, padding=1)
        self.flops = self.pixels * into[0] * self.row.weight[0].numel() + 2 * 27 * math.prod(into)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.deep(self.row(x.flatten(2)).reshape(x.shape)[:, None]).mean(1)
        return y


class Transposed(Piece):
    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        self.up = nn.ConvTranspose2d(into[0], into[0], 2, 2, groups=draw(st.sampled_from([1, 2])))
        self.flops = math.prod(into) * self.up.weight[0].numel()

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.up(x), 2)


class Attention(Piece):
    """Over the pixels: a module, an encoder layer or a function, behind a branch on numbers or not."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        width, tokens = into[0], self.pixels
        self.kind = draw(st.sampled_from(["module", "layer", "function"]))
        self.decides = draw(st.booleans())
        self.flops = 4 * tokens * width**2 + 2 * tokens**2 * width
        if self.kind == "module":
            self.attention: nn.Module = nn.MultiheadAttention(width, 2, batch_first=True)
        elif self.kind == "layer":
            self.attention = nn.TransformerEncoderLayer(width, 2, 3 * width, batch_first=True)
            self.flops += 2 * tokens * width * 3 * width
        else:
            self.attention = nn.Linear(width, 3 * width)
            self.flops -= tokens * width**2

    def forward(self, x: Tensor) -> Tensor:
        if self.decides and float(x.abs().sum()) < 0:
            return x
        t = x.flatten(2).transpose(1, 2)
        if self.kind == "module":
            t = self.attention(t, t, t)[0]
        elif self.kind == "layer":
            t = self.attention(t)
        else:
            q, k, v = self.attention(t).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            t = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return t.transpose(1, 2).reshape(x.shape)


class Recurrent(Piece):
    """Along the rows, of one or two layers and directions."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
        both = draw(st.booleans())
        self.layers = kind(
            into[0], into[0] // (1 + both), draw(st.integers(1, 2)), bidirectional=both, batch_first=True
        )
        weights = sum(parameter.numel() for parameter in self.layers.parameters() if parameter.dim() == 2)
        self.flops = self.pixels * weights

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).flatten(0, 1)
        y: Tensor = self.layers(rows)[0].reshape(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
        return y


class Products(Piece):
    """Parameters of its own: a matrix on the left, a functional convolution, a scale; and a linear layer."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        width = into[0]
        self.mix = nn.Parameter(torch.eye(width))
        self.kernel = nn.Parameter(torch.ones(width, 1, 3, 3))
        self.scale = nn.Parameter(torch.ones(width, 1, 1))
        self.linear = nn.Linear(width, width)
        self.flops = self.pixels * (width**2 + 9 * width + width**2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(self.mix, x.flatten(2)).reshape(x.shape)
        y = functional.conv2d(y, self.kernel, padding=1, groups=len(self.kernel)) * self.scale
        y = torch.einsum("nchw,c->nchw", y, self.scale.flatten())
        made: Tensor = self.linear(y.movedim(1, 3)).movedim(3, 1)
        return made


class Folded(Piece):
    """A convolution of each half of the channels, with the batch; it can be replaced."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        self.conv = nn.Conv2d(into[0] // 2, into[0] // 2, 3, padding=1)
        self.flops = 2 * self.pixels * self.conv.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.reshape(-1, x.shape[1] // 2, *x.shape[2:])).reshape(x.shape)
        return y


class ByWeight(Piece):
    """A convolution used through its weight, or tied to another, or with another name, or parametrised."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        self.conv = nn.Conv2d(into[0], into[0], 3, padding=1, bias=False)
        self.kind = draw(st.sampled_from(["weight", "tied", "named", "normed", "spectral", "asked"]))
        self.flops = self.pixels * self.conv.weight.numel()
        if self.kind in ("tied", "named"):
            self.other = self.conv if self.kind == "named" else nn.Conv2d(into[0], into[0], 3, padding=1)
            self.other.weight = self.conv.weight
            self.flops *= 2
        if self.kind == "normed":
            nn.utils.parametrizations.weight_norm(self.conv)
        if self.kind == "spectral":
            # Its largest singular value is u·(W v), whenever the weight is asked for.
            self.flops += self.conv.weight.numel() + into[0]
            nn.utils.parametrizations.spectral_norm(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "weight":
            return functional.conv2d(x, self.conv.weight, padding=1)
        y: Tensor = self.conv(x)
        if self.kind == "asked" and self.conv.stride == (1, 1) and self.conv.groups == 1:
            y = y + x
        return self.other(y) if self.kind in ("tied", "named") else y


class Branches(Piece):
    """Two pieces side by side, and a layer that never runs, or the same piece twice."""

    def __init__(self, into: Shape, draw: Callable[..., Any]) -> None:
        super().__init__(into)
        kinds = [OfOneAndThree, Products, Folded, Recurrent]
        self.paths = nn.ModuleDict({"left": draw(st.sampled_from(kinds))(into, draw)})
        self.paths["right"] = (
            self.paths["left"] if draw(st.booleans()) else draw(st.sampled_from(kinds))(into, draw)
        )
        self.never = nn.ModuleList([nn.Conv2d(into[0], into[0], 3), nn.Linear(into[0], 2)])
        self.flops = sum(path.flops for path in map(_piece, self.paths.values()))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.paths["left"](x) + self.paths["right"](x)
        return y


class Network(nn.Module):
    """Images (N, 3, 16, 16) to logits (N, 5); `flops` by arithmetic."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        super().__init__()
        width = draw(st.sampled_from([4, 8, 16]))
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.body = nn.Sequential()
        shape = (width, RESOLUTION // 2, RESOLUTION // 2)
        self.flops = math.prod(shape) * 27
        for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6)):
            piece = _piece(kind(shape, draw))
            self.body.append(piece)
            self.flops += piece.flops
            shape = piece.out
        self.head = nn.Linear(shape[0], CLASSES)
        self.flops += shape[0] * CLASSES

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return logits


KINDS: list[Callable[..., nn.Module]] = [
    *[Convolution] * 3,
    lambda into, draw: Convolution(into, draw, Own),
    *(OfOneAndThree, Transposed, Attention, Recurrent, Products, Folded, ByWeight, Branches),
]


@dataclass(frozen=True)
class Drawn:
    """A network that can be made again, each time with the same weights."""

    choices: tuple[Any, ...]

    def make(self) -> Network:
        left = iter(self.choices)
        torch.manual_seed(0)
        return Network(lambda strategy: next(left))


@st.composite
def networks(draw: st.DrawFn) -> Drawn:
    choices: list[Any] = []

    def drawn(strategy: st.SearchStrategy[Any]) -> Any:
        choices.append(draw(strategy))
        return choices[-1]

    Network(drawn)
    return Drawn(tuple(choices))


def _piece(module: nn.Module) -> Piece:
    assert isinstance(module, Piece)
    return module
