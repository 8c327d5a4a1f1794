"""An image gives the same features alone and padded in any batch, whatever its neighbours are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.examples import examples
from wnexplore.design.methods import METHODS
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.nn.true_pixels import (
    TruePixels,
    padding_masked,
    spatial_max,
    spatial_mean,
    spatial_softmax,
    true_pixels,
)

NETWORKS: list[tuple[str, str]] = [
    ("shufflenet_v2_x0_5", "weightnet"),
    ("mobilenet_v3_small", "plain"),
    *(("resnet18", method) for method in METHODS),
]
STAGES = {
    "resnet18": ["layer2", "layer3", "layer4"],
    "shufflenet_v2_x0_5": ["stage2.3", "stage3.7", "stage4.3"],
    "mobilenet_v3_small": ["features.3", "features.8", "features.12"],
}
SIZES = st.tuples(st.integers(33, 96), st.integers(33, 96))


def features(network: nn.Module, at: list[str], images: list[Tensor]) -> list[list[Tensor]]:
    """The maps of some modules for each image of a batch, cut to its own pixels, at their strides."""
    height, width = (32 * -(-max(image.shape[axis] for image in images) // 32) for axis in (1, 2))
    batch = torch.zeros(len(images), 3, height, width)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    found: list[Tensor] = []
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, output: found.append(output))
        for name in at
    ]
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    with torch.inference_mode(), padding_masked(network), true_pixels(sizes, (height, width)):
        network(batch)
    for hook in hooks:
        hook.remove()
    cut: list[list[Tensor]] = []
    for number, image in enumerate(images):
        cut.append([])
        for whole in found:
            stride = height // whole.shape[2]
            rows, columns = (-(-image.shape[axis] // stride) for axis in (1, 2))
            cut[-1].append(whole[number, :, :rows, :columns].clone())
    return cut


@pytest.fixture(scope="module", params=NETWORKS, ids=" ".join)
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, list[str]]:
    """A small network of each method, with normalisations that have seen data, and its stages."""
    torch.manual_seed(0)
    backbone, method = request.param
    made = build(backbone, method, *((2, 2) if method == "weightnet" else ()), num_classes=10)
    with torch.no_grad():
        for _ in range(3):
            made(torch.randn(4, 3, 64, 64))
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.add_(0.3 * torch.randn_like(module.bias))
    return made.eval(), STAGES[backbone]


@examples(4)
@given(st.lists(SIZES, min_size=1, max_size=3), SIZES, st.integers(0, 3), st.integers(0, 99))
def test_an_image_is_the_same_alone_and_anywhere_in_a_batch(
    network: tuple[nn.Module, list[str]],
    others: list[tuple[int, int]],
    size: tuple[int, int],
    place: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(3, *size, generator=generator)
    images = [5 * torch.randn(3, *other, generator=generator) for other in others]
    place = min(place, len(images))
    images.insert(place, image)
    (alone,) = features(*network, [image])
    together = features(*network, images)[place]
    for one, other in zip(alone, together, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(other, one, atol=1e-5 * float(one.abs().max()), rtol=1e-5)


def test_without_padding_nothing_changes(network: tuple[nn.Module, list[str]]) -> None:
    made, _ = network
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        plainly = made(images)
        with padding_masked(made), true_pixels([(64, 96)] * 2, (64, 96)):
            torch.testing.assert_close(made(images), plainly, atol=1e-5, rtol=1e-4)


@examples(50)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), st.integers(0, 99))
def test_means_maxima_and_softmax_are_those_of_the_images_cut_out(
    sizes: list[tuple[int, int]], seed: int
) -> None:
    x = torch.randn(len(sizes), 2, 9, 9, generator=torch.Generator().manual_seed(seed))
    with true_pixels(sizes, (9, 9)):
        means, largest, weights = spatial_mean(x), spatial_max(x), spatial_softmax(x)
    for number, (height, width) in enumerate(sizes):
        cut = x[number, :, :height, :width]
        torch.testing.assert_close(means[number], cut.mean((1, 2)))
        assert torch.equal(largest[number], cut.amax((1, 2)))
        whole = weights[number].view(2, 9, 9)
        torch.testing.assert_close(whole[:, :height, :width].flatten(1), cut.flatten(1).softmax(1))
        assert whole.sum().item() == pytest.approx(2, abs=1e-5)


def test_a_map_at_no_stride_and_sizes_that_do_not_fit_are_refused() -> None:
    pixels = TruePixels([(50, 40)], (64, 64))
    assert pixels.mask(torch.zeros(1, 8, 16, 16)).sum() == 13 * 10
    for size, said in (((1, 8, 24, 16), "24 pixels"), ((2, 8, 16, 16), "2 maps of 1 images")):
        with pytest.raises(InputError, match=said):
            pixels.mask(torch.zeros(size))
    with pytest.raises(InputError, match="expected at most"):
        TruePixels([(65, 40)], (64, 64))
