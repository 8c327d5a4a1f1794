"""ShuffleNetV2 with its blocks' convolutions made by any method.

Source: Ma, Zhang, Zheng, Sun, ShuffleNet V2, ECCV 2018, section 4, https://arxiv.org/abs/1807.11164
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from wnexplore.design.backbones import ShuffleNetV2Spec
from wnexplore.models.branch import Branch, activation_vectors, alphas_of, classifier
from wnexplore.models.method_layers import Method, PlainMethod, plain_conv


class ShuffleNetV2(nn.Module):
    """(N, 3, H, W) -> logits (N, num_classes); parameters are named as torchvision names them.

    `stem` is "imagenet" (stride 2, then max pooling) or "small" (stride 1, for 32x32 images).

    Channels are ordered as in torchvision: a block shuffles its output channels. The networks of the
    WeightNet authors take every other channel at a block's start and don't shuffle at its end, which is
    another function of the same parameters. `use_published_order` switches to it, and the state dict then has
    the entry `published_order`: loading a state dict restores its order.
    """

    published_order: Tensor | None

    def __init__(
        self,
        spec: ShuffleNetV2Spec,
        method: Method | None = None,
        *,
        stem: str = "imagenet",
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        method = method or PlainMethod()
        self.spec = spec
        small = stem == "small"
        self.conv1 = nn.Sequential(
            plain_conv(3, spec.stem_width, 3, stride=1 if small else 2),
            nn.BatchNorm2d(spec.stem_width),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        first, second, third = spec.widths
        self.stage2 = _stage(spec, 0, spec.stem_width, method.at(2))
        self.stage3 = _stage(spec, 1, first, method.at(3))
        self.stage4 = _stage(spec, 2, second, method.at(4))
        self.conv5 = nn.Sequential(
            plain_conv(third, spec.last_width, 1), nn.BatchNorm2d(spec.last_width), nn.ReLU(inplace=True)
        )
        self.fc = classifier(spec.last_width, num_classes)
        self.register_buffer("published_order", None)

    def use_published_order(self) -> None:
        """Order channels as the WeightNet authors' networks do, from here on."""
        self.published_order = torch.tensor(True, device=self.fc.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        for block in (*self.stage2, *self.stage3, *self.stage4):
            x = block(x, published_order=self.published_order is not None)
        logits: Tensor = self.fc(self.conv5(x).mean((2, 3)))
        return logits

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The order belongs to the blocks' weights: it changes whenever any of these are loaded.
        if f"{prefix}published_order" in state_dict:
            self.use_published_order()
        elif any(key.startswith(f"{prefix}stage") for key in state_dict):
            self.published_order = None
        super()._load_from_state_dict(state_dict, prefix, *args)


class ShuffleNetV2Block(nn.Module):
    """One block: some channels pass through (or are projected, at stride 2), the others are convolved.

    `into` channels enter the main branch, `kept` leave the other branch, `width` leave the block.
    """

    def __init__(self, into: int, kept: int, width: int, method: Method, *, downsample: bool) -> None:
        super().__init__()
        self.reduce = method.context(into)
        features = None if self.reduce is None else self.reduce.out_features

        def conv(a: int, b: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
            return method.conv(a, b, kernel_size, stride=stride, groups=groups, context_features=features)

        self.branch1: Branch | None = None
        if downsample:
            self.branch1 = Branch(
                conv(into, into, 3, 2, groups=into),
                nn.BatchNorm2d(into),
                conv(into, kept, 1),
                nn.BatchNorm2d(kept),
                nn.ReLU(inplace=True),
            )
        half, rest = width // 2, width - kept
        self.branch2 = Branch(
            conv(into, half, 1),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            conv(half, half, 3, 2 if downsample else 1, groups=half),
            nn.BatchNorm2d(half),
            conv(half, rest, 1),
            nn.BatchNorm2d(rest),
            nn.ReLU(inplace=True),
        )
        self.se = method.gate(rest)
        self.alphas = activation_vectors(self)
        self.reset_norms()

    def reset_norms(self) -> None:
        """Initialise the normalisations so that a block preserves the scale of its input before training.

        A kernel of variance 2/F preserves it after a ReLU, which is missing after a depthwise convolution;
        and a gate may start below 1.
        """
        for norm in ("branch2.4",) if self.branch1 is None else ("branch1.1", "branch2.4"):
            nn.init.constant_(self.get_parameter(f"{norm}.weight"), math.sqrt(0.5))
        if self.se is not None:
            nn.init.constant_(self.get_parameter("branch2.6.weight"), 1 / self.se.initial_scale)

    def forward(self, x: Tensor, *, published_order: bool = False) -> Tensor:
        if self.branch1 is not None:
            kept = main = x
        elif published_order:
            kept, main = x[:, 0::2], x[:, 1::2]
        else:
            kept, main = x.chunk(2, dim=1)
        alphas = alphas_of(self.reduce, self.alphas, main)
        if self.branch1 is not None:
            kept = self.branch1(kept, alphas)
        y = torch.cat((kept, self.branch2(main, alphas, self.se)), dim=1)
        return y if published_order else _shuffle(y)


def _stage(spec: ShuffleNetV2Spec, index: int, in_channels: int, method: Method) -> nn.ModuleList:
    width, half = spec.widths[index], spec.widths[index] // 2
    kept = spec.projection_width(in_channels, width)
    blocks = [ShuffleNetV2Block(in_channels, kept, width, method, downsample=True)]
    for _ in range(spec.repeats[index] - 1):
        blocks.append(ShuffleNetV2Block(half, half, width, method, downsample=False))
    return nn.ModuleList(blocks)


def _shuffle(x: Tensor) -> Tensor:
    """Interleave the two halves of the channels: 0, C/2, 1, C/2 + 1, ..."""
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)
