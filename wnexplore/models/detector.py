"""RetinaNet over the feature maps of any backbone, with any method in it.

Source: Lin, Goyal, Girshick, He, Dollár, Focal Loss for Dense Object Detection, ICCV 2017, section 4,
https://arxiv.org/abs/1708.02002, as torchvision has it: its feature pyramid, head, anchors and losses. Here
an image's boxes depend on the image alone: neither its kernels nor its features nor its anchors change with
the padding that its neighbours in a batch bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from wnexplore.design.multiplier import Written
from wnexplore.errors import InputError
from wnexplore.models.build import build
from wnexplore.models.feature_maps import FeatureMaps
from wnexplore.nn.true_pixels import mask_padding, spatial_mask, true_pixels

PYRAMID_CHANNELS = 256

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of each channel, by which images are normalised."""

CANVAS = 128
"""Images are padded to multiples of it, the coarsest level's stride: so anchors lie alike at any size."""


def build_detector(
    backbone: str,
    method: str = "plain",
    M: Written | None = None,
    G: Written | None = None,
    *,
    num_classes: int = 80,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    **axes: Any,
) -> Detector:
    """The detector of a design point: RetinaNet over the maps of `backbone` at strides 8, 16 and 32.

    The `method` is in the backbone alone; `axes` are further ones of `build`. Classes are numbered from 0 to
    `num_classes` - 1. An image's shorter side is resized to `min_size`, in training to one of several at
    random, its longer one to at most `max_size`. Raises `InputError` as `build` does, for a backbone without
    one of these strides, and for sizes below 1.
    """
    shortest = (min_size,) if isinstance(min_size, int) else tuple(min_size)
    for name, size in (
        ("num_classes", num_classes),
        ("min_size", min(shortest, default=0)),
        ("max_size", max_size),
    ):
        if size < 1:
            raise InputError(f"{name} is {size}: expected at least 1")
    network = build(backbone, method, M, G, **axes)
    return Detector(FeatureMaps(network, backbone), num_classes, shortest, max_size)


class Detector(RetinaNet):  # type: ignore[misc]  # torchvision has no types
    """Images of any sizes, (3, H, W) each with values from 0 to 1 -> as torchvision's RetinaNet.

    In evaluation mode a list of dicts, one for each image: boxes (K, 4) as x1, y1, x2, y2 in its pixels,
    scores and labels (K,). In training mode, with targets of boxes and labels, a dict of the two losses.
    """

    def __init__(self, maps: FeatureMaps, num_classes: int, min_size: Sequence[int], max_size: int) -> None:
        pyramid = _Pyramid(maps)
        super().__init__(pyramid, num_classes)
        self.head = _Head(PYRAMID_CHANNELS, self.anchor_generator.num_anchors_per_location()[0], num_classes)
        self._padding = ExitStack()
        self.transform: Any = GeneralizedRCNNTransform(
            list(min_size), max_size, IMAGENET_MEAN, IMAGENET_STD, CANVAS
        )
        self.transform.register_forward_hook(self._padded)
        mask_padding(self)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """The detections, or in training mode the losses."""
        with self._padding:
            return super().forward(images, targets)

    def _padded(self, module: nn.Module, inputs: Any, output: tuple[ImageList, Any]) -> None:
        batch = output[0]
        height, width = batch.tensors.shape[-2:]
        self._padding.enter_context(true_pixels(batch.image_sizes, (height, width)))


class _Pyramid(nn.Module):
    """(N, 3, H, W) -> the maps of levels 3 to 7, `PYRAMID_CHANNELS` each."""

    def __init__(self, maps: FeatureMaps) -> None:
        super().__init__()
        self.body = maps
        self.fpn = FeaturePyramidNetwork(
            [one.channels for one in maps.maps],
            PYRAMID_CHANNELS,
            LastLevelP6P7(PYRAMID_CHANNELS, PYRAMID_CHANNELS),
        )
        self.out_channels = PYRAMID_CHANNELS

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels: dict[str, Tensor] = self.fpn(self.body(x))
        return levels


class _Head(RetinaNetHead):  # type: ignore[misc]  # torchvision has no types
    """torchvision's head, for which anchors on padding are neither objects nor background."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = super().forward(x)
        anchors = outputs["cls_logits"].shape[1] // sum(level.shape[2] * level.shape[3] for level in x)
        self._inside = torch.cat(
            [spatial_mask(level).flatten(1).repeat_interleave(anchors, 1) for level in x], 1
        )
        if not self.training:
            outputs["cls_logits"] = outputs["cls_logits"].where(self._inside[:, :, None], -torch.inf)
        return outputs

    def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any, matched_idxs: list[Tensor]) -> Any:
        inside = [
            matched.where(mask, _NEITHER) for matched, mask in zip(matched_idxs, self._inside, strict=True)
        ]
        return super().compute_loss(targets, head_outputs, anchors, inside)


_NEITHER = -2
"""torchvision's mark of an anchor that is between an object and background."""
