"""A fit of latency ratios that adds up over the stages of a network, with intervals for new networks.

Model: ratio - 1 = the sum over stages of a term of (stage, design), and an error. A term is a linear function
of the design's costs, shared by all stages, plus a function of this stage alone that is smooth in where the
design lies, plus a deviation of the very design. All three are shrunk towards 0 by a ridge each, so that
designs seen in few networks borrow from others: generalised least squares with a penalty for each part, or,
the same, a Gaussian process whose covariance is a sum over stages (Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006, chapter 2). The networks of a group, timed in the same rounds, share the error of
the plain network among them: a random effect. The strengths of all parts are those by which each group is
best foretold by the others (its log density, as in section 5.4.2), which takes one factorisation for all of
them. A coefficient may be negative: a block that folds more than its plain one can be faster.

Interval: the prediction ± q·s(x), s(x) the standard deviation that the fit itself gives, of a network in a
new group, q the ceil(0.95 (n + 1))-th smallest of |residual| / s over the n networks, each foretold by a fit
to other groups, about nine tenths, whose strengths are chosen anew: cross-validated conformal prediction with
normalised residuals (Lei et al., Distribution-free predictive inference for regression, JASA 2018, section
5.2; Barber et al., Predictive inference with the jackknife+, Annals of Statistics 2021). Of a single group,
what it shares comes on top, as it was between other runs. Residuals by leaving
each out of the fit that chose its strengths by just these would be too small: of 24 simulated networks they
cover 90 %. Where the fit knows less, as of a design in no network, s and the interval are wider.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from wnexplore.space.stage_features import FEATURES, StageFeatures

Floats = np.ndarray[Any, np.dtype[np.float64]]

CONFIDENCE = 0.95

MIN_NETWORKS = 19
"""Fewest networks of a 95 % interval: ceil(0.95 (n + 1)) is at most n from here on."""

Network = Sequence[StageFeatures]
"""Its stages, in order; stages that are plain may be left out."""


@dataclass(frozen=True)
class Timed:
    """A measured network."""

    stages: Network
    ratio: float
    """Its latency over the plain network's."""
    error: float
    """Standard error of the ratio."""
    group: Hashable = None
    """The networks that were timed in the same rounds, beside one plain network; None: by itself."""


@dataclass(frozen=True)
class Strengths:
    """The prior standard deviations of the parts of a term, and the relative error of the model."""

    linear: float
    smooth: float
    own: float
    reach: float
    """Doublings over which the smooth part changes."""
    error: float
    group: float
    """Relative error that the networks of a group share: that of the plain network timed with them."""


@dataclass(frozen=True)
class Term:
    """The predictions for a stage under each of some designs, to be combined with those of other stages."""

    stage: int
    mean: Floats
    """(designs,): what the stage adds to the ratio."""
    linear: Floats
    """(designs, costs): its costs in units of their prior."""
    alone: Floats
    """(designs,): prior variance of the other two parts."""
    explained: Floats
    """(networks, designs): what is known of it, whitened."""
    unseen: NDArray[np.bool_]
    """(designs,): whether no measured network has the design."""


class Ratios(NamedTuple):
    """Predicted latency ratios of some networks; NaN where nothing can be said."""

    ratio: Floats
    deviation: Floats
    """Standard deviation of what would be measured."""
    unseen: NDArray[np.bool_]
    """Whether a stage has a design that no measured network has."""


@dataclass(frozen=True)
class Foretold:
    """A measured network as the others foretell it."""

    ratio: float
    """Predicted."""
    deviation: float
    """The standard deviation that the fit gives of what will be measured."""
    measured: float

    @property
    def relative_error(self) -> float:
        """Predicted over measured, less 1."""
        return self.ratio / self.measured - 1

    @property
    def score(self) -> float:
        """How many standard deviations the prediction is off."""
        return abs(self.ratio - self.measured) / self.deviation


@dataclass(frozen=True, eq=False)
class LatencyFit:
    """The fit to some measured networks that share a plain network and a protocol."""

    timed: tuple[Timed, ...]
    foretold: tuple[Foretold, ...]
    """Each network, in order, as a fit to other ones foretells it; () if not asked for."""
    strengths: Strengths
    scale: Floats
    """Of each cost: its root mean square over the networks."""
    _linear: Floats
    """(networks, costs): summed over stages, over `scale`."""
    _factor: Floats
    """(networks, networks): the Cholesky factor of the covariance of the measured ratios."""

    def term(self, stage: int, designs: Sequence[StageFeatures], *, anywhere: bool = False) -> Term:
        """The term of a stage under each of `designs`.

        Its mean is NaN for designs beyond those measured in this stage, unless `anywhere`: of another method,
        or more than a tenth above the largest in one of `FEATURES`.
        """
        cross = self._cross(stage, designs)
        beyond = [d.method != "plain" and not anywhere and self._is_beyond(d) for d in designs]
        explained = solve_triangular(self._factor, cross.T, lower=True)
        own = self.strengths.smooth**2 + self.strengths.own**2
        return Term(
            stage,
            mean=np.where(beyond, np.nan, cross @ self._weights),
            linear=_costs(designs, self.scale) * self.strengths.linear,
            alone=np.array([0.0 if design.method == "plain" else own for design in designs]),
            explained=np.asarray(explained),
            unseen=np.array(
                [d.method != "plain" and (stage, d.function) not in self._seen for d in designs], np.bool_
            ),
        )

    def ratios(self, terms: Sequence[Term], per_stage: bool) -> Ratios:
        """The ratios of networks of one design of each term, of which there must be one.

        `per_stage`: each way to choose them, the last stage's changing fastest; otherwise all terms have as
        many designs, and network i has the i-th of each. The plain network's are 1 and 0.
        """
        shape = tuple(len(term.mean) for term in terms) if per_stage else (len(terms[0].mean),)

        def spread(values: NDArray[Any], *axes: int) -> NDArray[Any]:
            return values.reshape([size if at in axes else 1 for at, size in enumerate(shape)])

        mean, variance = np.zeros(shape), np.zeros(shape)
        plain, unseen = np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
        for at, term in enumerate(terms):
            axis = at if per_stage else 0
            own = term.alone + (term.linear**2).sum(axis=1) - (term.explained**2).sum(axis=0)
            mean += spread(term.mean, axis)
            variance += spread(own, axis)
            plain &= spread(term.alone == 0, axis)
            unseen |= spread(term.unseen, axis)
        for (at, one), (to, other) in itertools.combinations(enumerate(terms), 2):
            if per_stage:
                both = one.linear @ other.linear.T - one.explained.T @ other.explained
                variance += spread(2 * both, at, to)
            else:
                both = (one.linear * other.linear).sum(axis=1) - (one.explained * other.explained).sum(axis=0)
                variance += 2 * both
        ratio = np.maximum(1 + mean, _LEAST)
        deviation = np.sqrt(np.maximum(variance, 0) + (self.relative_error * ratio) ** 2)
        deviation[plain] = 0.0
        return Ratios(ratio.ravel(), deviation.ravel(), unseen.ravel())

    @cached_property
    def quantile(self) -> float:
        """How many standard deviations the 95 % interval reaches to each side."""
        scores = sorted(network.score for network in self.foretold)
        return scores[math.ceil(CONFIDENCE * (len(scores) + 1)) - 1]

    @property
    def half_widths(self) -> list[float]:
        """Half the width of the interval of each network over its predicted ratio, as `foretold`."""
        ratio = np.array([network.ratio for network in self.foretold])
        deviation = np.array([network.deviation for network in self.foretold])
        return (self.half_width(ratio, deviation) / ratio).tolist()  # type: ignore[no-any-return]

    @cached_property
    def relative_error(self) -> float:
        """The relative error that no design explains: the model's, a group's, and a usual measurement's."""
        measured = float(np.median([timed.error / timed.ratio for timed in self.timed]))
        return math.hypot(self.strengths.error, self.strengths.group, measured)

    def half_width(self, ratio: Floats, deviation: Floats) -> Floats:
        """Half the width of the 95 % intervals of networks that `ratios` predicts.

        What a single group shares is in no residual: that comes on top.
        """
        shared = _BETWEEN_RUNS if len(set(_groups(self.timed))) == 1 else 0.0
        half = np.hypot(self.quantile * deviation, _NORMAL * shared * ratio)
        return np.where(deviation == 0, 0.0, half)

    @cached_property
    def _weights(self) -> Floats:
        values = np.array([timed.ratio - 1 for timed in self.timed])
        half = solve_triangular(self._factor, values, lower=True)
        return np.asarray(solve_triangular(self._factor, half, lower=True, trans="T"))

    @cached_property
    def _seen(self) -> frozenset[tuple[int, Hashable]]:
        return frozenset((design.stage, design.function) for timed in self.timed for design in timed.stages)

    @cached_property
    def _largest(self) -> dict[tuple[int, str], Floats]:
        """(stage, method) -> the largest of each cost among the measured designs."""
        found: dict[tuple[int, str], Floats] = {}
        for design in (design for timed in self.timed for design in timed.stages):
            key = design.stage, design.method
            found[key] = np.maximum(found.get(key, -np.inf), design.costs)
        return found

    def _is_beyond(self, design: StageFeatures) -> bool:
        largest = self._largest.get((design.stage, design.method))
        return largest is None or bool((np.array(design.costs) > _BEYOND * np.abs(largest) + _TINY).any())

    def _cross(self, stage: int, designs: Sequence[StageFeatures]) -> Floats:
        """(designs, networks): the covariance of one stage's term with each network."""
        found: Floats = self.strengths.linear**2 * _costs(designs, self.scale) @ self._linear.T
        present = [at for at, timed in enumerate(self.timed) if _at_stage(timed, stage) is not None]
        others = [_at_stage(self.timed[at], stage) for at in present]
        alike, distance = _closeness(designs, [design for design in others if design is not None])
        near = np.exp(-0.5 * distance / self.strengths.reach**2)
        found[:, present] += self.strengths.smooth**2 * near + self.strengths.own**2 * alike
        return found


def fit(timed: Sequence[Timed]) -> LatencyFit:
    """The fit to some networks of one plain network and protocol, with each as the others foretell it.

    Raises `ValueError` for fewer than `MIN_NETWORKS`.
    """
    if len(timed) < MIN_NETWORKS:
        raise ValueError(f"{len(timed)} networks: expected at least {MIN_NETWORKS}")
    parts = _Parts.of(timed)
    foretold: dict[int, Foretold] = {}
    for left_out in _folds(timed):
        kept = np.setdiff1d(np.arange(len(timed)), left_out)
        known = [timed[at] for at in kept.tolist()]
        part = _fitted(known, parts.some(kept))
        for at in left_out.tolist():
            network = timed[at]
            terms = [part.term(design.stage, [design], anywhere=True) for design in network.stages]
            (ratio,), (deviation,), _ = part.ratios(terms, False)
            # This measurement may be less certain than a usual one.
            usual = part.relative_error**2 - part.strengths.error**2 - part.strengths.group**2
            variance = deviation**2 - usual * ratio**2 + network.error**2
            foretold[at] = Foretold(float(ratio), math.sqrt(max(variance, _TINY)), network.ratio)
    whole = _fitted(timed, parts)
    return replace(whole, foretold=tuple(foretold[at] for at in range(len(timed))))


def _folds(timed: Sequence[Timed]) -> list[NDArray[np.int64]]:
    """The places of networks to be left out together: whole groups, if there are at least four."""
    dice, groups = np.random.default_rng(0), _groups(timed)
    if len(set(groups)) >= _FEWEST_GROUPS:
        numbers = dice.permutation(np.unique(groups))
        parts = [np.flatnonzero(np.isin(groups, numbers[fold::_FOLDS])) for fold in range(_FOLDS)]
    else:
        places = dice.permutation(len(timed))
        parts = [np.sort(places[fold::_FOLDS]) for fold in range(_FOLDS)]
    return [part for part in parts if len(part)]


def _groups(timed: Sequence[Timed]) -> list[int]:
    """The number of each network's group."""
    numbers: dict[Hashable, int] = {}
    return [
        numbers.setdefault(("alone", at) if one.group is None else one.group, len(numbers))
        for at, one in enumerate(timed)
    ]


@dataclass(frozen=True)
class _Parts:
    """The parts of the covariance of some networks, before their strengths."""

    linear: Floats
    """(networks, costs), over `scale`."""
    scale: Floats
    alike: Floats
    """(networks, networks): in how many stages two have the same design."""
    near: Mapping[float, Floats]
    """Reach -> (networks, networks): how close their designs are, summed over stages."""
    number: NDArray[np.int64]
    """(networks,): that of each network's group."""
    ratios: Floats
    errors: Floats

    @classmethod
    def of(cls, timed: Sequence[Timed]) -> _Parts:
        size = len(timed)
        costs = np.array([_costs(one.stages).sum(axis=0) for one in timed])
        scale = np.sqrt((costs**2).mean(axis=0))
        alike, near = np.zeros((size, size)), {reach: np.zeros((size, size)) for reach in _REACHES}
        for stage in {design.stage for one in timed for design in one.stages}:
            designs = [_at_stage(one, stage) for one in timed]
            present = [at for at, design in enumerate(designs) if design is not None]
            chosen = [design for design in designs if design is not None]
            same, distance = _closeness(chosen, chosen)
            alike[np.ix_(present, present)] += same
            for reach in _REACHES:
                near[reach][np.ix_(present, present)] += np.exp(-0.5 * distance / reach**2)
        ratios, errors = (np.array([getattr(one, name) for one in timed]) for name in ("ratio", "error"))
        number = np.array(_groups(timed), np.int64)
        return cls(_over(costs, scale), scale, alike, near, number, ratios, errors)

    def some(self, kept: NDArray[np.int64]) -> _Parts:
        """Those of some of the networks."""
        both = np.ix_(kept, kept)
        near = {reach: matrix[both] for reach, matrix in self.near.items()}
        rest = self.number[kept], self.ratios[kept], self.errors[kept]
        return _Parts(self.linear[kept], self.scale, self.alike[both], near, *rest)

    @cached_property
    def groups(self) -> list[NDArray[np.int64]]:
        """(groups, size): the places of the networks of all groups of a size, for each size."""
        places = [np.flatnonzero(self.number == number) for number in np.unique(self.number)]
        sizes = {len(group) for group in places}
        return [np.array([group for group in places if len(group) == size]) for size in sizes]

    @cached_property
    def together(self) -> Floats:
        """(networks, networks): the product of the ratios of two networks of a group."""
        same: Floats = np.equal.outer(self.number, self.number) * np.outer(self.ratios, self.ratios)
        return same

    def factor(self, strengths: Strengths) -> Floats:
        """The Cholesky factor of the covariance."""
        found = strengths.linear**2 * self.linear @ self.linear.T + strengths.own**2 * self.alike
        found += strengths.smooth**2 * self.near[strengths.reach]
        found += strengths.group**2 * self.together
        found[np.diag_indices_from(found)] += self.errors**2 + (strengths.error * self.ratios) ** 2
        return np.asarray(np.linalg.cholesky(found), np.float64)

    def density(self, strengths: Strengths) -> float:
        """The log density of the networks, those of each group foretold by all others."""
        half = solve_triangular(self.factor(strengths), np.eye(len(self.ratios)), lower=True)
        precision, weights = half.T @ half, half.T @ (half @ (self.ratios - 1))
        found = 0.0
        for groups in self.groups:
            blocks, theirs = precision[groups[:, :, None], groups[:, None, :]], weights[groups]
            residuals = np.linalg.solve(blocks, theirs[:, :, None])[:, :, 0]
            found += 0.5 * float(np.linalg.slogdet(blocks)[1].sum() - (residuals * theirs).sum())
        return found


def _fitted(timed: Sequence[Timed], parts: _Parts) -> LatencyFit:
    """The fit whose strengths foretell each network best."""
    spread = max(0.01, float(np.sqrt(np.mean((parts.ratios - 1) ** 2))))
    number = len(np.unique(parts.number))
    alone = number == len(timed)
    found = Strengths(spread, spread / 4, spread / 16, 2.0, 0.01, 0.0 if alone or number == 1 else 0.01)
    best = parts.density(found)
    choices: dict[str, Sequence[float]] = {
        "linear": [spread * 2.0**step for step in (-6, -4, -2, 0, 2)],
        "smooth": [spread * 2.0**step for step in (-9, -7, -5, -4, -3, -2, -1, 0)],
        "own": [spread * 2.0**step for step in (-9, -7, -6, -5, -4, -3, -2, -1)],
        "reach": _REACHES,
        "error": _ERRORS,
        # A single group doesn't say how groups differ, and would take part of what its designs cost for that;
        # nor do networks that were each timed alone.
        "group": (found.group,) if alone or number == 1 else _GROUP_ERRORS,
    }
    for _ in range(_PASSES):
        before = found
        for name, values in choices.items():
            others = [replace(found, **{name: value}) for value in values]
            densities = [parts.density(other) for other in others]
            if max(densities) > best:
                best = max(densities)
                found = others[densities.index(best)]
        if found == before:
            break
    return LatencyFit(tuple(timed), (), found, parts.scale, parts.linear, parts.factor(found))


_FOLDS = 10
_FEWEST_GROUPS = 4
_PASSES = 4
_REACHES = (1.0, 2.0, 4.0)
_ERRORS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
"""Relative errors of the model: no additive one is exact."""
_GROUP_ERRORS = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04)
_BETWEEN_RUNS = 0.025
"""Relative standard deviation of what all networks of a run share, where a single group tells nothing of it:
between runs on a shared machine ratios moved together by 1 to 4 % (sweeps/results/README.md, "Predicted
latencies")."""
_NORMAL = 1.96
"""Standard deviations in half a 95 % interval."""
_LEAST = 0.01
"""Smallest ratio that is predicted."""
_BEYOND = 1.1
_TINY = 1e-12


def _costs(designs: Network, scale: Floats | None = None) -> Floats:
    costs = np.array([design.costs for design in designs], dtype=np.float64).reshape(-1, len(FEATURES))
    return costs if scale is None else _over(costs, scale)


def _over(costs: Floats, scale: Floats) -> Floats:
    return np.divide(costs, scale, out=np.zeros_like(costs), where=scale > 0)


def _at_stage(timed: Timed, stage: int) -> StageFeatures | None:
    """The design of a stage; None if it is plain."""
    return next((d for d in timed.stages if d.stage == stage and d.method != "plain"), None)


def _closeness(designs: Network, others: Network) -> tuple[Floats, Floats]:
    """(designs, others): where two are one function, and their squared distance, infinite between methods.

    Designs of one stage; plain ones are like none.
    """
    numbers: dict[Hashable, int] = {}
    ours, theirs = (
        np.array([numbers.setdefault(design.function, len(numbers)) for design in some], np.int64)
        for some in (designs, others)
    )
    varied = np.array([design.method != "plain" for design in designs], np.bool_)
    alike = (np.equal.outer(ours, theirs) & varied[:, None]).astype(np.float64)
    distance = np.full(alike.shape, np.inf)
    for kind in {(d.method, len(d.place)) for d in designs if d.method != "plain"}:
        rows, columns = (
            [at for at, design in enumerate(some) if (design.method, len(design.place)) == kind]
            for some in (designs, others)
        )
        if columns:
            a, b = (
                np.array([designs[at].place for at in rows]),
                np.array([others[at].place for at in columns]),
            )
            distance[np.ix_(rows, columns)] = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    return alike, distance
