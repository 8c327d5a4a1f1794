"""The stages with the method, and M and G by stage."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wnexplore.design.conv_sites import stages_of
from wnexplore.design.multiplier import PerStage, Setting
from wnexplore.errors import InputError, shown

Stages = str | int | Sequence[int]
"""How users write stages: "3+4", 4, [3, 4]."""


def parse_stages(value: Stages, backbone: str | None) -> str | None:
    """`value` as one text, in order: "3+4"; None if these are all the stages of `backbone`.

    They are numbered as the network's modules (2 to 4 in ShuffleNetV2, 1 to 4 in ResNet). An external
    backbone (None) numbers them by how often the image has been halved. Raises `InputError` for stages that
    the backbone doesn't have; those of an external one are checked when it is built.
    """
    known = None if backbone is None else stages_of(backbone)
    expected = (
        "name some, such as 3+4"
        if known is None
        else f"{backbone} has {', '.join(map(str, known))}: name some, such as {known[-2]}+{known[-1]}"
    )
    wrong = InputError(f"stages is '{shown(value)}': {expected}")
    if isinstance(value, bool):
        raise wrong
    if isinstance(value, int):
        value = [value]
    if isinstance(value, str):
        if not re.fullmatch(r"\s*[0-9]{1,3}(\s*\+\s*[0-9]{1,3}){0,99}\s*", value):
            raise wrong
        value = [int(part) for part in value.split("+")]
    if not value or any(isinstance(stage, bool) or not isinstance(stage, int) for stage in value):
        raise wrong
    if known is None:
        return "+".join(map(str, sorted(set(value))))
    if not set(value) <= set(known):
        raise wrong
    if set(value) == set(known):
        return None
    return "+".join(str(stage) for stage in known if stage in value)


def has_method(stages: str | None, stage: int) -> bool:
    """Whether `stage` is one of `stages`, in the form of `parse_stages`."""
    return stages is None or str(stage) in stages.split("+")


def settled(setting: Setting, backbone: str | None, stages: str | None, name: str) -> Setting:
    """The canonical `setting` of M or G: one value if it is equal in every stage.

    Raises `InputError` naming `name` if it has no value for a stage that gets the method, or one for
    another stage. Those of an external backbone (None) are checked when it is built.
    """
    if not isinstance(setting, PerStage) or backbone is None:
        return setting
    wanted = {stage for stage in stages_of(backbone) if has_method(stages, stage)}
    given = dict(setting.stages)
    if wanted != set(given):
        names = ", ".join(map(str, sorted(wanted)))
        raise InputError(f"{name} is '{shown(setting)}': expected a value for each of the stages {names}")
    first, *others = given.values()
    return first if all(value == first for value in others) else setting
