"""The preprocessing of image files, the same in a data set's test and for single files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from wnexplore.data.decoding import Range

# torchvision is imported where it is used: it takes as long to load as torch.


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of a test's images."""

    mean: tuple[float, float, float]
    """Mean by colour, where white is 1; likewise `std`."""
    std: tuple[float, float, float]
    grey: bool = False
    """Whether the data set is greyscale."""
    crop: float = 1.0
    """The network's resolution over the shorter side of the image before the centre crop; 1: the image is
    resized without a crop, whatever its aspect ratio."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Ranges of grey images of more than 8 bits, for `read_image`; empty if the training had none."""


def tested(image: Image.Image, how: Preprocessing, resolution: int) -> Tensor:
    """`image`, from `read_image`, preprocessed for a test: (3, resolution, resolution), from 0 to 255.

    uint8, or float32 where it has more than 256 greys or is resized without a crop; not yet `normalised`.
    """
    if how.grey and image.mode != "F":
        image = image.convert("L").convert("RGB")
    if how.crop < 1:
        from torchvision.transforms.v2 import functional as transforms

        image = transforms.resize(_without_far_ends(image), [round(resolution / how.crop)], antialias=True)
        return to_tensor(transforms.center_crop(image, [resolution] * 2))
    # Resized like images in tensors. Reduced first, so that large images take little memory.
    times = tuple(max(1, side // (_MANY * resolution)) for side in image.size)
    pixels = to_tensor(image if times == (1, 1) else image.reduce((times[0], times[1]))).float()
    if list(pixels.shape[1:]) == [resolution] * 2:
        return pixels
    return functional.interpolate(pixels[None], [resolution] * 2, mode="bilinear", antialias=True)[0]


def to_tensor(image: Image.Image) -> Tensor:
    """`image` in mode "RGB" or "F" as (3, height, width), uint8 or float32."""
    if image.mode == "F":
        return torch.from_numpy(np.array(image)).expand(3, -1, -1)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def normalised(images: Tensor, how: Preprocessing) -> Tensor:
    """`images` (N, 3, H, W) from 0 to 1, minus the mean, over the standard deviation; float32."""
    mean, std = (
        torch.tensor(of_colours, device=images.device).view(3, 1, 1) for of_colours in (how.mean, how.std)
    )
    return (images - mean) / std


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of a very elongated image, which would be huge after resizing its short side."""
    width, height = image.size
    limit = 16 * min(width, height)
    if max(width, height) <= limit:
        return image
    left, top = max(0, width - limit) // 2, max(0, height - limit) // 2
    return image.crop((left, top, width - left, height - top))


_MANY = 16
"""Pixels per output pixel that are more than enough."""
