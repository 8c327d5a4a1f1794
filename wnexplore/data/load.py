"""A data set by its name."""

from __future__ import annotations

import os

from wnexplore.data.folder import folder
from wnexplore.data.shapes import shapes
from wnexplore.data.splits import AS_USUAL, Augment, Data
from wnexplore.data.standard_datasets import digits, from_torchvision
from wnexplore.design.axes import LONGEST
from wnexplore.design.data_source import DOWNLOADABLE, DataSource, parse_data
from wnexplore.errors import InputError, shown


def load_data(
    source: DataSource | str,
    *,
    resolution: int,
    augment: Augment = AS_USUAL,
    download: bool = False,
    scales: tuple[int, ...] = (),
) -> Data:
    """The data set `source`, as `parse_data` parses it, with images of `resolution` pixels per side.

    - digits: the 1797 handwritten digits that scikit-learn ships, 20 % of them for the test,
      stratified; training shifts them by up to 1/16 of the image.
    - cifar10, cifar100, fashion_mnist: torchvision's files in the source's path, downloaded there only with
      `download`; training shifts by up to 1/8 (4 of 32 pixels) and flips.
    - folder: image files in path/train/CLASS and path/val/CLASS; training takes random resized crops
      and flips, the test the centre of the image resized to 256/224 of `resolution`.
    - shapes: images drawn from their index; training shifts by up to 1/16.
    - scenes: images of several shapes with their boxes, drawn from their index; training flips.
    - coco: path/annotations/instances_train*.json and instances_val*.json, images in path/train* and
      path/val*; training flips.

    In trainings for detection each batch's images are resized to a shorter side of `scales`, by default
    `resolution`, and a longer one of at most 1333/800 of the largest.

    Images are normalised by mean and standard deviation of the training images, those of folders by
    ImageNet's. Raises `InputError` for an unknown name or a path that is missing, not applicable or holds
    something else, `RunError` if a download fails.
    """
    source = parse_data(source) if isinstance(source, str) else source
    if download and source.name not in DOWNLOADABLE:
        raise InputError(f"data set '{source.name}' can't be downloaded: leave download out")
    if source.name == "digits":
        return digits(resolution, augment)
    if source.name == "scenes":
        from wnexplore.data.scenes import scenes

        return scenes(source, resolution, augment, scales)
    if source.name == "shapes":
        return shapes(source, resolution, augment)
    assert source.path is not None, "parse_data sees to it"
    if not download and not os.path.isdir(source.path):
        raise InputError(f"data set '{source.name}': no folder {shown(source.path, 300)}")
    if source.name == "coco":
        from wnexplore.data.coco import coco

        scales = scales or (resolution,)
        return coco(source.path, scales, round(LONGEST * max(scales)), augment)
    if source.name == "folder":
        return folder(source.path, resolution, augment)
    return from_torchvision(source.name, source.path, download, resolution, augment)
