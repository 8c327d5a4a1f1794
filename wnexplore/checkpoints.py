"""The checkpoints of a training in its run directory: the last two, and the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from wnexplore.checkpoint import SUFFIX, Origin, read_state, save_checkpoint, save_state

_KEPT = 2


class Checkpoints:
    """step_N.safetensors with the weights to test, step_N.state with all that going on needs."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "checkpoints"

    @property
    def best(self) -> Path:
        """The weights with the largest top-1 so far."""
        return self.folder / f"best{SUFFIX}"

    @property
    def last(self) -> Path | None:
        """The weights of the last step that was kept; None if there are none."""
        whole = self._whole()
        return whole[-1] if whole else None

    def save(self, network: nn.Module, origin: Origin, state: Mapping[str, Any]) -> None:
        """Keep a step, and of those before it only the one before."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"step_{origin.step:08d}{SUFFIX}"
        # A step counts once its weights are there, which is after its state.
        save_state(path.with_suffix(".state"), state)
        save_checkpoint(path, network, origin)
        for old in self._whole()[:-_KEPT]:
            old.unlink()
        kept = {whole.with_suffix(".state") for whole in self._whole()}
        for state_file in set(self.folder.glob("step_*.state")) - kept:
            state_file.unlink()

    def save_best(self, network: nn.Module, origin: Origin) -> None:
        """Keep the best weights so far."""
        self.folder.mkdir(exist_ok=True)
        save_checkpoint(self.best, network, origin)

    def state(self) -> dict[str, Any] | None:
        """What the last step needs to go on; None if there is none. Raises `InputError` if it is damaged."""
        return None if self.last is None else read_state(self.last.with_suffix(".state"))

    def _whole(self) -> list[Path]:
        """The steps that were written whole, the oldest first."""
        return sorted(
            path for path in self.folder.glob(f"step_*{SUFFIX}") if path.with_suffix(".state").exists()
        )
