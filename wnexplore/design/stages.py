"""Which stages of a backbone get the method."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wnexplore.design.layers import stages_of
from wnexplore.errors import InputError

Stages = str | int | Sequence[int]
"""What a person may write: "3+4", 4, [3, 4]."""


def parse_stages(value: Stages, backbone: str) -> str | None:
    """`value` as one text, in order: "3+4"; None if these are all the stages of `backbone`.

    They are numbered as the network's modules are: 2 to 4 in ShuffleNetV2, 1 to 4 in ResNet. Raises
    `InputError` for anything else than stages that it has.
    """
    known = stages_of(backbone)
    expected = f"{backbone} has {', '.join(map(str, known))}: name some, such as {known[-2]}+{known[-1]}"
    wrong = InputError(f"stages is '{value}': {expected}")
    if isinstance(value, bool):
        raise wrong
    if isinstance(value, int):
        value = [value]
    if isinstance(value, str):
        if not re.fullmatch(r"\d{1,3}(\+\d{1,3})*", value.replace(" ", "")):
            raise wrong
        value = [int(part) for part in value.split("+")]
    if not value or any(isinstance(stage, bool) or stage not in known for stage in value):
        raise wrong
    if set(value) == set(known):
        return None
    return "+".join(str(stage) for stage in known if stage in value)


def has_method(stages: str | None, stage: int) -> bool:
    """Whether `stage` is one of `stages`, as `parse_stages` gives them."""
    return stages is None or str(stage) in stages.split("+")
