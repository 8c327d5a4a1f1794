"""The feature maps of a backbone at strides 8, 16 and 32, of any network of images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.errors import InputError

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class FeatureMap:
    """A module of a network, whose output is a map."""

    module: str
    channels: int
    stride: int


class FeatureMaps(nn.Module):
    """(N, 3, H, W) -> the maps of `network` at `STRIDES`, each (N, C, H / stride, W / stride).

    What the network computes after them, such as its classifier, is removed from it. Raises `InputError` if
    it has no map at one of the strides, naming `backbone`.
    """

    def __init__(self, network: nn.Module, backbone: str, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        self.maps, behind = _found(network, backbone, strides)
        for name in behind:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, nn.Identity())
        self.body = network
        # No plain dict: torch.export would replace it by a copy, and the hooks would fill the other one.
        self._kept = _Kept()
        for found in self.maps:
            network.get_submodule(found.module).register_forward_hook(_Keeper(found.module, self._kept))

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The maps, by stride."""
        self.body(x)
        maps = OrderedDict((str(one.stride), self._kept.outputs[one.module]) for one in self.maps)
        self._kept.outputs.clear()
        return maps


class _Kept:
    """The outputs of the modules of one pass, by name."""

    def __init__(self) -> None:
        self.outputs: dict[str, Tensor] = {}


class _Keeper:
    """A hook that keeps an output; no function, so that a copy of the network has a copy of it."""

    def __init__(self, name: str, kept: _Kept) -> None:
        self._name, self._kept = name, kept

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._kept.outputs[self._name] = output


def _found(
    network: nn.Module, backbone: str, strides: Sequence[int]
) -> tuple[tuple[FeatureMap, ...], list[str]]:
    """The map at each stride: the last output of it among the outermost modules; and the outermost modules
    that come after all of them."""
    ended: list[tuple[str, Tensor | None]] = []
    hooks = []
    for name, module in network.named_modules():

        def note(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            ended.append((name, output if isinstance(output, Tensor) and output.dim() == 4 else None))

        if name:
            hooks.append(module.register_forward_hook(note))
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, _SIDE, _SIDE))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    maps, last = [], 0
    for stride in strides:
        side = _SIDE // stride
        of_stride = [
            (name.count("."), at, name, int(output.shape[1]))
            for at, (name, output) in enumerate(ended)
            if output is not None and tuple(output.shape[2:]) == (side, side)
        ]
        if not of_stride:
            raise InputError(
                f"backbone '{backbone}' has no feature map at stride {stride}: a detector needs those at"
                f" strides {', '.join(map(str, strides))}"
            )
        outermost = min(depth for depth, *_ in of_stride)
        _, at, name, channels = max(entry for entry in of_stride if entry[0] == outermost)
        maps.append(FeatureMap(name, channels, stride))
        last = max(last, at)
    earlier = {name for name, _ in ended[: last + 1]}
    behind: list[str] = []
    for name, _ in sorted(ended[last + 1 :], key=lambda entry: entry[0].count(".")):
        ancestors = {name[:at] for at, letter in enumerate(name) if letter == "."}
        holds_earlier = any(other.startswith(f"{name}.") or other == name for other in earlier)
        if not holds_earlier and not ancestors & set(behind):
            behind.append(name)
    return tuple(maps), list(dict.fromkeys(behind))


_SIDE = 128
"""Pixels of the image by which the maps are found: 4 at stride 32."""
