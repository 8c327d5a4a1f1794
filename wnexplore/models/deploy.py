"""A network as it is deployed: batch normalisations folded, weights stored as inference reads them.

Source: Ioffe & Szegedy, Batch Normalization, ICML 2015, algorithm 2, https://arxiv.org/abs/1502.03167: in
inference a normalisation is an affine function of each channel, which a convolution's kernel and bias absorb.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wnexplore.models.branch import Branch
from wnexplore.models.copies import evaluating, uncompiled
from wnexplore.nn import ActivationVectors, Context
from wnexplore.nn.generated import GeneratedConv2d, MethodConv2d

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def deploy(network: nn.Module, images: Tensor) -> None:
    """Make `network`, in place, what runs where only inference matters: the same function in evaluation mode.

    Batch normalisations are folded (`fold_batch_norms`, which see for `images` and what is raised), contexts
    merged with the linear layers that read them, and generated layers store their weights as inference reads
    them. It can't be trained or saved after it.
    """
    fold_batch_norms(network, images)
    for module in list(network.modules()):
        if isinstance(module, GeneratedConv2d):
            module.settle_for_inference()
        context, alphas = module._modules.get("reduce"), module._modules.get("alphas")
        if isinstance(context, Context) and isinstance(alphas, ActivationVectors) and not _hooked(context):
            alphas.settle_for_inference(context)


def fold_batch_norms(network: nn.Module, images: Tensor) -> int:
    """Fold the batch normalisations of `network` into its convolutions, in place; returns how many.

    An ordinary convolution takes one by torch's own fusion, a layer that makes kernels by what they are made
    of (`MethodConv2d.absorb`). Which of them follow each other is seen in a forward pass over `images`
    (N, 3, H, W): a normalisation is folded if it alone reads the output of a convolution, and each is called
    once. The result is the same function in evaluation mode, to rounding; it can't be trained further.
    Normalisations with an activation of their own (timm's `BatchNormAct2d`) keep that. Raises the network's
    own errors where it can't run on `images`.
    """
    folded = {norm for norm, conv in _pairs(network, images).items() if _fold(conv, norm)}
    _without(network, folded)
    return len(folded)


def _fold(conv: Any, norm: Any) -> bool:
    if isinstance(conv, MethodConv2d):
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.detach()
        shift = -norm.running_mean * scale
        return conv.absorb(scale, shift if norm.bias is None else shift + norm.bias.detach())
    fused = fuse_conv_bn_eval(conv.eval(), norm.eval())
    # The module stays, as others may refer to it.
    conv.weight, conv.bias = fused.weight, fused.bias
    return True


def _pairs(network: nn.Module, images: Tensor) -> dict[nn.Module, Any]:
    """Each normalisation that can be folded, and the convolution that takes it."""
    reads = _Reads(network)
    hooks = [
        module.register_forward_hook(reads.note, with_kwargs=True)
        for module in network.modules()
        if isinstance(module, MethodConv2d)
    ]
    try:
        with torch.no_grad(), evaluating(network), uncompiled(), reads:
            output = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    returned = {id(leaf) for leaf in tree_leaves(output)}
    return {
        norm: conv
        for norm, (conv, made) in reads.normalised.items()
        if reads.calls[conv] == reads.calls[norm] == reads.readers[id(made)] == 1
        and id(made) not in returned
        and not (_hooked(conv) or _hooked(norm))
    }


class _Reads(TorchDispatchMode):
    """Sees which operators read the outputs of convolutions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        modules = list(network.modules())
        # Identified by their tensors: a kernel that is computed anew, as by weight standardisation, is none.
        self._convs = {id(m._parameters.get("weight")): m for m in modules if isinstance(m, CONVS)}
        self._norms = {id(m.running_mean): m for m in modules if isinstance(m, NORMS) and _is_affine(m)}
        self._made: dict[int, tuple[nn.Module, Tensor]] = {}
        """The outputs of convolutions by identity; held, so that none is another's later."""
        self.calls: Counter[nn.Module] = Counter()
        self.readers: Counter[int] = Counter()
        self.normalised: dict[nn.Module, tuple[Any, Tensor]] = {}
        """Normalisation -> the convolution whose output it reads, and that output."""

    def note(self, module: nn.Module, args: object, kwargs: Mapping[str, Any], output: Tensor) -> None:
        """The output of a method's convolution; as a hook, since it is that of no single operator."""
        self.calls[module] += 1
        # A caller's shift would have to be scaled too.
        if kwargs.get("shift") is None:
            self._made[id(output)] = module, output

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            if id(leaf) in self._made:
                self.readers[id(leaf)] += 1
        output = func(*args, **kwargs)
        conv = self._convs.get(id(args[1])) if len(args) > 1 and "conv" in func.name() else None
        if conv is not None and isinstance(output, Tensor):
            self.calls[conv] += 1
            self._made[id(output)] = conv, output
        norm = self._norms.get(id(args[3])) if len(args) > 3 and "batch_norm" in func.name() else None
        if norm is not None:
            self.calls[norm] += 1
            if id(args[0]) in self._made:
                self.normalised[norm] = self._made[id(args[0])]
        return output


def _is_affine(norm: nn.Module) -> bool:
    """Whether `norm` is, in inference, an affine function of each channel and what `_rest` knows."""
    plain = type(norm) in NORMS
    return isinstance(norm._buffers.get("running_mean"), Tensor) and (plain or _rest(norm) is not None)


def _rest(norm: nn.Module) -> nn.Module | None:
    """What a normalisation of timm's does after it has normalised; None for other kinds."""
    if type(norm).__name__ != "BatchNormAct2d":
        return None
    after = [norm._modules.get("drop"), norm._modules.get("act")]
    kept = [module for module in after if module is not None and not isinstance(module, nn.Identity)]
    return nn.Sequential(*kept) if len(kept) > 1 else (kept or [nn.Identity()])[0]


def _hooked(module: nn.Module) -> bool:
    """Whether something reads, or changes, what goes in or out of `module`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _without(network: nn.Module, folded: Collection[nn.Module]) -> None:
    """Take the `folded` normalisations out of `network`."""
    for parent in list(network.modules()):
        last = next(reversed(parent._modules), None)
        for name, child in list(parent._modules.items()):
            if child is None or child not in folded:
                continue
            # A branch calls its layers in turn, and has its gate before the last.
            if isinstance(parent, Branch) and name != last:
                del parent._modules[name]
            else:
                parent._modules[name] = (_rest(child) or nn.Identity()).eval()
