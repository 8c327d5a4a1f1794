"""Networks that a person brings: loaded by name, converted to a method, and walked."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wnexplore.design.brought import check_name
from wnexplore.design.walk import Block, Site, Walk
from wnexplore.errors import InputError
from wnexplore.models.convert import Place, convert, layout
from wnexplore.models.methods import Method


def load(name: str, num_classes: int) -> nn.Module:
    """The network called "torchvision:NAME", "timm:NAME" or "path/to/file.py:function", untrained.

    A function of one's own is called with `num_classes` if it takes that. Nothing is ever downloaded. Raises
    `InputError` if there is no such network, its library is not installed or it can't be made.
    """
    check_name(name)
    source, _, network = name.rpartition(":")
    maker = {"torchvision": _torchvision, "timm": _timm}.get(source)
    if maker is not None:
        return maker(network, num_classes)
    return _from_file(Path(source), network, num_classes)


def brought_network(name: str, method: Method, num_classes: int) -> nn.Module:
    """The network `name`, all of its convolutions but the stem replaced by those of `method`."""
    model = load(name, num_classes)
    convert(model, method)
    return model


def brought_walk(name: str, resolution: int, num_classes: int) -> Walk:
    """The walk of the network `name`: each convolution that `convert` replaces is a block by itself.

    Raises `RuntimeError` as torch does if it can't run on such images.
    """
    model = load(name, num_classes).eval()
    places = [place for place in layout(model) if not place.obstacle and not place.first]
    pixels: dict[nn.Module, int] = {}

    def note(conv: nn.Module, _: object, output: Tensor) -> None:
        pixels[conv] = output.shape[2] * output.shape[3]

    for place in places:
        place.conv.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, resolution, resolution))
    blocks = tuple(_block(place, pixels[place.conv]) for place in places)
    sites = [site for block in blocks for site in block.sites]
    return Walk(
        params=sum(p.numel() for p in model.parameters()) - sum(site.weights for site in sites),
        # It counts a multiply-add as two.
        flops=counter.get_total_flops() // 2 - sum(site.weights * site.pixels for site in sites),
        blocks=blocks,
    )


def _block(place: Place, pixels: int) -> Block:
    conv = place.conv
    high, wide = conv.kernel_size
    site = Site(place.name, conv.in_channels, conv.out_channels, (high, wide), conv.groups, pixels)
    return Block(place.name, place.stage, conv.in_channels, conv.out_channels, pixels, (site,))


def _torchvision(network: str, num_classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if network not in known:
        raise _no_such("torchvision", network, known)
    return _made(f"torchvision:{network}", models.get_model, network, weights=None, num_classes=num_classes)


def _timm(network: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError(f'backbone timm:{network} needs timm: pip install "wnexplore[timm]"') from None
    if not timm.is_model(network):
        raise _no_such("timm", network, timm.list_models())
    return _made(f"timm:{network}", timm.create_model, network, pretrained=False, num_classes=num_classes)


def _from_file(path: Path, function: str, num_classes: int) -> nn.Module:
    name = f"{path}:{function}"
    make = getattr(_module(path, name), function, None)
    if not callable(make):
        raise InputError(f"{path} has no function '{function}': expected one that returns a torch.nn.Module")
    takes = "num_classes" in inspect.signature(make).parameters
    return _made(name, make, **({"num_classes": num_classes} if takes else {}))


def _module(path: Path, name: str) -> Any:
    """The file as a module of its own; what lies beside it can be imported while it loads."""
    if not path.is_file():
        raise InputError(f"no file at {path}, where backbone '{name}' should be")
    private = f"_wnexplore_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(private, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[private]
        raise InputError(f"backbone '{name}': {path} can't be loaded: {_told(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _made(name: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> nn.Module:
    try:
        model = make(*args, **kwargs)
    except Exception as error:
        raise InputError(f"backbone '{name}' can't be made: {_told(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"backbone '{name}' gives a {type(model).__name__}: expected a torch.nn.Module")
    return model


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _no_such(library: str, network: str, known: Iterable[str]) -> InputError:
    near = get_close_matches(network, list(known), n=3)
    hint = f": did you mean {', '.join(near)}?" if near else ""
    return InputError(f"{library} has no network '{network}'{hint}")
