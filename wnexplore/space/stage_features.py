"""What a stage's design costs in numbers that its time may depend on: the features of a fit of latencies."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from wnexplore.design.counts import parts, site_of, total
from wnexplore.design.skeleton import Skeleton
from wnexplore.design.stage_design import PLAIN, StageDesign

FEATURES = ("weights", "multiply-adds", "replaced layers", "further layers", "kernels over the image")
"""What `StageFeatures.costs` holds, each over the whole plain network's, beyond its plain stage:

parameters; multiply-adds for one image; convolutions whose kernels are made; layers beside those (contexts,
gates); and for each such convolution the multiply-adds of all lambda kernels (what `shared` computes).
"""


@dataclass(frozen=True)
class StageFeatures:
    """One stage under one design."""

    stage: int
    method: str
    """ "plain" if its function is that of the plain stage."""
    function: Hashable
    """Equal for equal functions of this stage."""
    costs: tuple[float, ...] = (0.0,) * len(FEATURES)
    place: tuple[float, ...] = ()
    """Where the design lies among those of its method: logarithms, to base 2, of the numbers that it sets."""


def stage_features(skeleton: Skeleton, stage: int, design: StageDesign) -> StageFeatures:
    """The features of `stage` of the network `skeleton` under `design`.

    Raises `IllegalPointError` for an (M, G) that is illegal in some layer.
    """
    blocks = [block for block in skeleton.blocks if block.stage == stage]
    found = [(block, list(parts(block, design))) for block in blocks]
    function = tuple(part.what for _, made in found for part in made)
    if all(what == ("plain",) for what in function):
        return StageFeatures(stage, "plain", "plain")
    plain = [part for block in blocks for part in parts(block, PLAIN)]
    params, flops, sites = _of_network(skeleton)
    replaced, further = 0, 0
    over_image, further_params = 0.0, 0.0
    numbers: list[tuple[float, ...]] = []
    for block, made in found:
        left = list(block.sites)
        for part in made:
            site = site_of(part, left, block)
            if site is not None:
                del left[: left.index(site) + 1]
            if part.what == ("plain",):
                continue
            if site is None:
                further += 1
                further_params += 0 if part.again else part.params
                continue
            replaced += 1
            over_image += (part.params / site.weights - 1) * site.weights * site.pixels * block.samples
            numbers.append(tuple(math.log2(1 + value) for value in part.what if isinstance(value, int)))
    counts, of_plain = total([part for _, made in found for part in made]), total(plain)
    costs = (
        (counts.params - of_plain.params) / params,
        (counts.flops - of_plain.flops) / flops,
        replaced / sites,
        further / sites,
        over_image / flops,
    )
    means = [sum(values) / len(values) for values in zip(*numbers, strict=False)]
    words = {value for part in function for value in part[1:] if isinstance(value, str)}
    place = (
        *means,
        # A layer more that is replaced, or words such as the activation's, lie about one doubling apart.
        _SHARE * replaced / max(1, sum(len(block.sites) for block in blocks)),
        0.5 * math.log2(1 + further_params),
        float(sum(map(_of_word, words))),
    )
    return StageFeatures(stage, design.method, function, costs, place)


def plain_features(stage: int) -> StageFeatures:
    """Those of a plain stage."""
    return StageFeatures(stage, "plain", "plain")


_SHARE = 4.0


def _of_network(skeleton: Skeleton) -> tuple[int, int, int]:
    """Parameters, multiply-adds and number of sites of the plain network."""
    plain = [part for block in skeleton.blocks for part in parts(block, PLAIN)]
    params, flops = total(plain)
    return max(1, skeleton.params + params), max(1, skeleton.flops + flops), max(1, len(plain))


def _of_word(word: str) -> float:
    """A number that tells words apart, the same in every process."""
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(word)) % 97
