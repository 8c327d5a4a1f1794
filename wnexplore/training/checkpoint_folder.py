"""The checkpoints of a training in its run directory: the last two and the best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from wnexplore.files import make_folder, remove_unfinished, translate_errors
from wnexplore.training.checkpoint import SUFFIX, CheckpointMetadata, read_state, save_checkpoint, save_state

_KEPT = 2


class Checkpoints:
    """step_N.state has the state for resuming, step_N.safetensors the weights to test.

    A stopped run may have only the state: resuming creates the weights again.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "checkpoints"

    @property
    def best(self) -> Path:
        """The weights with the best score so far."""
        return self.folder / f"best{SUFFIX}"

    @property
    def last(self) -> Path | None:
        """The state of the last saved step; None if there is none."""
        states = self._all(".state")
        return states[-1] if states else None

    def clean(self) -> None:
        """Remove unfinished files of a killed process; no other process may be writing."""
        remove_unfinished(self.folder)

    def has_weights(self, step: int) -> bool:
        """Whether the weights of that step are saved."""
        return self._path(step).exists()

    def save_state(self, step: int, state: Mapping[str, Any]) -> None:
        """Save the state for resuming from `step`, and remove all earlier states but the last."""
        make_folder(self.folder)
        save_state(self._path(step).with_suffix(".state"), state)
        self._forget(".state")

    def save(self, network: nn.Module, metadata: CheckpointMetadata, side_state: Mapping[str, Any]) -> None:
        """Save the weights of a step, and remove all earlier weights but the last."""
        make_folder(self.folder)
        save_checkpoint(self._path(metadata.step), network, metadata, side_state)
        self._forget(SUFFIX)

    def save_best(
        self, network: nn.Module, metadata: CheckpointMetadata, side_state: Mapping[str, Any]
    ) -> None:
        """Save the best weights so far."""
        make_folder(self.folder)
        save_checkpoint(self.best, network, metadata, side_state)

    def state(self) -> dict[str, Any] | None:
        """The state of the last step for resuming; None if there is none. Raises `InputError` if it is
        damaged.
        """
        return None if self.last is None else read_state(self.last)

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}{SUFFIX}"

    def _forget(self, suffix: str) -> None:
        for old in self._all(suffix)[:-_KEPT]:
            with translate_errors(old):
                old.unlink()

    def _all(self, suffix: str) -> list[Path]:
        """The files of steps, oldest first."""
        return sorted(self.folder.glob(f"step_*{suffix}"), key=lambda path: (len(path.name), path.name))
