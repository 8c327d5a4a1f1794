"""Which starting parameters a network gets."""

from __future__ import annotations

from typing import Literal, get_args

from wnexplore.design.external_names import is_external
from wnexplore.errors import InputError, shown, unknown

Init = Literal["default", "published"]
"""default: variances that keep signals of order one; published: those of the WeightNet authors' code."""

INITS: tuple[str, ...] = get_args(Init)


def check_init(init: object, backbone: str) -> None:
    """Raise `InputError` unless the network of `backbone` can start by `init`.

    External backbones have only their own start: the published one is for networks whose layers are known.
    """
    if not isinstance(init, str) or init not in INITS:
        raise unknown("init", init, INITS)
    if init != "default" and is_external(backbone):
        raise InputError(f"init is '{init}': {shown(backbone)} has its own start: leave init at 'default'")
