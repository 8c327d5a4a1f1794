"""The stages of a detector beyond its backbone's, which have names: its feature pyramid and its head."""

from __future__ import annotations

PART_STAGES = {"pyramid": 101, "head": 102}
"""Name -> number, above those of any backbone's stages."""

NUMBER_OR_NAME = rf"[0-9]{{1,2}}|{'|'.join(PART_STAGES)}"
"""A regular expression of how a stage is written: a backbone has fewer than a hundred."""


def stage_name(stage: int) -> str:
    """How a stage is written: "3", or "head"."""
    return _NAMES.get(stage, str(stage))


def stage_number(written: str) -> int:
    """The stage that is written so. Raises `ValueError` for anything else."""
    return PART_STAGES[written] if written in PART_STAGES else int(written)


_NAMES = {number: name for name, number in PART_STAGES.items()}
