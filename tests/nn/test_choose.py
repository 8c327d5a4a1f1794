"""What "auto" runs: layers in which `wnexplore race` finds one formulation far ahead of the other."""

from __future__ import annotations

import pytest

from wnexplore.nn.formulations.choose import choose
from wnexplore.nn.formulations.layer_shape import LayerShape


def layer(channels: tuple[int, int], kernel: int, G: int, terms: int = 1, **options: int) -> LayerShape:
    """A layer at (G·terms, G)."""
    (a, b), stride, groups = channels, options.get("stride", 1), options.get("groups", 1)
    pads = (kernel // 2, kernel // 2)
    return LayerShape(a, b, (kernel, kernel), (stride, stride), pads, (1, 1), groups, G * b, terms)


@pytest.mark.parametrize(
    ("shape", "batch", "size", "expected"),
    [
        # A small image is a product with its windows, begun sooner than a convolution.
        (layer((48, 48), 3, 1, groups=48), 1, 14, "kernel"),
        # A plain convolution and a scaled output, beside kernels folded into groups.
        (layer((64, 64), 3, 1), 16, 56, "shared"),
        # Twice the outputs to add up, where these are many.
        (layer((64, 64), 3, 2), 16, 56, "kernel"),
        # Kernels to make and columns to write for each image, beside one convolution of the batch.
        (layer((512, 512), 3, 2), 4, 7, "shared"),
        (layer((256, 256), 3, 2), 4, 14, "shared"),
        # Four times the multiply-adds.
        (layer((512, 512), 3, 1, terms=4), 16, 7, "kernel"),
        # One image: slices of a large kernel are matrices as they lie there.
        (layer((1024, 2048), 1, 2, stride=2), 1, 14, "shared"),
        (layer((256, 1024), 1, 2), 1, 14, "kernel"),
    ],
)
def test_a_layer_runs_in_the_formulation_that_is_far_ahead(
    shape: LayerShape, batch: int, size: int, expected: str
) -> None:
    assert choose(shape, batch, size, size, training=False, device="cpu") == expected
