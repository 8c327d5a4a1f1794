"""The data sets that trainings read, as batches of normalised images. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from wnexplore.design.protocol import DataName
from wnexplore.errors import InputError, RunError, unknown
from wnexplore.measure.environment import usable_cores

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

# torchvision is imported where it is used: it takes as long to load as torch, and digits needs none.

Batch = tuple[Tensor, Tensor]
"""Images (N, 3, resolution, resolution), float32 and normalised; labels (N,), int64."""


class Split(Protocol):
    """The training or the test images of a data set."""

    def __len__(self) -> int:
        """How many images there are."""

    def batches(
        self, batch_size: int, device: str, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """The images once, on `device`.

        With a generator (on the CPU): shuffled and augmented by it alone, the incomplete batch at
        the end left out unless it is the only one. Without: all, in order, not augmented.
        """


@dataclass(frozen=True)
class Data:
    """A data set to train on and to test with."""

    name: str
    num_classes: int
    train: Split
    test: Split


def load_data(name: str, *, resolution: int, path: Path | None = None) -> Data:
    """The data set `name` with images of `resolution` x `resolution` pixels.

    - digits: the 1797 handwritten digits that scikit-learn ships, 20 % of them for the test,
      stratified; training shifts them by up to 1/16 of the image.
    - cifar10: the Python version, unpacked in `path`; training shifts by up to 1/8 (4 of 32 pixels)
      and flips.
    - folder: image files in path/train/CLASS and path/val/CLASS; training takes random resized crops
      and flips, the test the centre of the image resized to 256/224 of `resolution`.

    Digits and CIFAR-10 are normalised by mean and deviation of their training images, folders by
    ImageNet's. Raises `InputError` for an unknown name, a path that is missing, not wanted or holds
    something else.
    """
    if name not in get_args(DataName):
        raise unknown("data set", name, get_args(DataName))
    if name == "digits":
        if path is not None:
            raise InputError(f"data set 'digits' is embedded: leave path ({path}) out")
        return _digits(resolution)
    if path is None:
        raise InputError(f"data set '{name}' needs the path of its folder: nothing is downloaded")
    if not path.is_dir():
        raise InputError(f"data set '{name}': no folder {path}")
    return _cifar10(resolution, path) if name == "cifar10" else _folder(resolution, path)


@dataclass(frozen=True)
class TensorSplit:
    """Images held in memory at their own resolution, resized and augmented a batch at a time."""

    images: Tensor
    """(N, C, h, w), uint8; C is 3, or 1 to be repeated."""
    labels: Tensor
    """(N,), int64."""
    resolution: int
    mean: Tensor
    """(3, 1, 1), in the unit of `images`, as is `std`."""
    std: Tensor
    shift: int = 0
    """How far training moves an image along each axis at most, in pixels of `resolution`."""
    flip: bool = False
    """Whether training mirrors half of the images."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, device: str, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """As `Split.batches`."""
        if generator is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=generator)
            if len(self) >= batch_size:
                order = order[: len(self) // batch_size * batch_size]
        mean, std = self.mean.to(device), self.std.to(device)
        size = (self.resolution, self.resolution)
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            images = self.images[index].to(device).float()
            if images.shape[2:] != size:
                images = functional.interpolate(images, size, mode="bilinear", antialias=True)
            if generator is not None:
                images = self._augmented(images, generator)
            yield (images - mean) / std, self.labels[index].to(device)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        # One gather for the batch: the source row and column of every pixel, differing by image.
        n, size = len(images), self.resolution
        start = torch.randint(2 * self.shift + 1, (2, n, 1), generator=generator)
        rows, columns = start + torch.arange(size)
        if self.flip:
            mirrored = torch.rand(n, 1, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(images.device), columns.to(images.device)
        padded = functional.pad(images, [self.shift] * 4)
        image = torch.arange(n, device=images.device)[:, None, None]
        return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class FolderSplit:
    """Image files, read by worker processes."""

    folder: ImageFolder
    resolution: int

    def __len__(self) -> int:
        return len(self.folder)

    def batches(
        self, batch_size: int, device: str, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """As `Split.batches`. Raises `RunError` naming a file that is not a readable image."""
        augment = generator is not None
        generator = generator or torch.Generator()
        seed = int(torch.randint(2**62, (), generator=generator))
        transform = _train_transform(self.resolution) if augment else _test_transform(self.resolution)
        loader = DataLoader(
            _Files(self.folder, transform, seed),
            batch_size,
            shuffle=augment,
            drop_last=augment and len(self) >= batch_size,
            generator=generator,
            num_workers=min(8, usable_cores()),
            pin_memory=device == "cuda",
        )
        try:
            for images, labels in loader:
                yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        except RunError as error:
            # A worker's error arrives inside the text of its traceback: the message ends it.
            raise RunError(str(error).strip().rpartition("RunError: ")[2]) from None


class _Files(Dataset[tuple[Tensor, int]]):
    def __init__(self, folder: ImageFolder, transform: Callable[[Any], Tensor], seed: int) -> None:
        self.folder, self.transform, self.seed = folder, transform, seed

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # This runs in a worker, whose global generator is nobody else's. Seeding it for each image
        # makes the augmentation independent of how many workers there are.
        torch.manual_seed(self.seed + index)
        image, label = self.folder[index]
        return self.transform(image), label


_DIGITS_TEST_SHARE = 0.2
_SPLIT_SEED = 0
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _digits(resolution: int) -> Data:
    from sklearn.datasets import load_digits  # takes a second: only those who train digits pay it
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    arrays = train_test_split(
        digits.images.astype(np.uint8)[:, None],
        digits.target.astype(np.int64),
        test_size=_DIGITS_TEST_SHARE,
        stratify=digits.target,
        random_state=_SPLIT_SEED,
    )
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, arrays)
    train = _tensor_split(train_images, train_labels, resolution, shift=resolution // 16)
    test = TensorSplit(test_images, test_labels, resolution, train.mean, train.std)
    return Data("digits", len(digits.target_names), train, test)


def _cifar10(resolution: int, path: Path) -> Data:
    from torchvision.datasets import CIFAR10

    try:
        sets = [CIFAR10(root=path, train=train, download=False) for train in (True, False)]
    except RuntimeError:
        raise InputError(
            f"data set 'cifar10': {path / CIFAR10.base_folder} is not there or not whole: "
            f"expected {CIFAR10.filename}, the Python version, unpacked in {path}"
        ) from None
    images = [torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous() for s in sets]
    labels = [torch.tensor(s.targets) for s in sets]
    train = _tensor_split(images[0], labels[0], resolution, shift=resolution // 8, flip=True)
    test = TensorSplit(images[1], labels[1], resolution, train.mean, train.std)
    return Data("cifar10", len(sets[0].classes), train, test)


def _tensor_split(
    images: Tensor, labels: Tensor, resolution: int, *, shift: int, flip: bool = False
) -> TensorSplit:
    """A training split, with its mean and deviation."""
    # A channel at a time: all of CIFAR-10 as floats would be 600 MB.
    moments = [torch.std_mean(channel.float()) for channel in images.unbind(1)]
    std, mean = (torch.stack(m).expand(3).view(3, 1, 1) for m in zip(*moments, strict=True))
    return TensorSplit(images, labels, resolution, mean, std, shift, flip)


def _folder(resolution: int, path: Path) -> Data:
    train, test = (_image_folder(path, part) for part in ("train", "val"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[0]
        raise InputError(f"data set 'folder': class '{odd}' is in only one of {path}/train and {path}/val")
    return Data("folder", len(train.classes), FolderSplit(train, resolution), FolderSplit(test, resolution))


def _image_folder(path: Path, part: str) -> ImageFolder:
    from torchvision.datasets import ImageFolder

    if not (path / part).is_dir():
        raise InputError(f"data set 'folder': no folder {path / part}: expected {path}/train and {path}/val")
    try:
        return ImageFolder(path / part, loader=_read_image)
    except FileNotFoundError as error:
        why = str(error).splitlines()[0]
        raise InputError(
            f"data set 'folder': {why}: expected images as {path / part}/CLASS/NAME.jpg"
        ) from None


def _read_image(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise RunError(f"can't read image {path}: {error}") from None


def _train_transform(resolution: int) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    return _to_tensor(v2.RandomResizedCrop(resolution, antialias=True), v2.RandomHorizontalFlip())


def _test_transform(resolution: int) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    return _to_tensor(v2.Resize(round(resolution * 256 / 224), antialias=True), v2.CenterCrop(resolution))


def _to_tensor(*transforms: Callable[[Any], Any]) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    scaled = v2.ToDtype(torch.float32, scale=True)
    composed: Callable[[Any], Tensor] = v2.Compose(
        [v2.ToImage(), *transforms, scaled, v2.Normalize(_IMAGENET_MEAN, _IMAGENET_STD)]
    )
    return composed
