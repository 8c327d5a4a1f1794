"""MobileNetV2 with its blocks' convolutions made by any method.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: Inverted Residuals and Linear Bottlenecks,
CVPR 2018, section 4 and table 2, https://arxiv.org/abs/1801.04381
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from wnexplore.design.backbones import InvertedResidualSpec, MobileNetV2Spec
from wnexplore.models.branch import Branch, activation_vectors, alphas_of, classifier
from wnexplore.models.method_layers import Method, PlainMethod, plain_conv
from wnexplore.nn import normalised


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes); parameters are named as torchvision names them.

    `stem` is "imagenet" (first convolution at stride 2) or "small" (at stride 1, for 32x32 images). The
    stages are the rows of the paper's table: features.1, 2 to 3, 4 to 6, 7 to 10, 11 to 13, 14 to 16 and 17
    are stages 1 to 7.
    """

    def __init__(
        self,
        spec: MobileNetV2Spec,
        method: Method | None = None,
        *,
        stem: str = "imagenet",
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        method = method or PlainMethod()
        self.spec = spec
        into, out = spec.blocks[-1].out_channels, spec.last_width
        self.features = nn.Sequential(
            nn.Sequential(
                plain_conv(3, spec.stem_width, 3, stride=1 if stem == "small" else 2),
                nn.BatchNorm2d(spec.stem_width),
                nn.ReLU6(inplace=True),
            ),
            *(
                MobileNetV2Block(block, method.at(block.stage), scale=scale)
                for block, scale in zip(spec.blocks, start_scales(spec.blocks), strict=True)
            ),
            nn.Sequential(plain_conv(into, out, 1), nn.BatchNorm2d(out), nn.ReLU6(inplace=True)),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), classifier(out, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class MobileNetV2Block(nn.Module):
    """An inverted residual: 1x1 expansion, depthwise convolution, linear 1x1 projection.

    `scale` is the initial scale of the last normalisation.
    """

    def __init__(self, spec: InvertedResidualSpec, method: Method, *, scale: float) -> None:
        super().__init__()
        into, inside, out = spec.in_channels, spec.expanded, spec.out_channels
        self.residual = spec.residual
        self.reduce = method.context(into)
        features = None if self.reduce is None else self.reduce.out_features

        def conv(a: int, b: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
            return method.conv(a, b, kernel_size, stride=stride, groups=groups, context_features=features)

        def activated(conv: nn.Module) -> Branch:
            return Branch(conv, nn.BatchNorm2d(inside), nn.ReLU6(inplace=True))

        norm = nn.BatchNorm2d(out)
        self.conv = nn.Sequential(
            *([activated(conv(into, inside, 1))] if spec.expands else []),
            activated(conv(inside, inside, spec.kernel_size, spec.stride, groups=inside)),
            conv(inside, out, 1),
            norm,
        )
        self.se = method.gate(out)
        self.alphas = activation_vectors(self)
        nn.init.constant_(norm.weight, scale if self.se is None else scale / self.se.initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        alphas = alphas_of(self.reduce, self.alphas, x)
        *branches, project, norm = self.conv
        y = x
        for branch in branches:
            y = branch(y, alphas)
        y = normalised(project, norm, y, alphas.get(project))
        if self.se is not None:
            y = self.se(y)
        return x + y if self.residual else y


def start_scales(blocks: Sequence[InvertedResidualSpec]) -> list[float]:
    """The initial scale of each block's last normalisation, such that signals stay of order one.

    A kernel of variance 2/F preserves the scale between two activations; a block's last kernel has none after
    it and doubles the variance. The L residual branches add up to order one, as in ResNet.
    """
    shortcuts = max(1, sum(block.residual for block in blocks))
    return [math.sqrt(0.5 / shortcuts if block.residual else 0.5) for block in blocks]
