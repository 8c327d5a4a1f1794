"""Weights of the published WeightNet networks, under the names of their two public implementations.

The authors' MegEngine code (https://github.com/megvii-model/WeightNet) and the PyTorch port
(https://github.com/DequanWang/weightnet.pytorch) use different names and shapes for the same parameters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Set
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.design.backbones import BACKBONES, BackboneSpec, ShuffleNetV2Spec
from wnexplore.errors import InputError, shown
from wnexplore.models.shufflenet_v2 import ShuffleNetV2
from wnexplore.models.weight_files import load_tensors
from wnexplore.nn.weightnet import GroupedLinear

_WRAPPERS = ("state_dict", "model_state", "model")
_PREFIX = re.compile(r"^(module\.)?(backbone\.)?")

_BLOCK = {
    "reduce": "reduce",
    "wnet1.wn_fc1": "branch2.0.fc1",
    "wnet1.wn_fc2": "branch2.0.fc2",
    "{norm}1": "branch2.1",
    "wnet2.wn_fc1": "branch2.3.fc1",
    "wnet2.wn_fc2": "branch2.3.fc2",
    "{norm}2": "branch2.4",
    "wnet3.wn_fc1": "branch2.5.fc1",
    "wnet3.wn_fc2": "branch2.5.fc2",
    "{norm}3": "branch2.6",
    "wnet_proj_1.wn_fc1": "branch1.0.fc1",
    "wnet_proj_1.wn_fc2": "branch1.0.fc2",
    "{norm}_proj_1": "branch1.1",
    "wnet_proj_2.wn_fc1": "branch1.2.fc1",
    "wnet_proj_2.wn_fc2": "branch1.2.fc2",
    "{norm}_proj_2": "branch1.3",
}
"""Module of a published block -> module of ours; {norm} is bn or norm."""

_ENDS = {
    "conv1.conv": "conv1.0",
    "conv1.bn": "conv1.1",
    "layers.3.conv": "conv5.0",
    "layers.3.bn": "conv5.1",
    "head.fc": "fc",
    "first_conv.0": "conv1.0",
    "first_conv.1": "conv1.1",
    "conv_last.0": "conv5.0",
    "conv_last.1": "conv5.1",
    "classifier.0": "fc",
}
"""The layers before and after the blocks: first the port's names, then the authors'."""

_FOLDED = {"conv1.0.bias": "conv1.1.running_mean", "conv5.0.bias": "conv5.1.running_mean"}
"""A bias before a normalisation, as in the authors' code, is folded into the running mean."""


def load_published_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any] | str | os.PathLike[str]
) -> None:
    """Load weights of a published network into `model`, which switches to the published channel order.

    `state_dict` is a mapping of names to tensors, or a file that `torch.load(weights_only=True)` can
    read; either may hold the mapping under "state_dict", "model_state" or "model". Dimensions of size 1 don't
    matter, nor whether a grouped layer's weight has a separate dimension for its groups.

    Raises `InputError` for a model that isn't a `ShuffleNetV2`, a file that can't be read, and a mapping
    that doesn't fit. The first line of the message gives the widths of the weights and of the model; where
    these are equal, the first keys that are missing, unexpected or of the wrong shape follow. The model is
    then unchanged.
    """
    if not isinstance(model, ShuffleNetV2):
        raise InputError(f"published weights are for a ShuffleNetV2, not a {type(model).__name__}")
    given, faults = _rename(_unwrap(_read(state_dict)), _names(model))
    expected = _expected(model, with_biases=given.keys() & _FOLDED.keys())
    grouped = {f"{n}.weight": m.groups for n, m in model.named_modules() if isinstance(m, GroupedLinear)}
    loaded: dict[str, Tensor] = {}
    for key, (published_key, value) in given.items():
        if key not in expected:
            faults.append(f"unexpected: {published_key}")
        elif not isinstance(value, Tensor):
            faults.append(f"not a tensor: {published_key}")
        elif not _fits(value, expected[key], grouped.get(key)):
            shapes = f"{tuple(value.shape)}, expected {tuple(expected[key].shape)}"
            faults.append(f"wrong shape: {published_key} {shapes}")
        else:
            loaded[key] = value.to(expected[key]).reshape(expected[key].shape)
    for key, value in expected.items():
        if key.endswith("num_batches_tracked"):
            loaded.setdefault(key, value)
        elif key not in given:
            faults.append(f"missing: {key} {tuple(value.shape)}, in this network's names")
    if faults:
        raise InputError(_refusal(given, model, faults))
    for bias, mean in _FOLDED.items():
        if bias in loaded:
            loaded[mean] = loaded[mean] - loaded.pop(bias)
    model.load_state_dict({**loaded, "published_order": torch.tensor(True)})


def _read(source: Mapping[str, Any] | str | os.PathLike[str]) -> Any:
    if isinstance(source, Mapping):
        return source
    return load_tensors(source)


def _unwrap(content: Any) -> Mapping[Any, Any]:
    if isinstance(content, Mapping):
        wrapped = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        return wrapped[0] if wrapped else content
    raise InputError(f"published weights are a mapping of names to tensors, not a {type(content).__name__}")


def _rename(
    published: Mapping[Any, Any], names: Mapping[str, str]
) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Our key -> (published key, value), and an error for each key that is unknown or a duplicate."""
    given: dict[str, tuple[str, Any]] = {}
    faults: list[str] = []
    for published_key, value in published.items():
        module, _, leaf = _PREFIX.sub("", str(published_key)).rpartition(".")
        key = f"{names.get(module)}.{leaf}"
        if module not in names or key in given:
            faults.append(f"unexpected: {published_key}")
        else:
            given[key] = (str(published_key), value)
    return given, faults


def _names(model: ShuffleNetV2) -> dict[str, str]:
    """Published module -> module of ours, for the network in both naming schemes."""
    names = dict(_ENDS)
    blocks = [(s, i) for s, repeats in enumerate(model.spec.repeats) for i in range(repeats)]
    for flat, (stage, index) in enumerate(blocks):
        for published, ours in _BLOCK.items():
            name = f"stage{stage + 2}.{index}.{ours}"
            names[f"layers.{stage}.{index}.{published.format(norm='norm')}"] = name
            names[f"features.{flat}.{published.format(norm='bn')}"] = name
    return names


def _expected(model: ShuffleNetV2, with_biases: Set[str]) -> dict[str, Tensor]:
    """The required tensors: the model's state, and biases shaped like the means they are folded into."""
    state: dict[str, Tensor] = model.state_dict()
    state.pop("published_order", None)
    return state | {bias: state[_FOLDED[bias]] for bias in with_biases}


def _refusal(given: Mapping[str, tuple[str, Any]], model: ShuffleNetV2, faults: list[str]) -> str:
    state = {key: value for key, (_, value) in given.items() if isinstance(value, Tensor)}
    found, wanted = _width(state), _width(model.state_dict())
    # Equal widths aren't enough: a different number of channels or classes is reported key by key.
    if found != wanted and None not in found:
        fitting = [name for name, spec in BACKBONES.items() if _is_of(spec, found)]
        hint = f", for {fitting[0]}," if fitting else ""
        return (
            f"published weights of width {_spoken(found)}{hint} don't fit this network of width"
            f" {_spoken(wanted)}; nothing was loaded"
        )
    head = (
        f"published weights of width {_spoken(found)} don't fit this network of width {_spoken(wanted)}"
        f" ({len(faults)} keys), nothing was loaded:"
    )
    more = [f"and {len(faults) - _TOLD} more"] if len(faults) > _TOLD else []
    return "\n  ".join([head, *(shown(fault, 200) for fault in faults[:_TOLD]), *more])


_TOLD = 8
"""Number of keys in a message."""

_Width = tuple[int | None, ...]
"""Channels of the stages, and before the classifier; None where the weights don't show them."""


def _width(state: Mapping[str, Tensor]) -> _Width:
    """A stage's width is that of the norms at the ends of its first block's two branches."""

    def channels(*keys: str) -> int | None:
        parts = [state.get(key) for key in keys]
        return None if any(part is None for part in parts) else sum(p.numel() for p in parts if p is not None)

    stages = [
        channels(f"stage{stage}.0.branch1.3.weight", f"stage{stage}.0.branch2.6.weight")
        for stage in (2, 3, 4)
    ]
    return (*stages, channels("conv5.1.weight"))


def _is_of(spec: BackboneSpec, width: _Width) -> bool:
    return isinstance(spec, ShuffleNetV2Spec) and (*spec.widths, spec.last_width) == width


def _spoken(width: _Width) -> str:
    *stages, last = ("?" if count is None else str(count) for count in width)
    return f"{'/'.join(stages)} and {last} at the end"


def _fits(value: Tensor, expected: Tensor, groups: int | None) -> bool:
    shapes = [expected.shape]
    if groups is not None:
        shapes.append(expected.view(groups, -1, expected.shape[1]).shape)
    return _squeezed(value.shape) in [_squeezed(shape) for shape in shapes]


def _squeezed(shape: torch.Size) -> list[int]:
    return [size for size in shape if size != 1]
