"""Blocks of generated layers."""

from __future__ import annotations

import torch
from torch import nn

from wnexplore.nn import ActivationVectors, WeightNetConv2d


class Block(nn.Module):
    """Three layers of one context, and what makes their activation vectors."""

    def __init__(self, activation: str = "sigmoid") -> None:
        super().__init__()
        torch.manual_seed(0)
        pairs = ((4, 8, 1), (8, 6, 2), (6, 4, 4))
        for index, (a, b, M) in enumerate(pairs):
            layer = WeightNetConv2d(a, b, 3, M=M, G=1, activation=activation, context_features=5)
            nn.init.normal_(layer.fc1.weight)
            self.add_module(f"conv{index}", layer)
        self.alphas = ActivationVectors(self.layers())

    def layers(self) -> list[WeightNetConv2d]:
        return [module for module in self.children() if isinstance(module, WeightNetConv2d)]
