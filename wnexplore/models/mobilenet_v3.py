"""MobileNetV3 with its blocks' convolutions made by any method.

Source: Howard et al., Searching for MobileNetV3, ICCV 2019, section 5 and table 2,
https://arxiv.org/abs/1905.02244
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn

from wnexplore.design.backbones import InvertedResidualSpec, MobileNetV3Spec
from wnexplore.models.branch import Branch, activation_vectors, alphas_of, classifier
from wnexplore.models.method_layers import Method, PlainMethod, plain_conv
from wnexplore.models.mobilenet_v2 import start_scales
from wnexplore.nn.init import SMALL_GAIN, init_linear_
from wnexplore.nn.true_pixels import spatial_mean

_norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)

_HARD_SWISH_LOSS = 1.32
"""The factor that two kernels of variance 2/F, each before a hard-swish, cost a signal of order one: with z
normal, E[h(sqrt(2) z)²] is 0.78, and after the next kernel 0.57 = 1.32^-2."""


class MobileNetV3(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes); parameters are named as torchvision names them.

    `stem` is "imagenet" (first convolution at stride 2) or "small" (at stride 1, for 32x32 images). A stage
    begins with each block of stride 2: in MobileNetV3-small features.1, 2 to 3, 4 to 8 and 9 to 11 are
    stages 1 to 4.
    """

    def __init__(
        self,
        spec: MobileNetV3Spec,
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
                _norm(spec.stem_width),
                nn.Hardswish(inplace=True),
            ),
            *(
                MobileNetV3Block(block, method.at(block.stage), scale=scale)
                for block, scale in zip(spec.blocks, start_scales(spec.blocks), strict=True)
            ),
            nn.Sequential(plain_conv(into, out, 1), _norm(out), nn.Hardswish(inplace=True)),
        )
        hidden = nn.Linear(out, spec.hidden_width)
        init_linear_(hidden, math.sqrt(2))
        self.classifier = nn.Sequential(
            hidden,
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2, inplace=True),
            classifier(spec.hidden_width, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class MobileNetV3Block(nn.Module):
    """An inverted residual, in some blocks with squeeze-and-excitation before the projection.

    That squeeze-and-excitation belongs to the network whatever the method; `se` is the method's gate, at the
    end. `scale` is the initial scale of the last normalisation.
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
            act = nn.Hardswish(inplace=True) if spec.hard_swish else nn.ReLU(inplace=True)
            return Branch(conv, _norm(inside), act)

        norm = _norm(out)
        self.block = nn.Sequential(
            *([activated(conv(into, inside, 1))] if spec.expands else []),
            activated(conv(inside, inside, spec.kernel_size, spec.stride, groups=inside)),
            *([] if spec.squeezed is None else [HardSqueezeExcite(inside, spec.squeezed)]),
            Branch(conv(inside, out, 1), norm),
        )
        self.se = method.gate(out)
        self.alphas = activation_vectors(self)
        if spec.squeezed is not None:
            scale /= HardSqueezeExcite.initial_scale
        if spec.hard_swish:
            scale *= _HARD_SWISH_LOSS
        nn.init.constant_(norm.weight, scale if self.se is None else scale / self.se.initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        alphas = alphas_of(self.reduce, self.alphas, x)
        y = x
        for layer in self.block:
            y = layer(y, alphas) if isinstance(layer, Branch) else layer(y)
        if self.se is not None:
            y = self.se(y)
        return x + y if self.residual else y


class HardSqueezeExcite(nn.Module):
    """x times hard_sigmoid(fc2(relu(fc1(mean of x over space)))): (N, C, H, W) -> (N, C, H, W).

    fc1 and fc2 are 1x1 convolutions with biases, as in torchvision; every scale starts near 1/2.
    """

    initial_scale = 0.5

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        for fc, gain in (("fc1", 1.0), ("fc2", SMALL_GAIN)):
            weight = self.get_parameter(f"{fc}.weight")
            nn.init.normal_(weight, std=gain / math.sqrt(weight.shape[1]))
            nn.init.zeros_(self.get_parameter(f"{fc}.bias"))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(self.fc1(spatial_mean(x)[:, :, None, None]).relu())
        return x * nn.functional.hardsigmoid(scale)
