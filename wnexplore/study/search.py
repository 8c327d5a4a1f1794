"""A search: Optuna proposes points, the closed form throws out what breaks a budget, the rest is measured.

Records go to the store of a run directory as a sweep's do, and Optuna's own study stands beside them. What
was measured is never measured again: a search that was stopped proposes the point under way once more and
finds its records.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wnexplore.design.counts import count, function_of
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.point import DesignPoint
from wnexplore.design.sweep_file import PointSpec, SweepSpec
from wnexplore.errors import InputError, RunError, WnexploreError, shown, unknown
from wnexplore.results.columns import COLUMNS, TRAINING_PROTOCOL, direction
from wnexplore.results.filters import condition, truth
from wnexplore.results.frame import frame, numbers
from wnexplore.results.record import Record
from wnexplore.results.store import Store
from wnexplore.space.expansion import space_of
from wnexplore.space.grid import MAX_POINTS
from wnexplore.space.selection import open_points, sample
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.study.optuna_storage import STUDY, damaged_study, storage, translate_study_errors
from wnexplore.study.proposals import decode, encode
from wnexplore.study.sweep import Step, check_can_begin, plan, remaining, run
from wnexplore.training.training_record import threads_before

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("nsga2", "tpe")
"""Optuna's NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 2002) and tree-structured Parzen estimator."""

Values = list[float] | None
"""The objectives of a point; None if it failed, or broke a budget once it was measured."""


@dataclass(frozen=True)
class Search:
    """What is searched for, and where."""

    spec: SweepSpec
    """The axes to choose from, and how figures are measured."""
    objectives: tuple[str, ...]
    """Columns of a table, each of which has a direction that is better."""
    budgets: tuple[str, ...] = ()
    """Conditions that a point must satisfy, beside the `where` of `spec`."""
    trials: int = 60
    """How many different points to measure."""
    sampler: str = "nsga2"
    seed: int = 0

    @cached_property
    def where(self) -> str | None:
        """All budgets as one condition."""
        texts = [text for text in (self.spec.where, *self.budgets) if text]
        for text in texts:
            condition(text)
        return " and ".join(f"({text})" for text in texts) or None

    @cached_property
    def within(self) -> Within:
        """The points to choose from; `InputError` if no legal one satisfies the budgets."""
        return Within(self)

    def check(self) -> None:
        """Raise `InputError` if this can't be searched."""
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if self.spec.points is not None:
            raise InputError("a search chooses from axes, and this sweep lists its points one by one")
        if not self.objectives:
            raise InputError("a search needs an objective, such as --objectives top1,latency_ms")
        if self.spec.train is not None and self.spec.train.schedule != "full":
            raise InputError(
                "a search compares points by trainings of one length: leave 'schedule: halving' out"
            )
        for name in self.objectives:
            direction(name)
            trained = COLUMNS[name].within == TRAINING_PROTOCOL
            if trained and self.spec.train is None:
                raise InputError(f"objective '{name}' needs a training: add --train")
            if COLUMNS[name].within and not trained and self.spec.latency is None:
                raise InputError(f"objective '{name}' needs the latency measured: leave out --no-latency")
        for name in ("batch_sizes", "dtypes", "runtimes", "memory_formats", "threads", "caches", "modes"):
            values = getattr(self.spec.latency, name, None) or ()
            if len(values) > 1:
                raise InputError(f"latency has {len(values)} {name}: a search compares points by one of them")
        if find_spec("optuna") is None:
            raise InputError('search needs Optuna: pip install "wnexplore[search]"')
        # Once a directory is made, the points of the first trials would find it out.
        check_can_begin(self.spec, self.within.baselines())

    @property
    def identity(self) -> str:
        """What makes two searches the same one: all but the number of trials."""
        return json.dumps([self.spec.to_yaml(), self.objectives, self.where, self.sampler, self.seed])


@dataclass(frozen=True)
class Outcome:
    """Where a search stands when it ends."""

    points: int
    """Different points measured, those before this call included."""
    rejected: int
    """Proposals that break a budget or are illegal, before anything was built."""
    exhausted: bool
    """Whether no further point satisfies the budgets."""


def search(
    wanted: Search,
    store: Store,
    on_step: Callable[[int, Step], None] = lambda number, step: None,
) -> Outcome:
    """Measure points until `wanted.trials` different ones are, those of earlier calls included.

    `on_step` is told the number of the point, from 1, and where its measurement stands. Raises `InputError`
    if the store's directory holds another search or no point satisfies the budgets, and `RunError` if the
    sampler proposes nothing new any more.
    """
    wanted.check()
    with translate_study_errors(store.path.parent / STUDY):
        return _search(wanted, store, on_step)


def _search(wanted: Search, store: Store, on_step: Callable[[int, Step], None]) -> Outcome:
    from optuna.trial import TrialState

    within = wanted.within
    first = within.sample(min(_POPULATION, wanted.trials))
    try:
        study = _study(wanted, store.path.parent)
        _put_back(study, wanted)
        known, fruitless = _standing(study, wanted)
    except WnexploreError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise damaged_study(store.path.parent / STUDY, shown(f"{type(error).__name__}: {error}")) from None
    # Once, and before anything is measured: a damaged record is told here.
    threads = threads_before(store.records())
    while len(known) < min(within.size, wanted.trials):
        if not study.get_trials(states=(TrialState.WAITING,)):
            _propose_first(study, wanted, first)
            if fruitless == _PATIENCE and within.listed:
                study.enqueue_trial(encode(wanted.spec, within.another(known)))
        if fruitless == _MAX_FRUITLESS:
            raise RunError(
                f"{fruitless} proposals in a row were known or broke a budget; {len(known)} of"
                f" {wanted.trials} points are measured and kept: another seed, wider budgets or more values"
                " of an axis find others"
            )
        study.sampler = _sampler(wanted, len(_reported(study)))
        trial = study.ask()
        point = decode(wanted.spec, trial)
        trial.set_user_attr(_POINT, json.dumps(point.to_dict()))
        reason = _rejected(wanted, point)
        function = None if reason else _function(point)
        fruitless = fruitless + 1 if reason or function in known else 0
        if function is not None and function not in known:
            step = partial(on_step, len(known) + 1)
            known[function] = _measure(wanted, point, store, threads, step)
        _report_trial(study, trial, reason, None if function is None else known[function])
    rejected = sum(trial.user_attrs["outcome"] == _REJECTED for trial in _reported(study))
    return Outcome(len(known), rejected, len(known) < wanted.trials)


_POINT = "point"
_REJECTED, _MEASURED = "thrown out", "measured"
_POPULATION = 20
_PATIENCE = 10
"""Proposals in vain after which a point that is not known yet is drawn at random, where points are listed."""
_MAX_FRUITLESS = 2000


def _study(wanted: Search, directory: Path) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    better: dict[str, Literal["minimize", "maximize"]] = {"smaller": "minimize", "larger": "maximize"}
    study = optuna.create_study(
        study_name="wnexplore",
        storage=storage(directory),
        directions=[better[direction(name)] for name in wanted.objectives],
        load_if_exists=True,
    )
    if study.user_attrs.setdefault("search", wanted.identity) != wanted.identity:
        raise InputError(
            f"{directory} holds another search: give the same options, or another folder by --out"
        )
    study.set_user_attr("search", wanted.identity)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The names that the dashboard shows.
        study.set_metric_names(list(wanted.objectives))
    return study


class Within:
    """The points that satisfy the budgets as far as counts tell, in a space small enough to be listed."""

    def __init__(self, wanted: Search) -> None:
        self._space, self._seed = space_of(wanted.spec), wanted.seed
        self.listed = self._space.size <= MAX_POINTS
        if not self.listed:
            self.size = self._space.size
            return
        self._points = open_points(self._space, None if wanted.where is None else condition(wanted.where))
        self.size = len(self._points)
        if self.size == 0:
            raise InputError(f"no legal point of this space satisfies {wanted.where or 'its axes'}")

    def baselines(self) -> list[DesignPoint]:
        """Their plain networks; of all points of the space where it is not listed."""
        return self._space.baselines(self._points if self.listed else None)

    def sample(self, count: int) -> list[DesignPoint]:
        """Some of them at random; none where they are not listed."""
        drawn = sample(self._points, count, self._seed).tolist() if self.listed else []
        return [self._space.point(index) for index in drawn]

    def another(self, known: Collection[Hashable]) -> DesignPoint:
        """One at random that is not among the functions in `known`, of which there are fewer."""
        order = random.Random(f"{self._seed} {len(known)}").sample(range(self.size), self.size)
        points = (self._space.point(int(self._points[index])) for index in order)
        return next(point for point in points if _function(point) not in known)


def _reported(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to something, in order; what was stopped counts when it is proposed again."""
    trials = study.trials
    again = {trial.user_attrs.get("again") for trial in trials}
    return [trial for trial in trials if "outcome" in trial.user_attrs and trial.number not in again]


def _standing(study: optuna.Study, wanted: Search) -> tuple[dict[Hashable, Values], int]:
    """What every point came to that was measured, and how many proposals since the last were in vain."""
    known: dict[Hashable, Values] = {}
    fruitless = 0
    for trial in _reported(study):
        fruitless += 1
        if trial.user_attrs["outcome"] == _MEASURED:
            function = _function(_point_of(trial, wanted))
            fruitless = fruitless if function in known else 0
            known.setdefault(function, trial.values)
    return known, fruitless


def _put_back(study: optuna.Study, wanted: Search) -> None:
    """Propose the point again that was under way when an earlier call was stopped.

    A trial whose point was not yet decided is given up: the next one draws the same.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _POINT in trial.user_attrs:
            attributes = {"first": trial.user_attrs.get("first"), "again": trial.number}
            study.enqueue_trial(encode(wanted.spec, _point_of(trial, wanted)), attributes)
        study.tell(trial.number, state=TrialState.FAIL)


def _propose_first(study: optuna.Study, wanted: Search, first: list[DesignPoint]) -> None:
    """Propose the next of the points that a search begins with: one at a time, which keeps their order."""
    proposed = {trial.user_attrs.get("first") for trial in _reported(study)}
    number = next((number for number in range(len(first)) if number not in proposed), None)
    if number is not None:
        study.enqueue_trial(encode(wanted.spec, first[number]), {"first": number})


def _point_of(trial: optuna.trial.FrozenTrial, wanted: Search) -> DesignPoint:
    """The point of a trial; `ValueError` if it is of none of the backbones that are searched.

    The study may come from anybody, and to count a network of one's own is to run its file: only those that
    the person names in this search are.
    """
    try:
        point = DesignPoint.from_dict(json.loads(trial.user_attrs[_POINT]))
    except InputError as error:
        raise ValueError(f"trial {trial.number}: {error}") from None
    if point.backbone not in {DesignPoint.of(name).backbone for name in wanted.spec.networks}:
        raise ValueError(f"trial {trial.number} is of '{shown(point.backbone)}', which is not searched")
    return point


def _sampler(wanted: Search, number: int) -> optuna.samplers.BaseSampler:
    """A sampler that draws the same for the same trial, whichever process asks: so a stop changes nothing."""
    import optuna

    seed = (wanted.seed * 1_000_003 + number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if wanted.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_POPULATION)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)


def _rejected(wanted: Search, point: DesignPoint) -> str | None:
    """Why `point` is not to be built; None if it may be."""
    try:
        counts = count(point, skeleton_of(point))
    except IllegalPointError as error:
        return str(error)
    if wanted.where is None:
        return None
    row = frame([Record("complexity", point, {}, value=counts._asdict())])
    return wanted.where if truth(row, condition(wanted.where)).fails.all() else None


def _function(point: DesignPoint) -> Hashable:
    return point.baseline(), function_of(point, skeleton_of(point))


def _measure(
    wanted: Search,
    point: DesignPoint,
    store: Store,
    threads: dict[DesignPoint, int],
    on_step: Callable[[Step], None],
) -> Values:
    """The objectives of `point`, measured; `threads` is told with how many its trainings ran."""
    spec = SweepSpec(
        points=(PointSpec.model_validate(point.to_dict()),),
        latency=wanted.spec.latency,
        train=wanted.spec.train,
        where=wanted.where,
    )
    planned = plan(spec, threads)
    keys = [measurement.key for measurement in planned.measurements]
    todo = remaining(planned, store.keys(keys))
    run(spec, todo, store, on_step, lambda record: threads.update(threads_before([record])))
    rows = frame(store.records(keys))
    if wanted.where is not None and truth(rows, condition(wanted.where)).fails.all():
        return None
    values = [numbers(rows, name)[0] for name in wanted.objectives]
    return None if None in values else [value for value in values if value is not None]


def _report_trial(study: optuna.Study, trial: optuna.Trial, reason: str | None, values: Values) -> None:
    from optuna.trial import TrialState

    if reason is not None:
        trial.set_user_attr("reason", reason)
    trial.set_user_attr("outcome", _MEASURED if reason is None else _REJECTED)
    if values is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, values)
