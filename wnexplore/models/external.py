"""External backbones: from torchvision, timm, or a Python file; nothing is downloaded."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
import torchvision
from torch import nn
from torch.nn.parameter import is_lazy

from wnexplore.design.external_names import LIBRARIES, check_name
from wnexplore.design.skeleton import Block, Skeleton
from wnexplore.errors import InputError, shown
from wnexplore.models.conv_calls import (
    ConvLayout,
    SeenConv,
    conv_site,
    give_sizes,
    is_unsized,
    layout,
    one_pass,
)
from wnexplore.models.convert import Where, convert_seen
from wnexplore.models.copies import as_written
from wnexplore.models.fingerprint import fingerprint
from wnexplore.models.method_layers import Method, PlainMethod
from wnexplore.models.output_check import check_output, check_trainable, main_logits, quiet
from wnexplore.models.source_file import module_of
from wnexplore.models.unconvertible import why_left


def load(name: str, num_classes: int) -> nn.Module:
    """The network called "torchvision:NAME", "timm:NAME" or "path/to/file.py:function", untrained.

    A file's function is called with `num_classes` if it takes that; the file may import others of its folder.
    `torch.compile` wrappers are removed. Nothing is ever downloaded. Raises `InputError` if there is no such
    network, its library is not installed or it can't be built.
    """
    check_name(name)
    source, _, network = name.rpartition(":")
    if source == "torchvision":
        return _from_torchvision(network, num_classes)
    if source == "timm":
        return _from_timm(network, num_classes)
    return as_written(_from_file(Path(source), network, num_classes))


def external_network(name: str, method: Method, num_classes: int, resolution: int) -> nn.Module:
    """The network with its convolutions replaced by those of `method` as `convert` does by default.

    It takes images of 3 channels and `resolution` pixels, for which lazy layers are initialised. It returns
    logits (N, num_classes), only those of its main head if it has auxiliary ones; its prints go to standard
    error. Raises `InputError` as `load` and `convert` do, or if it returns something else on such images, and
    `IllegalPointError` naming the layer.
    """
    model, known = _sized(name, num_classes, resolution)
    gives = known.once(("output", resolution), lambda: check_output(model, name, resolution))
    if type(method) is not PlainMethod:
        # Stages are those of large images if it can run on them.
        found = layout(model, known_size=resolution)
        convert_seen(model, method, Where(), found, _left(model, resolution, found, known))
    if gives.has_more:
        model.register_forward_hook(main_logits)
    if gives.prints:
        quiet(model)
    if gives.decides:
        _forget(known)
    return model


def check_external(name: str, resolution: int, classes: int) -> None:
    """Raise `InputError` unless the network called `name` can be trained on `classes` classes."""
    with torch.random.fork_rng(devices=()):
        model, known = _sized(name, classes, resolution)
    known.once(("trained", resolution), lambda: check_trainable(model, name, resolution, classes))


def external_skeleton(name: str, resolution: int, num_classes: int) -> Skeleton:
    """The skeleton of the plain network for images of `resolution` pixels.

    Each convolution that `convert` may replace is a separate block, in the stage that `convert` assigns.
    Raises `InputError` as `load` does, or if its convolutions can't be observed or its images don't have 3
    channels, and `RuntimeError` with one line if the network can't run on such images.
    """
    # A skeleton is for counting: making it must not change the random numbers drawn afterwards, and control
    # flow that depends on random weights must be the same each time.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model, known = _sized(name, num_classes, resolution)
    gives = known.once(("output", resolution), lambda: check_output(model, name, resolution))
    found = layout(model, known_size=resolution)
    skeleton = model_skeleton(model, resolution, found, _left(model, resolution, found, known))
    if gives.decides:
        _forget(known)
    return skeleton


def model_skeleton(model: nn.Module, resolution: int, found: ConvLayout, left: Container[str]) -> Skeleton:
    """The skeleton of a network of the layout `found`, whose convolutions in `left` are not replaced."""
    seen = one_pass(model, resolution, counted=True, channels=(3,))

    def block(conv: SeenConv) -> Block:
        # A replaceable convolution is called once.
        (call,) = seen.calls[conv.name]
        samples, pixels = call.output[0], call.output[2] * call.output[3]
        assert isinstance(conv.module, nn.Conv2d)
        site = conv_site(conv.name, conv.module, pixels)
        return Block(conv.name, conv.stage, site.in_channels, site.out_channels, pixels, (site,), samples)

    blocks = tuple(block(conv) for conv in found.convs if conv.name not in left)
    return Skeleton(
        params=sum(p.numel() for p in model.parameters()) - sum(block.weights for block in blocks),
        flops=seen.products.total - sum(block.flops for block in blocks),
        blocks=blocks,
        uncounted=tuple(sorted(seen.products.uncounted)),
    )


class _Known:
    """Cached results of trial runs of a network, which take longer than building it."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}

    def once(self, key: tuple[Any, ...], find: Callable[[], _T]) -> _T:
        if key not in self._found:
            self._found[key] = find()
        found: _T = self._found[key]
        return found


_T = TypeVar("_T")
_known: dict[object, _Known] = {}
_MAX_KNOWN = 256


def _known_of(name: str, num_classes: int, model: nn.Module) -> _Known:
    """The cache of a library's network, or of a file's networks with the fingerprint of `model`."""
    key: object = (name, num_classes)
    if name.rpartition(":")[0] not in LIBRARIES:
        like = fingerprint(model)
        if like is None:
            return _Known()
        key = (name, num_classes, like)
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    return _known.setdefault(key, _Known())


def _forget(known: _Known) -> None:
    """Drop the cache of a network whose control flow depends on its values: the next one may differ."""
    for key in [key for key, cached in _known.items() if cached is known]:
        del _known[key]


def _left(model: nn.Module, resolution: int, found: ConvLayout, known: _Known) -> dict[str, str]:
    return known.once(("left", resolution), lambda: why_left(model, found, resolution=resolution))


def _sized(name: str, num_classes: int, resolution: int) -> tuple[nn.Module, _Known]:
    """The network, its lazy layers initialised on images of `resolution` pixels, and its cache."""
    model = load(name, num_classes)
    if torch.get_default_device().type != "meta":
        for path, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_meta:
                raise InputError(
                    f"backbone '{shown(name)}' has no values: its {shown(path)} is on the meta device,"
                    " expected a network with weights"
                )
    known = _known_of(name, num_classes, model)
    try:
        if is_unsized(model):
            give_sizes(model, resolution)
        try:
            seen = known.once(("images", resolution), lambda: _images(model, resolution))
        except RuntimeError:
            # Running it will report why it can't.
            return model, known
        channels, makes_layers = seen
        if channels == 3 and makes_layers:
            give_sizes(model, resolution)
    except InputError as error:
        raise InputError(f"backbone '{shown(name)}': {error}") from None
    if channels != 3:
        raise InputError(
            f"backbone '{shown(name)}' is for images of {channels} channel{'s' * (channels > 1)}: expected a"
            " network for images of 3 channels"
        )
    return model, known


def _images(model: nn.Module, resolution: int) -> tuple[int, bool]:
    """The channels of its images, and whether its first forward pass creates layers."""
    seen = one_pass(model, resolution)
    return seen.channels, seen.made


def _from_torchvision(network: str, num_classes: int) -> nn.Module:
    # Networks for other tasks download a backbone's weights even with weights=None.
    known = torchvision.models.list_models(module=torchvision.models)
    if network not in known:
        raise _no_such("torchvision", network, known)
    with _translate_errors(f"torchvision:{network}"):
        model: nn.Module = torchvision.models.get_model(network, weights=None, num_classes=num_classes)
    return model


def _from_timm(network: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(f'backbone timm:{network} needs timm: pip install "wnexplore[timm]"') from None
    if not timm.is_model(network):
        raise _no_such("timm", network, timm.list_models())
    with _translate_errors(f"timm:{network}"):
        model: nn.Module = timm.create_model(network, pretrained=False, num_classes=num_classes)
    return model


def _from_file(path: Path, function: str, num_classes: int) -> nn.Module:
    name = f"{path}:{function}"
    if not path.is_file():
        raise InputError(f"no file at {path}, where backbone '{name}' should be")
    with _translate_errors(name), module_of(path) as module:
        make = _function(path, module, function)
        given = {"num_classes": num_classes} if _takes(make, "num_classes") else {}
        model = make(**given)
        if not isinstance(model, nn.Module):
            raise InputError(
                f"backbone '{shown(name)}' gives a {type(model).__name__}: expected a torch.nn.Module"
            )
        same = None
        if (module.__name__, function) not in _new_each_time:
            with torch.random.fork_rng(devices=()):
                same = _same(model, lambda: make(**given))
            _new_each_time.add((module.__name__, function))
    if same is not None:
        _new_each_time.discard((module.__name__, function))
        raise InputError(
            f"backbone '{shown(name)}' gives {same} each time it is called: expected a new network, since"
            " training or converting one would change the next"
        )
    return model


_new_each_time: set[tuple[str, str]] = set()
"""Module and function known to return a new network each time."""


def _same(model: nn.Module, make: Callable[[], object]) -> str | None:
    """What two networks of a function share, so that training one would change the next; None if nothing."""
    other = make()
    if (shared := _shared(model, other)) is not None:
        return f"the same {shared}"
    assert isinstance(other, nn.Module)
    # Change the weights, as a training would.
    learned = [p for p in other.parameters() if _has_values(p) and p.is_floating_point()]
    with torch.no_grad():
        for parameter in learned:
            parameter.fill_(_MARK)
    third = make()
    if not isinstance(third, nn.Module):
        return None
    for name, parameter in third.named_parameters():
        if _has_values(parameter) and bool((parameter == _MARK).any()):
            return f"the weights of the last one in {name}"
    return None


def _has_values(parameter: nn.Parameter) -> bool:
    """Whether its elements can be compared with a value."""
    return not is_lazy(parameter) and not parameter.is_meta and parameter.layout == torch.strided


_MARK = 12345.678
"""A value that no network's initial weights have."""


def _shared(model: nn.Module, other: object) -> str | None:
    """What two networks share of what should belong to one; modules without weights may be shared."""
    if other is model or not isinstance(other, nn.Module):
        return "module"
    places = {_place(tensor) for tensor in _tensors(other)}
    modules = {id(module) for module in other.modules()}
    for name, module in model.named_modules():
        if id(module) in modules and any(True for _ in _tensors(module)):
            return f"module {name}"
    names = (*model.named_parameters(), *model.named_buffers())
    return next((f"tensor {name}" for name, tensor in names if _place(tensor) in places), None)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _place(tensor: torch.Tensor) -> object:
    """The storage of a tensor; the tensor itself if it has none yet, or several."""
    if is_lazy(tensor) or tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
        return id(tensor)
    return tensor.untyped_storage().data_ptr()


def _function(path: Path, module: ModuleType, name: str) -> Callable[..., object]:
    found: Any = getattr(module, name, None)
    if isinstance(found, nn.Module) or not callable(found):
        functions = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        hint = _hint([key for key in get_close_matches(name, functions, n=1) if key != name])
        raise InputError(
            f"{path} has no function '{name}'{hint or ': expected one that returns a torch.nn.Module'}"
        )
    make: Callable[..., object] = found
    return make


def _takes(make: Callable[..., object], argument: str) -> bool:
    try:
        parameters = inspect.signature(make).parameters
    except ValueError:
        return False
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    """Translate any error while a network is built into an `InputError` of one line."""
    try:
        # What it prints is not our output.
        with redirect_stdout(sys.stderr):
            yield
    except InputError:
        raise
    # Anybody's code: it may even want to leave.
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"backbone '{shown(name)}' can't be made: {shown(cause, 300)}") from error


def _no_such(library: str, network: str, known: Iterable[str]) -> InputError:
    return InputError(
        f"{library} has no network '{network}'{_hint(get_close_matches(network, list(known), n=3))}"
    )


def _hint(near: list[str]) -> str:
    return f": did you mean {', '.join(near)}?" if near else ""
