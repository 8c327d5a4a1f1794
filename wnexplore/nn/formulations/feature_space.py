"""The shared formulation: kernels that don't depend on the image, and an image-dependent sum of their
outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from wnexplore.nn.formulations.im2col import MAX_COLUMNS, columns_of
from wnexplore.nn.formulations.kernel_space import in_parts, needs_gradient
from wnexplore.nn.formulations.layer_shape import LayerShape
from wnexplore.nn.formulations.scaled_conv import Scaled
from wnexplore.nn.formulations.tiles import chunk_size

LARGE = 2**19
"""Elements of one image's kernel beyond which making its slices doesn't pay."""

OUTPUT_BYTES = 2**22
"""Bytes of outputs held before they are scaled and summed on a CPU: a larger buffer is cleared for each
call."""

PIXELS_OF_ONE_PRODUCT = 4
"""Pixels of an image up to which a product of all images, lambda times as large, costs less than making their
kernels."""

TERMS_OF_ONE_PRODUCT = 4
"""Largest lambda for that: with more terms, kernels are made at the rate of large products."""

_KERNEL_READS = 8
"""Smallest ratio of these outputs to the kernels, which are read again for each chunk."""

_Outputs = Callable[[Tensor, Tensor], list[tuple[Tensor, Tensor]]]
"""Images and their activation vectors -> the terms of the sum: outputs and their scales."""


def shared(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, shift: Tensor | None = None
) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H_out, W_out), by ordinary convolutions and a scaled sum.

    y[n, o] = sum over slices s and inputs j of alpha[n, o, s, j] · conv(x[n, slice s], B[o, s, j]):
    lambda times the multiply-adds of the convolution, no kernels per image. For layers
    where each group of the generator covers whole input-channel slices (`LayerShape.slices`).
    """
    slices = layer.slices
    assert slices is not None
    if torch.compiler.is_compiling():
        return _sum(_outputs_of(weight, layer, slices)(x, alpha), shift)
    batch, _, height, width = x.shape
    training = needs_gradient(x, alpha, weight)
    if as_matrices(layer, batch, height, width, training):
        return _multiplied(x, alpha, weight, layer, slices, shift)
    if x.device.type != "cpu" and training and slices * layer.inputs_per_group == 1:
        scaled: Tensor = Scaled.apply(x, alpha, weight.view(layer.kernel_shape), layer)
        return scaled if shift is None else scaled + shift.view(-1, 1, 1)
    if as_one_product(layer, batch, height, width, x.device.type):
        return _of_all_images(x, alpha, weight, layer, slices, shift)
    outputs = _outputs_of(weight, layer, slices)
    at_once = training or needs_gradient(shift) or x.device.type != "cpu"
    images = batch if at_once else images_at_a_time(batch, height, width, layer, slices, x.element_size())
    if images >= batch:
        return _sum(outputs(x, alpha), shift)
    channels_last = not x.is_contiguous() and x.stride(1) == 1
    y = torch.empty(
        (batch, layer.out_channels, *layer.output_size(height, width)),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
    for chunk, vectors, to in zip(x.split(images), alpha.split(images), y.split(images), strict=True):
        _sum(outputs(chunk, vectors), shift, to)
    return y


def as_matrices(layer: LayerShape, batch: int, height: int, width: int, training: bool) -> bool:
    """Whether slices of the kernels are applied as matrices to columns of the image (im2col).

    This pays where they are large and the image small: a slice is a matrix without a copy, while a
    convolution and its gradient would need it contiguous.
    """
    rows, columns = layer.output_size(height, width)
    sliced = layer.groups == 1 and layer.slices is not None and layer.slices > 1
    single = batch == layer.inputs_per_group == 1 and rows * columns <= MAX_COLUMNS
    return sliced and single and layer.weights > LARGE and (layer.pointwise or training)


def as_one_product(layer: LayerShape, batch: int, height: int, width: int, device: str) -> bool:
    """Whether a 1x1 layer is applied to all pixels of a batch in one product for each slice.

    For the few pixels of the smallest images. Kernels would be used a few times each, and made in products
    with only lambda terms.
    """
    small = height * width <= PIXELS_OF_ONE_PRODUCT and layer.pointwise and layer.stride == (1, 1)
    few = layer.slices is not None and layer.inputs_per_group <= TERMS_OF_ONE_PRODUCT
    return small and few and batch > 1 and device == "cpu"


def images_at_a_time(
    batch: int, height: int, width: int, layer: LayerShape, slices: int, element_bytes: int
) -> int:
    """Images per chunk of a batch on a CPU."""
    rows, columns = layer.output_size(height, width)
    outputs = slices * layer.inputs_per_group * layer.out_channels * rows * columns * element_bytes
    kernels = layer.weights * layer.inputs_per_group * element_bytes
    return chunk_size(batch, max(OUTPUT_BYTES, _KERNEL_READS * kernels) // max(1, outputs))


def _multiplied(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, slices: int, shift: Tensor | None
) -> Tensor:
    """One product per slice of the input channels."""
    matrices = weight.view(layer.out_channels, layer.fan_in).chunk(slices, 1)
    columns = columns_of(x, layer)[0].chunk(slices)
    scales = _of_filters(alpha.view(1, -1, slices), layer)
    output = (1, layer.out_channels, *layer.output_size(*x.shape[2:]))
    parts = [torch.mm(matrix, column).view(output) for matrix, column in zip(matrices, columns, strict=True)]
    return _sum([(part, scales[:, :, index]) for index, part in enumerate(parts)], shift)


def _of_all_images(
    x: Tensor, alpha: Tensor, weight: Tensor, layer: LayerShape, slices: int, shift: Tensor | None
) -> Tensor:
    """As `_multiplied`, of all images. They come last in memory, where a filter's scales are next to each
    other.
    """
    batch, channels, height, width = x.shape
    terms, width_of_slice = layer.inputs_per_group, channels // slices
    columns = x.permute(1, 2, 3, 0).reshape(slices, width_of_slice, -1)
    matrices = weight.view(-1, slices, width_of_slice, terms).permute(1, 3, 0, 2)
    scales = alpha.view(batch, -1, slices, terms).permute(2, 3, 1, 0).reshape(slices * terms, -1, 1, batch)
    parts = torch.bmm(matrices.reshape(slices, -1, width_of_slice), columns)
    parts = parts.view(slices * terms, scales.shape[1], -1, batch)
    parts = parts * scales if needs_gradient(parts, scales) else parts.mul_(scales)
    y = parts.sum(0) if len(parts) > 1 else parts
    y = y.view(layer.out_channels, height, width, batch)
    if shift is not None:
        y += shift.view(-1, 1, 1, 1)
    channels_last = not x.is_contiguous() and x.stride(1) == 1
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return y.permute(3, 0, 1, 2).contiguous(memory_format=layout)


def _outputs_of(weight: Tensor, layer: LayerShape, slices: int) -> _Outputs:
    """A function that applies `layer` to images with prepared kernels."""
    if slices * layer.inputs_per_group == 1:
        kernels = weight.view(layer.kernel_shape)
        return lambda x, alpha: [_with_scales(_convolve(x, kernels, layer, layer.groups), alpha)]
    return _by_slice(weight, layer, slices) if layer.pointwise else _by_group(weight, layer, slices)


def _with_scales(y: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, C_out, H_out, W_out) and their scales, filters with the same scale adjacent."""
    groups = alpha.shape[1]
    by_group = y if groups == y.shape[1] else y.unflatten(1, (groups, -1))
    return by_group, alpha.view(*alpha.shape, *(1,) * (by_group.dim() - 2))


def _by_slice(weight: Tensor, layer: LayerShape, slices: int) -> _Outputs:
    """One 1x1 convolution per slice of the input channels: a grouped one is slow."""
    terms = layer.inputs_per_group
    parted = weight.view(layer.out_channels, slices, *_slice_shape(layer, slices), terms)
    kernels = [
        part.permute(4, 0, 1, 2, 3).reshape(-1, *_slice_shape(layer, slices)) for part in parted.unbind(1)
    ]

    def outputs(x: Tensor, alpha: Tensor) -> list[tuple[Tensor, Tensor]]:
        scales = _of_filters(alpha.view(alpha.shape[0], -1, slices, terms), layer)
        return [
            (part, scales[:, :, index, term])
            for index, (channel_slice, stacked) in enumerate(
                zip(in_parts(x, slices, 1), kernels, strict=True)
            )
            for term, part in enumerate(in_parts(_convolve(channel_slice, stacked, layer, 1), terms, 1))
        ]

    return outputs


def _by_group(weight: Tensor, layer: LayerShape, slices: int) -> _Outputs:
    """One convolution: the layer's groups are outermost, then slices, then inputs j."""
    terms = layer.inputs_per_group
    kernels = weight.view(layer.groups, -1, slices, *_slice_shape(layer, slices), terms)
    kernels = kernels.permute(0, 2, 6, 1, 3, 4, 5).reshape(-1, *_slice_shape(layer, slices))

    def outputs(x: Tensor, alpha: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = _convolve(x, kernels, layer, layer.groups * slices)
        scales = _of_filters(alpha.view(alpha.shape[0], -1, slices * terms), layer)
        scales = scales.view(-1, layer.groups, layer.out_channels // layer.groups, slices * terms, 1, 1)
        of_groups = parts.view(-1, layer.groups, slices * terms, *scales.shape[2:3], *parts.shape[2:])
        return [(of_groups[:, :, term], scales[:, :, :, term]) for term in range(slices * terms)]

    return outputs


def _convolve(x: Tensor, kernels: Tensor, layer: LayerShape, groups: int) -> Tensor:
    return functional.conv2d(x, kernels, None, layer.stride, layer.padding, layer.dilation, groups)


def _slice_shape(layer: LayerShape, slices: int) -> tuple[int, int, int]:
    return (layer.in_channels // layer.groups // slices, *layer.kernel_size)


def _repeated(alpha: Tensor, times: int) -> Tensor:
    """(N, P, ...) -> (N, P·times, ...), as `repeat_interleave`, which in some versions of torch indexes."""
    if times == 1:
        return alpha
    return alpha.unsqueeze(2).expand(-1, -1, times, *alpha.shape[2:]).flatten(1, 2)


def _of_filters(alpha: Tensor, layer: LayerShape) -> Tensor:
    """(N, groups of filters, ...) -> (N, C_out, ..., 1, 1): filters of one group share a value."""
    alpha = _of_each_filter(alpha, layer)
    return alpha.view(*alpha.shape, 1, 1)


def _of_each_filter(alpha: Tensor, layer: LayerShape) -> Tensor:
    """As `_of_filters` without the last two dimensions."""
    return _repeated(alpha, layer.out_channels // alpha.shape[1])


def _sum(outputs: list[tuple[Tensor, Tensor]], shift: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Outputs (N, ..., H_out, W_out) times their scales, summed, plus `shift`: (N, C_out, H_out, W_out).

    Written to `out`, if given, where nothing needs a gradient.
    """
    (first, scales), *rest = outputs
    keeps = needs_gradient(*(tensor for pair in outputs for tensor in pair))
    if out is not None:
        y = torch.mul(first, scales, out=out.view(first.shape))
    else:
        # In place if it is the only term and no gradient needs it.
        y = first * scales if rest or keeps else first.mul_(scales)
    for part, scales in rest:
        y = y.addcmul(part, scales) if keeps else y.addcmul_(part, scales)
    if shift is not None:
        offset = shift.view(*y.shape[1:-2], 1, 1)
        y = y + offset if keeps or needs_gradient(shift) else y.add_(offset)
    return y.flatten(1, -3)
