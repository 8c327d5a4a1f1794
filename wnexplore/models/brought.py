"""Networks that a person brings: torchvision's, timm's, or a file's of their own; nothing is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision
from torch import nn

from wnexplore.design.brought import check_name
from wnexplore.design.walk import Block, Site, Walk
from wnexplore.errors import InputError
from wnexplore.models.convert import convert, why_left
from wnexplore.models.from_file import module_of
from wnexplore.models.layout import SeenConv, layout, one_pass
from wnexplore.models.methods import Method, PlainMethod


def load(name: str, num_classes: int) -> nn.Module:
    """The network called "torchvision:NAME", "timm:NAME" or "path/to/file.py:function", untrained.

    A function of one's own is called with `num_classes` if it takes that; its file may import others of its
    folder. Nothing is ever downloaded. Raises `InputError` if there is no such network, its library is not
    installed or it can't be made.
    """
    check_name(name)
    origin, _, network = name.rpartition(":")
    if origin == "torchvision":
        return _from_torchvision(network, num_classes)
    if origin == "timm":
        return _from_timm(network, num_classes)
    return _from_file(Path(origin), network, num_classes)


def brought_network(name: str, method: Method, num_classes: int) -> nn.Module:
    """The network with its convolutions replaced by those of `method` as `convert` does it if told no more.

    Raises `InputError` as `load` and `convert` do, and `IllegalPointError` naming the layer.
    """
    model = load(name, num_classes)
    if type(method) is not PlainMethod:
        convert(model, method)
    return model


def brought_walk(name: str, resolution: int, num_classes: int) -> Walk:
    """The walk of the plain network for images of `resolution` pixels.

    Each convolution that `convert` may replace is a block of its own, in the stage that it has there.
    Raises `InputError` as `load` does, or if its convolutions can't be seen, and `RuntimeError`, one line,
    if the network can't run on such images.
    """
    # A walk is for counting: random numbers drawn after it are those that were drawn without it.
    with torch.random.fork_rng(devices=()):
        model = load(name, num_classes)
    found = layout(model)
    left = why_left(model, found)
    seen = one_pass(model, resolution, counted=True)

    def block(conv: SeenConv) -> Block:
        pixels = sum(call.output[2] * call.output[3] for call in seen.calls.get(conv.name, ()))
        site = _site(conv, pixels)
        return Block(conv.name, conv.stage, site.in_channels, site.out_channels, pixels, (site,))

    blocks = tuple(block(conv) for conv in found.convs if conv.name not in left)
    sites = [site for block in blocks for site in block.sites]
    return Walk(
        params=sum(p.numel() for p in model.parameters()) - sum(site.weights for site in sites),
        flops=seen.flops - sum(site.weights * site.pixels for site in sites),
        blocks=blocks,
    )


def _site(seen: SeenConv, pixels: int) -> Site:
    conv = seen.module
    assert isinstance(conv, nn.Conv2d)
    high, wide = conv.kernel_size
    return Site(seen.name, conv.in_channels, conv.out_channels, (high, wide), conv.groups, pixels)


def _from_torchvision(network: str, num_classes: int) -> nn.Module:
    # Those for other tasks take a backbone's weights from the net even where they are told to take none.
    known = torchvision.models.list_models(module=torchvision.models)
    if network not in known:
        raise _no_such("torchvision", network, known)
    with _told(f"torchvision:{network}"):
        model: nn.Module = torchvision.models.get_model(network, weights=None, num_classes=num_classes)
    return model


def _from_timm(network: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(f'backbone timm:{network} needs timm: pip install "wnexplore[timm]"') from None
    if not timm.is_model(network):
        raise _no_such("timm", network, timm.list_models())
    with _told(f"timm:{network}"):
        model: nn.Module = timm.create_model(network, pretrained=False, num_classes=num_classes)
    return model


def _from_file(path: Path, function: str, num_classes: int) -> nn.Module:
    name = f"{path}:{function}"
    if not path.is_file():
        raise InputError(f"no file at {path}, where backbone '{name}' should be")
    with _told(name), module_of(path) as module:
        make = _function(path, module, function)
        model = make(num_classes=num_classes) if _takes(make, "num_classes") else make()
    if not isinstance(model, nn.Module):
        raise InputError(f"backbone '{name}' gives a {type(model).__name__}: expected a torch.nn.Module")
    return model


def _function(path: Path, module: ModuleType, name: str) -> Callable[..., object]:
    found: Any = getattr(module, name, None)
    if isinstance(found, nn.Module) or not callable(found):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = _hint([key for key in get_close_matches(name, own, n=1) if key != name])
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
def _told(name: str) -> Iterator[None]:
    """Whatever a network raises while it is made, in one line."""
    try:
        yield
    except InputError:
        raise
    # Anybody's code: it may even want to leave.
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"backbone '{name}' can't be made: {cause}") from error


def _no_such(library: str, network: str, known: Iterable[str]) -> InputError:
    return InputError(
        f"{library} has no network '{network}'{_hint(get_close_matches(network, list(known), n=3))}"
    )


def _hint(near: list[str]) -> str:
    return f": did you mean {', '.join(near)}?" if near else ""
