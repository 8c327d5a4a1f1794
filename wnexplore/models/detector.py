"""RetinaNet over the feature maps of any backbone, with any method in it.

Source: Lin, Goyal, Girshick, He, Dollár, Focal Loss for Dense Object Detection, ICCV 2017, section 4,
https://arxiv.org/abs/1708.02002, as torchvision has it: its feature pyramid, head, anchors and losses. Here
an image's boxes depend on the image alone: neither its kernels nor its features nor its anchors change with
the padding that its neighbours in a batch bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from wnexplore.design.axes import LONGEST, PYRAMID_CHANNELS
from wnexplore.design.axis_types import GivenAxes
from wnexplore.design.multiplier import Written
from wnexplore.design.point import DesignPoint
from wnexplore.errors import InputError
from wnexplore.models.build import build
from wnexplore.models.feature_maps import FeatureMaps
from wnexplore.nn.true_pixels import is_padded, padding_masked, spatial_mask, true_pixels

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
    min_size: int | Sequence[int] | None = None,
    max_size: int | None = None,
    **axes: Unpack[GivenAxes],
) -> Detector:
    """The detector of a design point: RetinaNet over the maps of `backbone` at strides 8, 16 and 32.

    The `method` is in the backbone alone, or in the `stages`, such as "all+head" and "4+pyramid". `axes` are
    further ones of `build`, such as num_classes (80 if left out), resolution (800) and pyramid_channels
    (256). Classes are numbered from 0. An image's shorter side is
    resized to `min_size`, by default the resolution, in training to one of several at random, its longer one
    to at most `max_size`, by default `LONGEST` times as much. Raises `InputError` as `build` does, for a
    backbone without one of these strides, and for sizes below 1.
    """
    axes["task"] = "detection"
    network = build(DesignPoint.of(backbone, method, M, G, **axes))
    assert isinstance(network, Detector)
    if min_size is not None or max_size is not None:
        network.resize_to(network.transform.min_size if min_size is None else min_size, max_size)
    return network


class Detector(RetinaNet):  # type: ignore[misc]  # torchvision has no types
    """One tensor of images (N, 3, H, W), normalised -> what the head gives, (N, anchors, classes + 4).

    That is what is counted, timed and exported: no boxes are decoded or chosen. Without padding H and W may
    be any.

    A list of images of any sizes, (3, H, W) each with values from 0 to 1 -> as torchvision's RetinaNet: in
    evaluation mode a list of dicts, one for each image: boxes (K, 4) as x1, y1, x2, y2 in its pixels, scores
    and labels (K,); in training mode, with targets of boxes and labels, a dict of the two losses.
    """

    is_detector = True
    """How it is known without an import of torchvision's detection."""

    def __init__(self, maps: FeatureMaps, num_classes: int, channels: int, resolution: int) -> None:
        super().__init__(_Pyramid(maps, channels), num_classes)
        self.head = _Head(channels, self.anchor_generator.num_anchors_per_location()[0], num_classes)
        self.num_classes = num_classes
        self.resizes_in_training = True
        """Whether images of lists are resized in training mode too; data sets do it themselves."""
        self._padding = ExitStack()
        self.resize_to(resolution)

    def resize_to(self, min_size: int | Sequence[int], max_size: int | None = None) -> None:
        """Resize the images of lists: as `build_detector`. Raises `InputError` for sizes below 1."""
        shortest = [min_size] if isinstance(min_size, int) else list(min_size)
        longest = round(LONGEST * max(shortest, default=0)) if max_size is None else max_size
        for name, size in (("min_size", min(shortest, default=0)), ("max_size", longest)):
            if size < 1:
                raise InputError(f"{name} is {size}: expected at least 1")
        self.transform: Any = GeneralizedRCNNTransform(shortest, longest, IMAGENET_MEAN, IMAGENET_STD, CANVAS)
        self.transform.register_forward_hook(self._padded)

    def forward(self, images: Tensor | list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """What the head gives, the detections, or the losses."""
        if isinstance(images, Tensor):
            outputs = self.head(list(self.backbone(images).values()))
            return torch.cat((outputs["cls_logits"], outputs["bbox_regression"]), 2)
        self.transform._skip_resize = self.training and not self.resizes_in_training
        with padding_masked(self), self._padding:
            return super().forward(images, targets)

    def boxes(self, outputs: Tensor, size: tuple[int, int]) -> list[dict[str, Tensor]]:
        """What is detected where a tensor of images of `size` (height, width) gave `outputs`.

        As a list of images gives it in evaluation mode, in pixels of those images.
        """
        maps = [outputs.new_empty(1, 1, *(-(-side // stride) for side in size)) for stride in _STRIDES]
        images = ImageList(outputs.new_empty(len(outputs), 3, *size), [size] * len(outputs))
        counts = [one.shape[2] * one.shape[3] * ANCHORS for one in maps]
        anchors = [list(one.split(counts)) for one in self.anchor_generator(images, maps)]
        parts = {"cls_logits": outputs[..., :-4], "bbox_regression": outputs[..., -4:]}
        levels = {name: list(part.split(counts, 1)) for name, part in parts.items()}
        found: list[dict[str, Tensor]] = self.postprocess_detections(levels, anchors, images.image_sizes)
        return found

    def _padded(self, module: nn.Module, inputs: Any, output: tuple[ImageList, Any]) -> None:
        batch = output[0]
        height, width = batch.tensors.shape[-2:]
        self._padding.enter_context(true_pixels(batch.image_sizes, (height, width)))


class _Pyramid(nn.Module):
    """(N, 3, H, W) -> the maps of levels 3 to 7, `channels` each."""

    def __init__(self, maps: FeatureMaps, channels: int) -> None:
        super().__init__()
        self.body = maps
        self.fpn = FeaturePyramidNetwork(
            [one.channels for one in maps.maps], channels, LastLevelP6P7(channels, channels)
        )
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels: dict[str, Tensor] = self.fpn(self.body(x))
        return levels


class _Head(RetinaNetHead):  # type: ignore[misc]  # torchvision has no types
    """torchvision's head, for which anchors on padding are neither objects nor background.

    Its towers of convolutions start as torchvision's, whose weights are as small at any width: through fewer
    channels than the published ones hardly any signal would come, and these start at Kaiming's variance.
    """

    def __init__(self, channels: int, anchors: int, num_classes: int) -> None:
        super().__init__(channels, anchors, num_classes)
        self._last = _Last()
        if channels < PYRAMID_CHANNELS:
            for tower in (self.classification_head.conv, self.regression_head.conv):
                for module in tower.modules():
                    if isinstance(module, nn.Conv2d):
                        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = super().forward(x)
        if not is_padded():
            return outputs
        anchors = outputs["cls_logits"].shape[1] // sum(level.shape[2] * level.shape[3] for level in x)
        inside = torch.cat([spatial_mask(level).flatten(1).repeat_interleave(anchors, 1) for level in x], 1)
        if self.training:
            self._last.inside = inside
        else:
            outputs["cls_logits"] = outputs["cls_logits"].where(inside[:, :, None], -torch.inf)
        return outputs

    def compute_loss(self, targets: Any, head_outputs: Any, anchors: Any, matched_idxs: list[Tensor]) -> Any:
        masks, self._last.inside = self._last.inside, None
        assert masks is not None
        inside = [matched.where(mask, _NEITHER) for matched, mask in zip(matched_idxs, masks, strict=True)]
        return super().compute_loss(targets, head_outputs, anchors, inside)


class _Last:
    """What a head's pass leaves for its loss: no attribute of a module, which would be in its state."""

    inside: Tensor | None = None
    """(N, anchors): whether an anchor lies on the image's own pixels."""


ANCHORS = 9
"""At each place of a map."""
_STRIDES = (8, 16, 32, 64, 128)
_NEITHER = -2
"""torchvision's mark of an anchor that is between an object and background."""
