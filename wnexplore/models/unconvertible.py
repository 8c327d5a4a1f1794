"""The convolutions of a network that can't be replaced, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from torch import Tensor, nn
from torch.nn.utils import parametrize

from wnexplore.models.conv_calls import ConvLayout, SeenConv, one_pass
from wnexplore.models.trial_run import Trial, try_out
from wnexplore.nn import Gate, MethodConv2d


def why_left(
    model: nn.Module, found: ConvLayout, *, resolution: int | None = None, stem: bool = False
) -> dict[str, str]:
    """The convolutions of `model` that `convert` can't replace -> the reason, by dotted name.

    `found` is the network's layout, `stem` whether the first convolution may be replaced. Trial runs use
    images of `resolution` pixels, by default those of the layout.
    """
    at = found.resolution if resolution is None else resolution
    reasons = _by_themselves(model, found, stem)
    if at != found.resolution:
        reasons |= _run_otherwise(model, found, at, reasons)
    rest = [seen.name for seen in found.convs if seen.name not in reasons]
    return reasons | used_otherwise(model, at, rest, found.channels)


def used_otherwise(
    model: nn.Module, resolution: int, names: Sequence[str], channels: int = 3
) -> dict[str, str]:
    """The convolutions among `names` that `model` does more with than calling them -> what, by dotted name.

    In evaluation or training, on images of `resolution` pixels. With each of the others wrapped in another
    module, the network runs the same operators.
    """
    if not names:
        return {}
    tried = partial(try_out, model, resolution, channels=channels)
    before: dict[bool, Trial] = {}
    for training in (False, True):
        # A network that can't be trained unchanged can't be compared.
        with suppress(RuntimeError):
            before[training] = tried(training=training)
    reasons: dict[str, str] = {}
    while rest := [name for name in names if name not in reasons]:
        found = _difference(tried, rest, before)
        if isinstance(found, dict):
            if not found:
                break
            reasons |= found
            continue
        # The shortest prefix of the list that makes a difference ends with a convolution that causes it.
        low, high = 1, len(rest)
        while low < high:
            middle = (low + high) // 2
            earlier = _difference(tried, rest[:middle], before)
            if earlier == {}:
                low = middle + 1
            else:
                high, found = middle, earlier
        reasons |= {rest[high - 1]: found} if isinstance(found, str) else found
    return reasons


def padding_of(conv: nn.Conv2d) -> tuple[int, int] | None:
    """Padding at the top and left; None if that at the bottom and right differs."""
    if not isinstance(conv.padding, str):
        return of_two(conv.padding)
    if conv.padding == "valid":
        return 0, 0
    high, wide = (step * (size - 1) for size, step in zip(conv.kernel_size, conv.dilation, strict=True))
    return None if high % 2 or wide % 2 else (high // 2, wide // 2)


def of_two(size: tuple[int, ...]) -> tuple[int, int]:
    """Height and width."""
    high, wide = size
    return high, wide


def _run_otherwise(model: nn.Module, found: ConvLayout, at: int, known: Container[str]) -> dict[str, str]:
    """The convolutions called once in the layout but not on images of `at` pixels -> the reason."""
    try:
        calls = one_pass(model, at, channels=(found.channels,)).calls
    except RuntimeError:
        return {}
    runs = {seen.name: len(calls.get(seen.name, ())) for seen in found.convs if seen.name not in known}
    return {
        name: "it is used more than once" if times else f"no image of {at} pixels passes through it"
        for name, times in runs.items()
        if times != 1
    }


def _difference(
    tried: Callable[..., Trial], names: Collection[str], before: Mapping[bool, Trial]
) -> dict[str, str] | str:
    """What differs with each of `names` wrapped in another module: convolution -> reason where it is known
    which.

    Just a reason where it is not; empty if the network computes the same.
    """
    reasons: dict[str, str] = {}
    for training, plain in before.items():
        when = " in training" if training else ""
        try:
            trial = tried(training=training, stood_in=names)
        except RuntimeError as error:
            return f"with another layer in its place the network can't run{when}: {error}"
        for name, accessed in trial.accessed.items():
            reasons.setdefault(name, f"the network reads its {accessed[0]}{when}")
        if not training and not reasons:
            reasons = {name: "it is also called from elsewhere" for name in names if not trial.calls[name]}
        # A network's control flow may be random.
        if not reasons and trial.steps != plain.steps and tried(training=training).steps == plain.steps:
            return f"with another layer in its place the network computes something else{when}"
    return reasons


def _by_themselves(model: nn.Module, found: ConvLayout, stem: bool) -> dict[str, str]:
    """The convolutions that can't be replaced because of their own properties -> the reason."""
    holders = _holders(model, "_modules")
    owners = _holders(model, "_parameters")
    parts = {
        part: type(owner).__name__
        for owner in model.modules()
        if isinstance(owner, Gate | MethodConv2d)
        for part in owner.modules()
    }
    running = (seen.name for seen in found.convs if seen.calls and isinstance(seen.module, nn.Conv2d))
    first = next(running, None)

    def reasons(seen: SeenConv) -> Iterator[str]:
        module = seen.module
        if module in parts:
            yield f"part of a {parts[module]}"
        if parametrize.is_parametrized(module):
            yield "its weight is parametrised"
        if type(module) is not nn.Conv2d:
            yield f"it is a {type(module).__name__}, not an ordinary Conv2d"
            return
        if not all(
            parameter is None or isinstance(parameter, nn.Parameter)
            for parameter in (module.weight, module.bias)
        ):
            yield "its weight is computed from others"
            return
        if others := [
            name for name in owners[id(module.weight)] if name != f"{seen.name}.weight".lstrip(".")
        ]:
            yield f"its weight is also {others[0]}"
        if others := [name for name in holders.get(id(module), ()) if name != seen.name]:
            yield f"it is also {others[0]}"
        if seen.name == "":
            yield "it is the network itself"
        if any(vars(module).get(name) for name in _HOOKS) or any(map(_has_hooks, module.parameters())):
            yield "it has hooks, which would be lost"
        if changed := [name for name in vars(module) if callable(getattr(nn.Conv2d, name, None))]:
            yield f"its {changed[0]} is overridden, which would be lost"
        held = {
            name: value
            for kind in ("_parameters", "_buffers", "_modules")
            for name, value in vars(module)[kind].items()
        }
        if more := held.keys() - {"weight", "bias"}:
            yield f"it holds {min(more)}, which would be lost"
        if not seen.calls:
            yield "no image passes through it"
            return
        if len(seen.calls) > 1:
            yield "it is used more than once"
        if seen.name == first and not stem:
            yield "it is the stem"
        if module.padding_mode != "zeros":
            yield f"its padding is {module.padding_mode} {module.padding}"
        if padding_of(module) is None:
            yield "its padding is not the same on both sides"
        image, made = seen.calls[0].input, seen.calls[0].output
        if len(image) != 4:
            yield "its input is not a batch of images"
        if image[2:] == made[2:] == (1, 1):
            yield "it works on pooled features"

    reasoned = ((seen.name, next(reasons(seen), None)) for seen in found.convs)
    return {name: reason for name, reason in reasoned if reason is not None}


_HOOKS = [name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs"))]
"""The attributes in which a module keeps its hooks."""


def _has_hooks(tensor: Tensor) -> bool:
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))


def _holders(model: nn.Module, kind: str) -> dict[int, list[str]]:
    """Id of a submodule ("_modules") or parameter ("_parameters") -> the dotted names that hold it."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for attribute, held in getattr(module, kind).items():
            holders.setdefault(id(held), []).append(f"{name}.{attribute}".lstrip("."))
    return holders
