"""The moving average of a network's weights."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The moving average of the weights of `network` after each step, without a second network.

    Parameters and the running statistics of normalisations are averaged. All other buffers are taken from the
    network: a mean of counters, masks or singular vectors (spectral norm) is meaningless.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._update = get_ema_multi_avg_fn(decay)
        self._kept: dict[str, Tensor] = {}

    def update(self) -> None:
        """Add the current weights to the average."""
        groups: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for name, now in self._averaged().items():
            kept = self._kept.get(name)
            # The first values, or those of a layer that was created late.
            if kept is None or kept.shape != now.shape:
                self._kept[name] = now.detach().clone()
            elif now.is_floating_point() or now.is_complex():
                averages, others = groups[now.dtype, now.device]
                averages.append(kept)
                others.append(now.detach())
            else:
                kept.copy_(now)
        for averages, others in groups.values():
            self._update(averages, others, 0)

    def put_in(self) -> None:
        """Write the average into the network."""
        with torch.no_grad():
            for name, now in self._averaged().items():
                if name in self._kept:
                    now.copy_(self._kept[name])

    def state(self) -> dict[str, Tensor]:
        """The state for `load_state`, without copies."""
        return self._kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Resume from a `state`."""
        now = self._averaged()
        self._kept = {name: value.to(now[name].device, copy=True) for name, value in state.items()}

    def _averaged(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = dict(self._network.named_parameters())
        for path, module in self._network.named_modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                for name in ("running_mean", "running_var"):
                    value = module._buffers.get(name)
                    if value is not None:
                        found[f"{path}.{name}" if path else name] = value
        return found
