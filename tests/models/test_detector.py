"""Detectors: an image's boxes are its own, whatever it is batched with; and the parts are torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn

from wnexplore.design.methods import METHODS
from wnexplore.errors import InputError
from wnexplore.models import build
from wnexplore.models.detector import Detector, build_detector
from wnexplore.models.feature_maps import FeatureMaps

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
    return detector


@pytest.mark.parametrize("method", METHODS)
def test_an_image_has_the_same_boxes_alone_and_at_any_place_in_a_batch(method: str) -> None:
    torch.manual_seed(0)
    detector = _shaken(
        build_detector(
            "resnet18",
            method,
            *((2, 2) if method == "weightnet" else ()),
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
    assert torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["boxes"], expected["boxes"], atol=1e-3, rtol=1e-5)


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
    for name, given in (
        ("num_classes", {"num_classes": 0}),
        ("min_size", {"min_size": ()}),
        ("max_size", {"max_size": 0}),
    ):
        with pytest.raises(InputError, match=f"{name} is 0: expected at least 1"):
            build_detector("resnet18", **given)
