"""The multiply-adds of a forward pass, counted while it runs, by a formula for each operator that multiplies
matrices.

Profiles, sweeps and skeletons all count with this module. A dispatch mode sees each operator after torch has
decomposed it, whether a module, a function or a script called it, and whether or not its result is used.

Counted are convolutions (also deformable ones, without their interpolation), linear and recurrent layers,
products of matrices and vectors, and the two products of an attention, masked or not, in any kernel. A
bilinear layer counts the product with its weight and the one with its second input; Euclidean distances
(cdist, p = 2) count as the product of their matrix form, however they are computed. Pure scaling, such as
outer products and an einsum without a contracted index, is elementwise work and is not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wnexplore.models.recurrent import OneStep

Place = tuple[str, ...]
"""The modules in which an operator ran, outermost first, by dotted name."""


@dataclass
class Products:
    """The matrix products of one forward pass."""

    flops: Counter[Place] = field(default_factory=Counter)
    """Multiply-adds of the batch."""
    bytes: Counter[Place] = field(default_factory=Counter)
    """Bytes that these operators read and write, each tensor once per operator."""
    uncounted: Counter[str] = field(default_factory=Counter)
    """Operators that may multiply matrices but have no formula -> how often they ran."""

    @property
    def total(self) -> int:
        """The multiply-adds of the pass."""
        return sum(self.flops.values())


@contextmanager
def counted(model: nn.Module) -> Iterator[Products]:
    """Count what runs inside the context, by the modules of `model` in which it runs."""
    products = Products()
    place: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: place.append(name)

    def leave(name: str) -> Callable[..., None]:
        def end(*_: Any) -> None:
            # Above it on the stack may be modules left by an exception that was caught further up.
            while place and place.pop() != name:
                pass

        return end

    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as undo:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                undo.callback(module.register_forward_pre_hook(enter(name)).remove)
                undo.callback(module.register_forward_hook(leave(name)).remove)
        # In inference, torch runs an encoder layer as one operator.
        undo.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        mode = _Mode(products, place)
        undo.enter_context(mode)
        undo.enter_context(OneStep(mode.repeated))
        yield products


class _Mode(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, products: Products, place: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = products
        self.place = place
        self._times = 1

    @contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Count what runs inside `times` times."""
        before, self._times = self._times, times
        try:
            yield
        finally:
            self._times = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule, composite, suspicious = _known(func)
        if composite:
            # Not decomposed only under torch.inference_mode.
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if rule is not None:
            flops = rule(args, kwargs, result)
            if flops:
                at = tuple(self.place)
                tensors = [
                    tree_leave
                    for tree_leave in tree_leaves((args, kwargs, result))
                    if isinstance(tree_leave, Tensor)
                ]
                self.products.flops[at] += self._times * flops
                self.products.bytes[at] += self._times * sum(
                    tensor.numel() * tensor.element_size() for tensor in tensors
                )
        elif suspicious:
            self.products.uncounted[_name(func)] += self._times
        return result


Rule = Callable[[Sequence[Any], Mapping[str, Any], Any], int]
"""Arguments, keyword arguments and result of an operator -> multiply-adds."""


@cache
def _known(func: Any) -> tuple[Rule | None, bool, bool]:
    """The formula of an operator, whether it decomposes into others, whether it may multiply matrices."""
    if not isinstance(func, torch._ops.OpOverload):
        return None, False, True
    space, _, name = func._schema.name.partition("::")
    rule = _RULES.get(f"{space}::{name.rstrip('_')}")
    if rule is not None:
        return rule, False, False
    if func is not torch.ops.prim.device.default and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    ):
        return None, True, False
    if space in ("aten", "prim", "prims"):
        return None, False, _PRODUCT.search(name) is not None and name not in _NO_PRODUCTS
    return None, False, func._schema.name not in _NO_PRODUCTS


def _name(func: Any) -> str:
    name = func._schema.name if isinstance(func, torch._ops.OpOverload) else func.name()
    return str(name).removeprefix("aten::")


_PRODUCT = re.compile(
    r"^_fft_|(^|_)([a-z]*mm|mv|linalg|cholesky|lu|svd|qr|ormqr|eig|inverse|solve|matrix_exp|rnn|lstm|gru"
    r"|attention|conv[a-z]*\d?d?|convolution|linear|multi_head)(_|$)"
)
"""Names of torch's operators that multiply matrices and have no formula."""

_NO_PRODUCTS = frozenset(
    {
        *(
            "linalg_vector_norm",
            "_linalg_check_errors",
            "linalg_cross",
            "upsample_linear1d",
            "_conj",
            "_convert_weight_to_int4pack",
        ),
        *("torchvision::nms", "torchvision::roi_align", "torchvision::roi_pool"),
        *("torchvision::ps_roi_align", "torchvision::ps_roi_pool"),
    }
)
"""Operators with misleading names, and torchvision's that interpolate or select."""


def _product(left: int) -> Rule:
    """(..., m, k) @ (..., k, n) of equal batches: the arguments `left` and the one after it."""
    return lambda args, kwargs, result: args[left].numel() * args[left + 1].shape[-1]


def _times_vector(matrix: int) -> Rule:
    return lambda args, kwargs, result: args[matrix].numel()


def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    x, weight = args[:2]
    transposed = args[6] if len(args) > 6 else kwargs.get("transposed", False)
    return int((x if transposed else result).numel() * prod(weight.shape[1:]))


def _plain_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    return int(result.numel() * prod(args[1].shape[1:]))


def _convolution_of_sequences(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    # Weight (k, C_in, C_out).
    return int(result.numel() * prod(args[1].shape[:2]))


def _attention(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Queries (..., L, E), keys (..., S, E), values (..., S, V): L·S·(E + V) for each head of the queries."""
    queries, keys, values = (tensor.shape for tensor in args[:3])
    # Keys and values may have fewer heads than queries, or be broadcast over the batch.
    heads = prod(max(sizes) for sizes in zip(queries[:-2], keys[:-2], values[:-2], strict=True))
    return int(heads * queries[-2] * keys[-2] * (queries[-1] + values[-1]))


def _layer_of_mkldnn(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """One direction of one recurrent layer: both weights, per step of each sequence (T, N, C)."""
    return int(args[0].shape[0] * args[0].shape[1] * (args[1].numel() + args[2].numel()))


def _recurrent_of_cudnn(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """All layers; biases are vectors. Packed sequences are (steps, C), others (T, N, C) or (N, T, C)."""
    steps = prod(args[0].shape[:-1])
    return int(steps * sum(arg.numel() for arg in args[1] if arg.dim() == 2))


def _trilinear(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """x1 (N, 1, I1, 1), weight (1, O, I1, I2), x2 (N, 1, 1, I2), as a bilinear layer calls it."""
    weight = args[1]
    samples = prod(length for length in args[0].shape) // args[0].shape[-1]
    return int(samples * weight.numel() + result.numel() * weight.shape[-1])


def _distances(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    p = args[2] if len(args) > 2 else 2.0
    return int(result.numel() * args[0].shape[-1]) if p == 2 else 0


def _affine_grid(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Each pixel's homogeneous coordinates times theta (N, d, d + 1)."""
    return int(result.numel() * args[0].shape[-1])


def _multi_head(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """torch's fused module, where a network calls it: (N, L, E) queries, keys and values."""
    query, key, value, width, _, qkv, _, projection = args[:8]
    batch, length, source = query.shape[0], query.shape[1], key.shape[1]
    share = qkv.numel() // 3
    projected = batch * (length + source + value.shape[1]) * share + batch * length * projection.numel()
    return int(projected + 2 * batch * length * source * width)


def _encoder_layer(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    x, width, _, qkv, _, projection = args[:6]
    first, second = args[14], args[16]
    rows = prod(x.shape[:-1])
    weights = sum(weight.numel() for weight in (qkv, projection, first, second))
    return int(rows * weights + 2 * rows * x.shape[-2] * width)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::_int_mm", "aten::_scaled_mm"), _product(0)),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addbmm", "aten::_addmm_activation"), _product(1)),
    **dict.fromkeys(("aten::mv", "aten::dot", "aten::vdot"), _times_vector(0)),
    "aten::addmv": _times_vector(1),
    **dict.fromkeys(("aten::convolution", "aten::_convolution"), _convolution),
    "aten::convolution_overrideable": _convolution,
    "aten::_slow_conv2d_forward": _plain_convolution,
    "aten::cudnn_convolution": _plain_convolution,
    "aten::mkldnn_convolution": _plain_convolution,
    "aten::_conv_depthwise2d": _plain_convolution,
    "aten::conv_tbc": _convolution_of_sequences,
    "torchvision::deform_conv2d": _plain_convolution,
    **dict.fromkeys(
        (
            *("aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_efficient_attention"),
            *(
                "aten::_scaled_dot_product_cudnn_attention",
                "aten::_scaled_dot_product_flash_attention_for_cpu",
            ),
            "aten::_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    "aten::_native_multi_head_attention": _multi_head,
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::mkldnn_rnn_layer": _layer_of_mkldnn,
    **dict.fromkeys(("aten::_cudnn_rnn", "aten::miopen_rnn"), _recurrent_of_cudnn),
    "aten::_trilinear": _trilinear,
    **dict.fromkeys(("aten::_cdist_forward", "aten::_euclidean_dist"), _distances),
    "aten::affine_grid_generator": _affine_grid,
}
