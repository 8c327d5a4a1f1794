"""ResNet with its blocks' convolutions made by any method.

Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 3 and
table 1, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from wnexplore.design.backbones import ResNetSpec
from wnexplore.models.branch import Branch, activation_vectors, alphas_of, classifier
from wnexplore.models.method_layers import Method, PlainMethod, plain_conv
from wnexplore.nn import normalised


class ResNet(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes); parameters are named as torchvision names them.

    `stem` is "imagenet" (7x7 at stride 2, then max pooling) or "small" (3x3, for 32x32 images).

    The last normalisation of each of the L blocks starts with scale 1/sqrt(L), so that the residual branches
    add up to order one at any depth, whether or not the normalisations have seen data yet (the idea of De &
    Smith, NeurIPS 2020, https://arxiv.org/abs/2002.10444).
    """

    def __init__(
        self,
        spec: ResNetSpec,
        method: Method | None = None,
        *,
        stem: str = "imagenet",
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        method = method or PlainMethod()
        self.spec = spec
        small = stem == "small"
        self.conv1 = plain_conv(3, spec.stem_width, 3 if small else 7, stride=1 if small else 2)
        self.bn1 = nn.BatchNorm2d(spec.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        outs = [width * spec.expansion for width in spec.widths]
        self.layer1 = _stage(spec, 0, spec.stem_width, method.at(1))
        self.layer2 = _stage(spec, 1, outs[0], method.at(2))
        self.layer3 = _stage(spec, 2, outs[1], method.at(3))
        self.layer4 = _stage(spec, 3, outs[2], method.at(4))
        self.fc = classifier(outs[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class ResNetBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1, with a shortcut.

    The stride is on the (first) 3x3 convolution. `scale` is the initial scale of the last normalisation.
    """

    def __init__(
        self, in_channels: int, width: int, spec: ResNetSpec, method: Method, *, stride: int, scale: float
    ) -> None:
        super().__init__()
        out = width * spec.expansion
        if spec.bottleneck:
            sizes = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            sizes = [(in_channels, width, 3, stride), (width, out, 3, 1)]

        self.reduce = method.context(in_channels)
        features = None if self.reduce is None else self.reduce.out_features
        self._pairs = [(f"conv{i}", f"bn{i}") for i in range(1, len(sizes) + 1)]
        for (conv, norm), (a, b, kernel_size, step) in zip(self._pairs, sizes, strict=True):
            self.add_module(conv, method.conv(a, b, kernel_size, stride=step, context_features=features))
            self.add_module(norm, nn.BatchNorm2d(b))
        nn.init.constant_(self.get_parameter(f"bn{len(sizes)}.weight"), scale)
        self.relu = nn.ReLU(inplace=True)
        self.se = method.gate(out)
        self.downsample: Branch | None = None
        if stride > 1 or in_channels != out:
            self.downsample = Branch(
                method.conv(in_channels, out, 1, stride=stride, context_features=features),
                nn.BatchNorm2d(out),
            )
        self.alphas = activation_vectors(self)

    def forward(self, x: Tensor) -> Tensor:
        alphas = alphas_of(self.reduce, self.alphas, x)
        y = x
        for index, names in enumerate(self._pairs):
            conv, norm = (getattr(self, name) for name in names)
            y = self.relu(y) if index > 0 else y
            y = normalised(conv, norm, y, alphas.get(conv))
        if self.se is not None:
            y = self.se(y)
        shortcut = x if self.downsample is None else self.downsample(x, alphas)
        out: Tensor = self.relu(y.add_(shortcut))
        return out


def _stage(spec: ResNetSpec, index: int, in_channels: int, method: Method) -> nn.Sequential:
    width, scale = spec.widths[index], 1 / math.sqrt(sum(spec.repeats))
    blocks = []
    for block in range(spec.repeats[index]):
        stride = 2 if block == 0 and index > 0 else 1
        blocks.append(ResNetBlock(in_channels, width, spec, method, stride=stride, scale=scale))
        in_channels = width * spec.expansion
    return nn.Sequential(*blocks)
