"""Kernels compared without making them, against kernels that were made."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import wnexplore
from tests.examples import examples
from wnexplore.errors import InputError, RunError
from wnexplore.nn import CondConv2d, GeneratedConv2d, WeightNetConv2d
from wnexplore.nn.dynamic import DynamicConv2d
from wnexplore.nn.formulations import generate_kernels
from wnexplore.nn.generated import generated_layers
from wnexplore.training.kernel_statistics import (
    PAIRED,
    activation_vectors,
    gram,
    kernel_map,
    layer_gram,
    measure_kernels,
)


def _layer(kind: str, sizes: tuple[int, int, int, int], pair: tuple[int, int]) -> GeneratedConv2d:
    into, out, kernel_size, groups = sizes
    if kind == "condconv":
        return CondConv2d(into, out, kernel_size, groups=groups, experts=pair[0])
    if kind == "dynamic":
        return DynamicConv2d(into, out, kernel_size, groups=groups, experts=pair[0])
    M, G = (pair[0] // pair[1], 1) if groups == into else pair
    return WeightNetConv2d(into, out, kernel_size, groups=groups, M=M, G=G)


@given(
    st.sampled_from(["weightnet", "condconv", "dynamic"]),
    st.sampled_from([(8, 6, 1, 1), (8, 12, 3, 1), (6, 6, 3, 6), (8, 4, 3, 2)]),
    st.sampled_from([(1, 1), (4, 1), (2, 2), (8, 2)]),
    st.integers(1, 6),
    st.sampled_from([2**22, 7]),
    st.integers(0, 2**16),
)
@examples(40)
def test_inner_products_are_those_of_kernels_that_are_made(
    kind: str, sizes: tuple[int, int, int, int], pair: tuple[int, int], images: int, at_once: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = _layer(kind, sizes, pair).double()
    alpha = torch.randn(images, layer.shape.generator_groups * layer.shape.inputs_per_group).double()
    made = generate_kernels(alpha, layer.generator_weight.detach(), layer.shape.generator_groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wnexplore.training.kernel_statistics._AT_ONCE", at_once)
        torch.testing.assert_close(layer_gram(layer, alpha), made @ made.t(), rtol=1e-11, atol=1e-11)


def test_two_images_by_arithmetic() -> None:
    # Two filters of one number each, lambda = 2: W = (a0 + 2 a1, 3 a2 - a3).
    layer = WeightNetConv2d(1, 2, 1, M=2, G=1)
    with torch.no_grad():
        layer.fc2.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
    alpha = torch.tensor([[1.0, 0.0, 0.5, 0.5], [1.0, 0.5, 0.0, 0.5]])
    # W = (1, 1) and (2, -1/2): <,> = 3/2, lengths sqrt(2) and sqrt(17/4).
    torch.testing.assert_close(
        gram(alpha, layer.fc2.weight.detach(), 2), torch.tensor([[2, 1.5], [1.5, 4.25]]).double()
    )
    found = measure_kernels("conv", layer, alpha, torch.tensor([3, 4]))
    (cosine,) = found.cosines
    assert cosine == pytest.approx(1.5 / (2 * 4.25) ** 0.5)
    row = found.to_dict()
    assert (row["cosine_mean"], row["cosine_min"], row["cosine_std"]) == (cosine, cosine, 0)
    assert (row["cosine_within_class"], row["cosine_between_classes"]) == (None, cosine)
    # The means of the entries are 1, 1/4, 1/4 and 1/2; the second and third move by 1/4 either way.
    assert row["alpha_mean"] == 0.5
    np.testing.assert_allclose(found.alpha_stds, [0, 0.25, 0.25, 0])
    assert (row["alpha_std"], row["alpha_dead"], row["alpha_saturated"]) == (0.125, 0.5, 0.25)
    assert (row["inputs"], row["lambda"], row["samples"], row["kernel_size"]) == (4, 2, 2, "1x1")


def test_pairs_of_one_class_are_reported_from_others() -> None:
    layer = CondConv2d(2, 2, 1, experts=2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]).view(2, 2, 2, 1, 1))
    # Kernels (1, 0), (3, 0), (0, 2), and none.
    alpha = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    found = measure_kernels("conv", layer, alpha, torch.tensor([0, 0, 1, 1]))
    assert found.cosines.tolist() == [1, 0, 0]
    assert (found.within.tolist(), found.between.tolist()) == ([1], [0, 0])


def test_kernels_of_zeros_have_no_similarity() -> None:
    found = measure_kernels("conv", CondConv2d(2, 2, 1), torch.zeros(3, 4), torch.zeros(3))
    row = found.to_dict()
    assert [row[name] for name in row if name.startswith("cosine")] == [None] * 5
    assert (row["alpha_dead"], row["alpha_saturated"]) == (1, 1)


def test_of_many_images_as_many_are_paired_from_all_over() -> None:
    layer = CondConv2d(2, 2, 1, experts=1)
    labels = torch.arange(2 * PAIRED) // PAIRED
    found = measure_kernels("conv", layer, torch.rand(2 * PAIRED, 1), labels)
    assert found.samples == 2 * PAIRED
    assert found.cosines.size == PAIRED * (PAIRED - 1) // 2
    assert found.within.size == 2 * (PAIRED // 2) * (PAIRED // 2 - 1) // 2


@pytest.mark.parametrize(
    ("activation", "alpha", "dead", "saturated"),
    [
        ("tanh", [[-0.995, 0.0, 0.0015], [-0.995, 0.9, -0.0015]], 2 / 3, 1 / 3),
        ("hard_sigmoid", [[1.0, 0.0, 0.5], [1.0, 0.9, 0.503]], 1 / 3, 1 / 3),
        ("identity", [[5.0, 0.0, 0.5], [5.0, 4.0, 0.50001]], 2 / 3, None),
    ],
)
def test_entries_are_dead_or_saturated_by_the_range_of_the_activation(
    activation: str, alpha: list[list[float]], dead: float, saturated: float | None
) -> None:
    layer = WeightNetConv2d(2, 3, 1, M=1, G=1, activation=activation)
    found = measure_kernels("conv", layer, torch.tensor(alpha), torch.tensor([0, 1]))
    assert found.alpha_dead == pytest.approx(dead)
    assert found.alpha_saturated == (saturated if saturated is None else pytest.approx(saturated))


@pytest.mark.parametrize(
    ("backbone", "method", "axes"),
    [
        pytest.param("shufflenet_v2_x0_5", "weightnet", {"M": 2, "G": 2}, marks=pytest.mark.slow),
        ("mobilenet_v3_small_x0_5", "weightnet", {"M": 2, "G": 1, "activation": "softmax"}),
        pytest.param("resnet18", "weightnet", {"M": 1, "G": 1, "stages": "3+4"}, marks=pytest.mark.slow),
        ("shufflenet_v2_x0_5", "dynamic", {}),
        pytest.param("torchvision:mnasnet0_5", "condconv", {}, marks=pytest.mark.slow),
        ("torchvision:mnasnet0_5", "weightnet", {"M": 2, "G": 1}),
    ],
)
def test_activation_vectors_are_those_with_which_a_network_runs(
    backbone: str, method: str, axes: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    stem = "imagenet" if backbone.startswith("torchvision") else "small"
    network = wnexplore.build(backbone, method, resolution=32, stem=stem, num_classes=10, **axes).eval()
    images, labels = torch.randn(5, 3, 32, 32), torch.arange(5)
    seen = activation_vectors(network, [(images[:3], labels[:3]), (images[3:], labels[3:])], 4)
    assert seen.labels.tolist() == [0, 1, 2, 3]
    layers = generated_layers(network)
    assert set(seen.alphas) == set(layers)
    assert not any(layer._forward_pre_hooks for layer in layers.values())

    # Each layer in turn as an ordinary convolution with the kernel of the last image: the same logits.
    plain = copy.deepcopy(network)
    for name, layer in generated_layers(plain).items():
        parent, _, child = name.rpartition(".")
        kernel = generate_kernels(
            seen.alphas[name][3:], layer.generator_weight.detach(), layer.shape.generator_groups
        )
        setattr(plain.get_submodule(parent), child, _Fixed(layer, kernel.view(layer.kernel_shape)))
    with torch.no_grad():
        torch.testing.assert_close(plain(images[3:4]), network(images[3:4]), rtol=1e-3, atol=1e-4)


class _Fixed(nn.Module):
    """A layer that has got one kernel for all images."""

    def __init__(self, layer: GeneratedConv2d, kernel: Tensor) -> None:
        super().__init__()
        self.kernel = kernel
        self.options = (None, layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return nn.functional.conv2d(x, self.kernel, *self.options)


def test_a_network_that_ignores_the_image_has_one_kernel_and_nothing_alive() -> None:
    network = wnexplore.build("shufflenet_v2_x0_5", "weightnet", M=2, G=1, stem="small", num_classes=4)
    for module in network.modules():
        if isinstance(module, WeightNetConv2d):
            nn.init.zeros_(module.fc1.weight)
            nn.init.normal_(module.fc1.bias)
    seen = activation_vectors(network, [(torch.randn(6, 3, 16, 16), torch.arange(6) % 4)])
    for name, layer in generated_layers(network).items():
        found = measure_kernels(name, layer, seen.alphas[name], seen.labels)
        np.testing.assert_allclose(found.cosines, 1, rtol=1e-14)
        assert found.cosines.max() <= 1
        assert (found.alpha_dead, found.to_dict()["cosine_within_class"]) == (1, pytest.approx(1))
        assert kernel_map(layer_gram(layer, seen.alphas[name]), 0) is None


def test_a_layer_that_runs_twice_is_seen_once_and_one_that_never_runs_not_at_all() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.unused = CondConv2d(3, 3, 1), CondConv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(self.conv(x))
            return y

    network, images = Twice(), torch.randn(4, 3, 5, 5)
    seen = activation_vectors(network, [(images, torch.arange(4))])
    assert set(seen.alphas) == {"conv"}
    torch.testing.assert_close(seen.alphas["conv"], network.conv.activations(images, None).detach())


def test_what_can_not_be_compared_is_reported() -> None:
    plain = wnexplore.build("shufflenet_v2_x0_5", "se", stem="small", num_classes=4)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    with pytest.raises(InputError, match="generated kernels"):
        activation_vectors(plain, [(images, labels)])
    network = nn.Sequential(CondConv2d(3, 3, 1))
    with pytest.raises(InputError, match=r"\b1 images?\b.*\b2\b"):
        activation_vectors(network, [(images, labels)], 1)
    with pytest.raises(InputError, match="generated kernels"):
        activation_vectors(_Idle(), [(images, labels)])
    nn.init.constant_(network[0].get_parameter("routing.bias"), float("nan"))
    with pytest.raises(RunError, match=r"layer 0: .*finite"):
        activation_vectors(network, [(images, labels)])


class _Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = CondConv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_map_keeps_groups_of_kernels_together_whatever_their_size() -> None:
    generator = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 40), 12, 0)
    kernels = 1e-5 * (1000 + centres + 0.02 * generator.normal(size=centres.shape))
    points = kernel_map(torch.from_numpy(kernels @ kernels.T), 0)
    assert points is not None
    assert points.shape == (36, 2)
    groups = points.reshape(3, 12, 2)
    middles = groups.mean(1)
    radius = np.linalg.norm(groups - middles[:, None], axis=2).max()
    apart = min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > 1.5 * radius
    again = kernel_map(torch.from_numpy(kernels @ kernels.T), 0)
    assert again is not None
    np.testing.assert_array_equal(points, again)


def test_too_few_images_have_no_map() -> None:
    assert kernel_map(torch.eye(4, dtype=torch.float64), 0) is None
    small = kernel_map(torch.eye(5, dtype=torch.float64), 0)
    assert small is not None
    assert np.isfinite(small).all()
