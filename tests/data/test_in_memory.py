from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as v2f

from tests.data.splits import everything, plain_split
from wnexplore.data import EpochPass
from wnexplore.data.augment import jitter_factors, jittered


@pytest.mark.parametrize("size", [5, 16, 32])
def test_resize_is_pillows_bilinear(size: int) -> None:
    images = torch.randint(256, (4, 3, 12, 12), dtype=torch.uint8)
    found, _ = everything(plain_split(images, resolution=size))
    for image, expected in zip(found.flatten(0, 1), images.flatten(0, 1), strict=True):
        resized = Image.fromarray(expected.numpy().astype(np.float32)).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        np.testing.assert_allclose(image, np.asarray(resized), atol=1e-2)


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_is_every_shift_and_flip_with_black_at_the_border(flip: bool) -> None:
    image = torch.arange(1, 49, dtype=torch.uint8).view(3, 4, 4)
    padded = np.pad(image.numpy(), ((0, 0), (1, 1), (1, 1)))
    windows = [padded[:, i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    windows += [w[:, :, ::-1] for w in windows] if flip else []
    images, _ = everything(plain_split(image.repeat(600, 1, 1, 1), shift=1, flip=flip), EpochPass(0, 0))
    counts = [(images.numpy() == w).all((1, 2, 3)).sum() for w in windows]
    assert sum(counts) == len(images)
    assert min(counts) > 0.4 * len(images) / len(windows)


@pytest.mark.parametrize("channels", [3, 1])
def test_jitter_is_torchvisions_with_factors_of_each_image(channels: int) -> None:
    images = torch.rand(6, channels, 7, 5)
    factors = jitter_factors(torch.rand(3, 6), 0.4)
    found = jittered(images * 255, factors, 255.0) / 255
    for image, result, (brightness, contrast, saturation) in zip(
        images, found, factors.T.tolist(), strict=True
    ):
        expected = v2f.adjust_contrast(v2f.adjust_brightness(image, brightness), contrast)
        if channels == 3:
            expected = v2f.adjust_saturation(expected, saturation)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("amount", [0.4, 1.0, 2.5])
def test_jitter_factors_span_torchvisions_range(amount: float) -> None:
    low, high = v2.ColorJitter(brightness=amount).brightness
    factors = jitter_factors(torch.linspace(0, 1, 11), amount)
    assert (factors.min().item(), factors.max().item()) == pytest.approx((low, high))
    assert factors.diff().tolist() == pytest.approx([(high - low) / 10] * 10, rel=1e-4)


def test_jitter_varies_images_of_a_pass_and_none_of_a_test() -> None:
    image = torch.randint(60, 120, (1, 3, 4, 4), dtype=torch.uint8)
    split = plain_split(image.repeat(200, 1, 1, 1), jitter=0.4)
    assert torch.equal(everything(split)[0], image.float().repeat(200, 1, 1, 1))
    means = everything(split, EpochPass(0, 0))[0].mean((1, 2, 3)) / image.float().mean()
    assert 0.55 < means.min() < 0.7  # brightness alone moves the mean of the image: times 0.6 to 1.4
    assert 1.3 < means.max() < 1.45
