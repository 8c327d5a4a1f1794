"""Detectors: an image's boxes are its own, whatever it is batched with; and the parts are torchvision's."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn

from tests.examples import examples
from wnexplore.design.backbones import BACKBONES as BACKBONE_SPECS
from wnexplore.design.counts import count
from wnexplore.design.methods import METHODS
from wnexplore.design.part_stages import PART_STAGES
from wnexplore.design.point import DesignPoint
from wnexplore.design.skeleton import SkeletonPart
from wnexplore.design.stages import has_method
from wnexplore.errors import InputError
from wnexplore.measure.complexity import measure_complexity
from wnexplore.models import build
from wnexplore.models.deploy import deploy
from wnexplore.models.detector import Detector, build_detector
from wnexplore.models.feature_maps import FeatureMaps
from wnexplore.space.skeleton_cache import skeleton_of

BACKBONES = {
    "resnet18": ("layer2", "layer3", "layer4"),
    "shufflenet_v2_x0_5": ("stage2.3", "stage3.7", "conv5"),
    "mobilenet_v3_small": None,
    "torchvision:regnet_y_400mf": None,
    "timm:resnet10t": None,
}


def _shaken(detector: Detector) -> Detector:
    """With normalisations and scores that are not those of the start, so that there are boxes to compare."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.add_(0.3 * torch.randn_like(module.bias))
                module.running_var.fill_(2.0)  # type: ignore[union-attr]
        nn.init.normal_(detector.head.classification_head.cls_logits.weight, std=0.05)
        nn.init.constant_(detector.head.classification_head.cls_logits.bias, -1.0)
        nn.init.normal_(detector.head.regression_head.bbox_reg.weight, std=0.02)
        detector.eval()
        # Gates make signals smaller, and small ones would give boxes that can't be told apart.
        outputs = detector(torch.randn(1, 3, 128, 128))
        detector.head.classification_head.cls_logits.weight.mul_(0.5 / outputs[..., :-4].std())
        detector.head.regression_head.bbox_reg.weight.mul_(0.3 / outputs[..., -4:].std())
    return detector


@pytest.mark.parametrize(
    ("method", "stages"),
    [(m, s) for m in METHODS for s in (None, "all+pyramid+head") if s is None or m != "plain"],
)
def test_an_image_has_the_same_boxes_alone_and_at_any_place_in_a_batch(
    method: str, stages: str | None
) -> None:
    torch.manual_seed(0)
    detector = _shaken(
        build_detector(
            "resnet18",
            method,
            *((2, 2) if method == "weightnet" else ()),
            stages=stages,
            num_classes=3,
            min_size=64,
            max_size=180,
        )
    )
    image, wide, tall = torch.rand(3, 70, 90), torch.rand(3, 40, 110), 0.2 * torch.rand(3, 150, 60)
    with torch.inference_mode():
        (alone,) = detector([image])
        assert len(alone["boxes"]) > 20
        for batch in ([image, wide], [tall, image], [wide, tall, image]):
            _same(detector(batch)[[one is image for one in batch].index(True)], alone)


def _same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same boxes, in an order that may differ where their scores are equal to rounding."""
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-5, rtol=0)
    apart = (found["boxes"][:, None] - expected["boxes"]).abs().amax(2)
    same = (apart < 1e-3) & (found["labels"][:, None] == expected["labels"])
    same &= (found["scores"][:, None] - expected["scores"]).abs() < 1e-5
    assert torch.equal(same.sum(0), torch.ones(len(same), dtype=torch.int64))
    assert torch.equal(same.sum(1), torch.ones(len(same), dtype=torch.int64))


def test_a_loss_is_the_mean_of_those_of_the_images_alone() -> None:
    torch.manual_seed(0)
    detector = _shaken(build_detector("resnet18", "se", num_classes=3, min_size=64, max_size=180)).train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 150)]
    targets = [
        {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([1])},
        {
            "boxes": torch.tensor([[60.0, 0.0, 140.0, 60.0], [3.0, 3.0, 20.0, 30.0]]),
            "labels": torch.tensor([0, 2]),
        },
    ]
    both = detector(images, targets)
    alone = [detector([image], [target]) for image, target in zip(images, targets, strict=True)]
    for name in ("classification", "bbox_regression"):
        torch.testing.assert_close(both[name], (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=1e-6)


def test_boxes_of_outputs_are_those_that_a_list_of_images_gives() -> None:
    torch.manual_seed(0)
    detector = _shaken(build_detector("resnet18", num_classes=3, resolution=128, pyramid_channels=16))
    image = torch.rand(3, 128, 128)
    normalise = detector.transform.normalize
    with torch.inference_mode():
        (expected,) = detector([image])
        (found,) = detector.boxes(detector(normalise(image)[None]), (128, 128))
    assert len(expected["boxes"]) > 10
    _same(found, expected)


def test_padding_leaves_a_training_finite() -> None:
    torch.manual_seed(0)
    detector = build_detector("resnet18", num_classes=3, pyramid_channels=8, min_size=40, max_size=40)
    target = {"boxes": torch.tensor([[5.0, 6.0, 30.0, 35.0]]), "labels": torch.tensor([1])}
    losses = detector([torch.rand(3, 40, 40), torch.rand(3, 30, 40)], [target, target])
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    assert all(buffer.isfinite().all() for buffer in detector.buffers())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_maps_of_any_backbone_and_no_classifier(backbone: str) -> None:
    pytest.importorskip("timm") if backbone.startswith("timm:") else None
    network = build(backbone, num_classes=10)
    params = sum(p.numel() for p in network.parameters())
    maps = FeatureMaps(network, backbone)
    expected = BACKBONES[backbone]
    assert expected is None or tuple(one.module for one in maps.maps) == expected
    outputs = maps(torch.zeros(2, 3, 64, 96))
    assert [(o.shape[1], *o.shape[2:]) for o in outputs.values()] == [
        (one.channels, 64 // one.stride, 96 // one.stride) for one in maps.maps
    ]
    assert sum(p.numel() for p in maps.parameters()) < params
    assert all(p.grad_fn is None for p in maps.parameters())


def test_a_plain_resnet50_has_torchvisions_parameters() -> None:
    ours = build_detector("resnet50", num_classes=91)
    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_a_backbone_without_a_stride_and_impossible_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"backbone 'resnet18' has no feature map at stride 16"):
        build_detector("resnet18", stem="small")
    with pytest.raises(InputError, match="num_classes is '0': expected a whole number of at least 1"):
        build_detector("resnet18", num_classes=0)
    with pytest.raises(InputError, match="min_size is 0: expected at least 1"):
        build_detector("resnet18", min_size=())
    with pytest.raises(InputError, match="max_size is 0: expected at least 1"):
        build_detector("resnet18", max_size=0)
    with pytest.raises(InputError, match="task 'classification' has no pyramid_channels"):
        DesignPoint.of("resnet18", pyramid_channels=64)


BACKBONE_NAMES = (*BACKBONE_SPECS, "torchvision:regnet_y_400mf", "timm:resnet10t")


@examples(16)
@given(
    st.sampled_from(BACKBONE_NAMES),
    st.sampled_from([*METHODS]),
    st.sampled_from([None, "pyramid", "all+head", "3+pyramid+head"]),
    st.sampled_from([64, 100, 128]),
    st.sampled_from([1, 3, 80]),
    st.sampled_from([8, 64]),
)
def test_closed_form_equals_what_is_counted_in_the_network(
    backbone: str, method: str, stages: str | None, resolution: int, classes: int, channels: int
) -> None:
    point = DesignPoint.of(
        backbone,
        method,
        stages=None if method == "plain" else stages,
        task="detection",
        resolution=resolution,
        num_classes=classes,
        pyramid_channels=channels,
    )
    skeleton = skeleton_of(point)
    found = measure_complexity(build(point), resolution)
    assert count(point, skeleton) == (found.params, found.flops)
    plain = {part.name: {"params": part.params, "flops": part.flops} for part in skeleton.parts}
    for name, counts in plain.items():
        assert (found.parts[name] == counts) is not has_method(point.stages, PART_STAGES[name])
    assert sum(part["params"] for part in found.parts.values()) == found.params
    assert sum(part["flops"] for part in found.parts.values()) == found.flops


def test_pyramid_and_head_have_the_counts_of_their_formulas() -> None:
    channels, width, classes = (128, 256, 512), 32, 3
    levels = (16 * 16, 8 * 8, 4 * 4, 2 * 2, 1)
    found = skeleton_of(
        DesignPoint.of(
            "resnet18", task="detection", resolution=128, num_classes=classes, pyramid_channels=width
        )
    )
    filters = 9 * width * width
    lateral = [c * width for c in channels]
    pyramid = SkeletonPart(
        "pyramid",
        sum(lateral) + 5 * filters + 8 * width,
        sum(w * pixels for w, pixels in zip(lateral, levels, strict=False))
        + filters * sum(levels[:3])
        + filters * sum(levels[3:]),
    )
    last = 9 * width * 9 * (classes + 4)
    head = SkeletonPart(
        "head",
        8 * (filters + width) + last + 9 * (classes + 4),
        (8 * filters + last) * sum(levels),
    )
    assert found.parts == (pyramid, head)


def test_a_copy_of_a_detector_keeps_its_own_maps() -> None:
    detector = build_detector("resnet18", num_classes=2, pyramid_channels=8).eval()
    copied = copy.deepcopy(detector)
    images = torch.randn(1, 3, 64, 64)
    expected = detector(images)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    assert torch.equal(copied(images), expected)


def test_a_deployed_detector_has_no_normalisation_and_the_same_outputs() -> None:
    torch.manual_seed(0)
    detector = _shaken(
        build_detector("shufflenet_v2_x0_5", "weightnet", 2, 2, num_classes=2, pyramid_channels=8)
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = detector(images)
    deploy(detector, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    with torch.inference_mode():
        torch.testing.assert_close(detector(images), expected, atol=1e-4, rtol=1e-4)
