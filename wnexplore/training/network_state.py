"""The complete state of a network, to be saved or restored.

It is more than a state dict, which lacks non-persistent buffers, plain attributes and generators of layers,
and layers created in a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wnexplore.errors import InputError
from wnexplore.training.plain_values import NotPlainError, needs_like, overlaps, packed, same, unpacked


def network_state(network: nn.Module) -> dict[str, Any]:
    """The complete state of `network` for `load_network_state`: only tensors, numbers and text.

    The tensors of parameters and buffers are not copied. Raises `InputError` if a layer's `get_extra_state`
    returns something that can't be saved without code.
    """
    return {
        "parameters": {
            name: parameter.detach()
            for name, parameter in network.named_parameters()
            if not is_lazy(parameter)
        },
        "trained": {name: parameter.requires_grad for name, parameter in network.named_parameters()},
        "buffers": {
            name: None if buffer is None else buffer.detach()
            for name, (_, _, buffer) in _buffers(network).items()
            if not (buffer is not None and is_lazy(buffer))
        },
        "unlisted": _not_persistent(network),
        "resting": [name for name, module in network.named_modules() if not module.training],
        "extra": _extra(network),
        "attributes": _attributes(network),
    }


def load_network_state(
    network: nn.Module, state: Mapping[str, Any], run_once: Callable[[], object] = lambda: None
) -> None:
    """Restore `state` into the newly built `network`; `run_once` runs it once if it must create layers first.

    Raises `InputError` if it is another network's, and for a damaged state `KeyError`, `TypeError`,
    `ValueError`, `AttributeError` or `RuntimeError`.
    """
    names = set(_buffers(network)) | {
        name for name, parameter in network.named_parameters() if not is_lazy(parameter)
    }
    if not {*state["parameters"], *state["buffers"]} <= names:
        run_once()
    parameters = dict(network.named_parameters())
    if parameters.keys() != state["parameters"].keys():
        odd = sorted(parameters.keys() ^ state["parameters"].keys())[0]
        raise InputError(f"the network differs from the trained one: parameter {odd}")
    with torch.no_grad():
        for name, value in state["parameters"].items():
            if value.shape != parameters[name].shape:  # torch would broadcast it
                raise ValueError(f"parameter {name} has another shape")
            parameters[name].copy_(value)
    for name, flag in state["trained"].items():
        parameters[name].requires_grad_(flag)
    for name in _buffers(network).keys() - state["buffers"].keys():
        owner, key = _owner(network, name)
        del owner._buffers[key]
        owner._non_persistent_buffers_set.discard(key)
    device = next(iter(parameters.values()), torch.empty(0)).device
    for name, value in state["buffers"].items():
        set_buffer(network, name, value, device, persistent=name not in state["unlisted"])
    _check_statistics(network)
    modules = dict(network.named_modules())
    for name, module in modules.items():
        module.training = name not in state["resting"]
    set_attributes(network, state["attributes"])
    for name, value in state["extra"].items():
        modules[name].set_extra_state(unpacked(value))


class SideState:
    """A network's state that is not in its state dict, compared with that at construction."""

    def __init__(self, network: nn.Module) -> None:
        self._attributes = _attributes(network)
        self._buffers = _copies(network)

    def changed(self, network: nn.Module) -> dict[str, Any]:
        """What a new network with this state dict lacks, for `load_side_state`; {} if nothing.

        Raises `InputError` as `network_state` does.
        """
        found = {
            "attributes": _difference(_attributes(network), self._attributes),
            "unlisted": {
                name: value
                for name in _not_persistent(network)
                if (value := _buffers(network)[name][2]) is not None
                and not (name in self._buffers and _equal(value, self._buffers[name]))
            },
            "late": [
                name
                for name, (_, _, value) in _buffers(network).items()
                if value is not None and (name not in self._buffers or not _alike(value, self._buffers[name]))
            ],
            "extra": {
                name: value
                for name, value in _extra(network).items()
                if not (isinstance(value, dict) and value["kind"] == "tensor")
            },
        }
        return {kind: value for kind, value in found.items() if value}


def load_side_state(
    network: nn.Module, side_state: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Restore the result of `SideState.changed` into `network`, and create buffers for late `tensors`.

    Returns the complete state dict for `tensors`. Raises as `load_network_state`.
    """
    unlisted = side_state.get("unlisted", {})
    for name in side_state.get("late", ()):
        if name in tensors:
            set_buffer(network, name, tensors[name], torch.device("cpu"), persistent=True)
    for name, value in unlisted.items():
        set_buffer(network, name, value, torch.device("cpu"), persistent=False)
    set_attributes(network, side_state.get("attributes", {}))
    extra = side_state.get("extra", {})
    return {**tensors, **{_join(name, "_extra_state"): unpacked(value) for name, value in extra.items()}}


def lacks_layers(network: nn.Module, names: Iterable[str]) -> bool:
    """Whether a state dict with `names` has a layer that the new `network` hasn't created yet."""
    modules = {name for name, _ in network.named_modules()}
    unmade = any(is_lazy(tensor) for tensor in (*network.parameters(), *network.buffers()))
    return unmade or not {name.rpartition(".")[0] for name in names} <= modules


class Snapshot:
    """A network's current state, to be restored: buffers, modes, plain attributes; optionally parameters."""

    def __init__(self, network: nn.Module, *, parameters: bool = False) -> None:
        self._network = network
        self._modules = [
            (
                module,
                dict(module._buffers),
                dict(module._parameters),
                dict(module._modules),
                _plain_attributes(module),
            )
            for module in network.modules()
        ]
        self._unlisted = [(module, set(module._non_persistent_buffers_set)) for module in network.modules()]
        kept = [*network.buffers(), *(network.parameters() if parameters else ())]
        self._values = [(tensor, tensor.detach().clone()) for tensor in kept if not is_lazy(tensor)]
        self._trained = [(tensor, tensor.requires_grad) for tensor in network.parameters()]
        self._attributes = _attributes(network)
        self._extra = [(module, _extra_of(module)) for module in network.modules() if _has_extra(module)]

    def put_back(self) -> None:
        """Restore the network."""
        for module, buffers, parameters, modules, attributes in self._modules:
            for now, before in (
                (module._buffers, buffers),
                (module._parameters, parameters),
                (module._modules, modules),
            ):
                if now.keys() != before.keys() or any(now[key] is not before[key] for key in before):
                    now.clear()
                    now.update(before)  # type: ignore[arg-type]
            for name in _plain_attributes(module).keys() - attributes.keys():
                del module.__dict__[name]
            module.__dict__.update(attributes)
        for module, unlisted in self._unlisted:
            module._non_persistent_buffers_set = unlisted
        with torch.no_grad():
            for tensor, value in self._values:
                if tensor.shape != value.shape:
                    tensor.data = value
                elif not overlaps(tensor):
                    tensor.copy_(value)
        for tensor, flag in self._trained:
            if tensor.requires_grad != flag:
                tensor.requires_grad_(flag)
        set_attributes(self._network, self._attributes)
        for module, extra in self._extra:
            if extra is not _UNKNOWN and not same(_extra_of(module), extra):
                module.set_extra_state(unpacked(extra))


def make_writable(network: nn.Module) -> None:
    """Copy buffers whose elements overlap in memory (`expand`), so that they can be written to."""
    for owner, key, value in _buffers(network).values():
        if value is not None and not is_lazy(value) and overlaps(value):
            owner._buffers[key] = value.clone(memory_format=torch.contiguous_format)


def set_buffer(
    network: nn.Module, name: str, value: Tensor | None, device: torch.device, *, persistent: bool
) -> None:
    """Set the buffer `name` of `network` to `value`, in place if the existing one fits."""
    owner, key = _owner(network, name)
    old = owner._buffers.get(key)
    if old is not None and value is not None and not is_lazy(old) and _alike(old, value):
        if not overlaps(old):
            with torch.no_grad():
                old.copy_(value)
            return
        if torch.equal(old, value.to(old.device)):
            return
    if key not in owner._buffers:
        owner.__dict__.pop(key, None)  # such as None, until it is created
        owner.register_buffer(key, None, persistent=persistent)
    owner._buffers[key] = (
        None if value is None else value.to(device if old is None else old.device, copy=True)
    )


def set_attributes(network: nn.Module, attributes: Mapping[str, Mapping[str, Any]]) -> None:
    """Set plain attributes of the layers of `network`."""
    for name, module in network.named_modules():
        for key, value in attributes.get(name, {}).items():
            if key not in module.__dict__ and type(module).__module__.startswith("wnexplore."):
                # Of an earlier version: our layers set all their attributes when they are built.
                continue
            old = module.__dict__.get(key)
            if key in _TORCHS or key in module._parameters or key in module._buffers:
                raise ValueError(f"{key} is no value of a layer's own")
            with suppress(NotPlainError):
                if key in module.__dict__ and same(packed(old), value):
                    continue
            with suppress(NotPlainError):
                module.__dict__[key] = unpacked(value, old)


_TORCHS = frozenset(vars(nn.Module()))
"""Attributes that torch keeps in every module."""
_UNKNOWN = object()


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The plain attributes of `module`, including its mode."""
    return {name: value for name, value in vars(module).items() if name not in _TORCHS or name == "training"}


def _attributes(network: nn.Module) -> dict[str, dict[str, Any]]:
    """Plain attributes that can be saved, by layer; others are references to other objects, or derived."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in network.named_modules():
        kept = found[name] = {}
        for key, value in _plain_attributes(module).items():
            # Old-style weight norm and spectral norm compute a weight before each forward pass.
            computed = f"{key}_orig" in module._parameters or f"{key}_g" in module._parameters
            if key != "training" and not computed:
                with suppress(NotPlainError):
                    kept[key] = packed(value)
    return found


def _difference(
    now: Mapping[str, Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    found = {
        name: {
            key: value
            for key, value in values.items()
            if not (key in before.get(name, {}) and same(before[name][key], value))
        }
        for name, values in now.items()
    }
    return {name: values for name, values in found.items() if values}


def _buffers(network: nn.Module) -> dict[str, tuple[nn.Module, str, Tensor | None]]:
    """All buffers by full name, including None: the module, the name in it, and the buffer."""
    return {
        _join(path, name): (module, name, value)
        for path, module in network.named_modules()
        for name, value in module._buffers.items()
    }


def _not_persistent(network: nn.Module) -> list[str]:
    return [
        name
        for name, (module, buffer, _) in _buffers(network).items()
        if buffer in module._non_persistent_buffers_set
    ]


def _copies(network: nn.Module) -> dict[str, Tensor]:
    """Current buffers, copied if they are not in the state dict."""
    unlisted = set(_not_persistent(network))
    return {
        name: value.detach().clone() if name in unlisted else value.detach()
        for name, (_, _, value) in _buffers(network).items()
        if value is not None and not is_lazy(value)
    }


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, key = name.rpartition(".")
    return network.get_submodule(path), key


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _equal(one: Tensor, other: Tensor) -> bool:
    return _alike(one, other) and torch.equal(one, other)


def _extra(network: nn.Module) -> dict[str, Any]:
    found = {name: _extra_of(module) for name, module in network.named_modules() if _has_extra(module)}
    unknown = next((name for name, value in found.items() if value is _UNKNOWN), None)
    if unknown is not None:
        given = type(network.get_submodule(unknown).get_extra_state()).__name__
        raise InputError(
            f"get_extra_state of layer '{unknown}' gives a {given} that can't be saved without code: expected"
            " tensors of at most 16 MiB, numbers and text, in lists and dictionaries"
        )
    return found


def _has_extra(module: nn.Module) -> bool:
    cls, none = type(module), nn.Module
    return cls.get_extra_state is not none.get_extra_state and cls.set_extra_state is not none.set_extra_state


def _extra_of(module: nn.Module) -> Any:
    try:
        found = packed(module.get_extra_state())
    except NotPlainError:
        return _UNKNOWN
    # `set_extra_state` gets a new object.
    return _UNKNOWN if needs_like(found) else found


def _check_statistics(network: nn.Module) -> None:
    """Raise `ValueError` for normalisation statistics of wrong shapes."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            features = (module.num_features,)
            shapes = {"running_mean": features, "running_var": features, "num_batches_tracked": ()}
            for key, shape in shapes.items():
                value = getattr(module, key)
                if isinstance(value, Tensor) and not is_lazy(value) and value.shape != shape:
                    raise ValueError(f"{name}.{key} has another shape")
