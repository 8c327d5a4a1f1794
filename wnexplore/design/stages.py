"""The stages with the method, and M and G by stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeGuard

from wnexplore.design.conv_sites import stages_of
from wnexplore.design.multiplier import PerStage, Setting
from wnexplore.design.part_stages import NUMBER_OR_NAME, PART_STAGES, stage_name, stage_number
from wnexplore.errors import InputError, shown

Stages = str | int | Sequence[int | str]
"""How users write stages: "3+4", 4, [3, 4]; of detectors also "all+head", [3, 4, "pyramid"]."""

ALL = "all"
"""All the stages of a backbone."""


def parse_stages(value: Stages, backbone: str | None) -> str | None:
    """`value` as one text, in order: "3+4", "all+head"; None if these are all the stages of `backbone`.

    They are numbered as the network's modules (2 to 4 in ShuffleNetV2, 1 to 4 in ResNet). An external
    backbone (None) numbers them by how often the image has been halved. Those of a detector's pyramid and
    head have names. Raises `InputError` for stages that the backbone doesn't have; those of an external one
    are checked when it is built.
    """
    known = None if backbone is None else stages_of(backbone)
    expected = (
        "name some, such as 3+4"
        if known is None
        else f"{backbone} has {', '.join(map(str, known))}: name some, such as {known[-2]}+{known[-1]}"
    )
    if re.search("[a-z]", str(value)):
        expected += f"; a detector also has {' and '.join(PART_STAGES)}, as in {ALL}+head"
    wrong = InputError(f"stages is '{shown(value)}': {expected}")
    if isinstance(value, int):
        value = [value]
    try:
        named = {_stage(one) for one in (value.split("+", _MOST) if isinstance(value, str) else value)}
    except (TypeError, ValueError):
        raise wrong from None
    parts = [stage for stage in PART_STAGES.values() if stage in named]
    own = sorted(stage for stage in named if _is_number(stage) and stage not in parts)
    if not named or len(named) > _MOST or (known is not None and not set(own) <= set(known)):
        raise wrong
    whole = ALL in named or (known is not None and set(own) == set(known))
    if whole and not parts:
        return None
    return "+".join([*([ALL] if whole else map(str, own)), *map(stage_name, parts)])


def has_method(stages: str | None, stage: int) -> bool:
    """Whether `stage` is one of `stages`, in the form of `parse_stages`."""
    named = (ALL,) if stages is None else stages.split("+")
    return stage_name(stage) in named or (ALL in named and stage not in PART_STAGES.values())


def without_parts(stages: str | None) -> str | None:
    """The stages of the backbone among `stages`: "" if there is none, None if these are all."""
    if stages is None:
        return None
    own = "+".join(stage for stage in stages.split("+") if stage not in PART_STAGES)
    return None if own == ALL else own


def of_backbone(setting: Setting) -> Setting:
    """M or G without its values for a detector's pyramid and head."""
    if not isinstance(setting, PerStage):
        return setting
    return PerStage(tuple(pair for pair in setting.stages if pair[0] not in PART_STAGES.values()))


def settled(setting: Setting, backbone: str | None, stages: str | None, name: str) -> Setting:
    """The canonical `setting` of M or G: one value if it is equal in every stage.

    Raises `InputError` naming `name` if it has no value for a stage that gets the method, or one for
    another stage. The own stages of an external backbone (None) are checked when it is built.
    """
    if not isinstance(setting, PerStage):
        return setting
    if backbone is None:
        parts = {stage for stage in PART_STAGES.values() if has_method(stages, stage)}
        given_parts = {stage for stage, _ in setting.stages if stage in PART_STAGES.values()}
        if parts != given_parts or (len(parts) == len(setting.stages) and without_parts(stages) != ""):
            which = "that gets the method" if stages is None else f"of {stages}"
            raise InputError(f"{name} is '{shown(setting)}': expected a value for each stage {which}")
        return setting
    every = (*stages_of(backbone), *PART_STAGES.values())
    wanted = [stage for stage in every if has_method(stages, stage)]
    given = dict(setting.stages)
    if set(wanted) != set(given):
        names = ", ".join(map(stage_name, wanted))
        raise InputError(f"{name} is '{shown(setting)}': expected a value for each of the stages {names}")
    first, *others = given.values()
    return first if all(value == first for value in others) else setting


_MOST = 100


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _stage(written: object) -> int | str:
    """A stage's number, or `ALL`. Raises `ValueError` or `TypeError` for anything else."""
    if isinstance(written, str):
        text = written.strip()
        if text == ALL:
            return ALL
        if not re.fullmatch(NUMBER_OR_NAME, text, re.ASCII):
            raise ValueError(text)
        return stage_number(text)
    if not _is_number(written):
        raise TypeError(written)
    if not 0 <= written < 100:
        raise ValueError(written)
    return written
