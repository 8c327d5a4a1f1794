"""A search: Optuna proposes points, those over budget by closed-form counts are rejected, the rest measured.

With the latencies of a run, those over budget or off the front by their predicted latencies are not timed.

Records go to the store of a run directory like a sweep's, next to Optuna's study. No measurement is repeated:
a stopped search proposes the current point again and finds its records.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wnexplore.design.axes import TIMING_AXES
from wnexplore.design.counts import count
from wnexplore.design.latency_protocol import latency_protocols
from wnexplore.design.legality import IllegalPointError
from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import BEFORE, TrainSpec
from wnexplore.design.sweep_file import PointSpec, SweepSpec, written_before
from wnexplore.errors import InputError, Notice, RunError, shown, unknown
from wnexplore.results.columns import COLUMNS, LATENCY_PROTOCOL, TRAINING_PROTOCOL, direction
from wnexplore.results.filters import condition, truth
from wnexplore.results.frame import frame, numbers
from wnexplore.results.record import Record
from wnexplore.results.store import Store
from wnexplore.space.expansion import space_of
from wnexplore.space.prediction import LATENCY_COLUMNS, PREDICTED, Calibration
from wnexplore.space.selection import COUNTED
from wnexplore.space.skeleton_cache import skeleton_of
from wnexplore.study.executor import LendExecutor
from wnexplore.study.foreseen import Foreseen, Within, network_function, off_front
from wnexplore.study.hardware import HERE, Hardware
from wnexplore.study.local import locally
from wnexplore.study.optuna_storage import STUDY, storage, translate_damage, translate_study_errors
from wnexplore.study.proposals import decode, encode
from wnexplore.study.sweep import SweepStep, check_can_begin, plan, remaining, run
from wnexplore.training.training_record import threads_before

if TYPE_CHECKING:
    import optuna
    import pandas as pd

SAMPLERS = ("nsga2", "tpe")
"""Optuna's NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 2002) and tree-structured Parzen estimator."""
POPULATION = 20
"""Points that are drawn at random first, and those of a generation of NSGA-II."""

Values = list[float] | None
"""The objectives of a point; None if it failed, or broke a budget when measured."""


@dataclass(frozen=True)
class Search:
    """The definition of a search."""

    spec: SweepSpec
    """The axes to search, and how figures are measured."""
    objectives: tuple[str, ...]
    """Columns to optimise, each with a better direction."""
    budgets: tuple[str, ...] = ()
    """Conditions that a point must satisfy, in addition to the `where` of `spec`."""
    trials: int = 60
    """The number of distinct points to measure."""
    sampler: str = "nsga2"
    seed: int = 0
    timed: Sequence[Calibration] = ()
    """The latencies of a run, by protocol, from which those of points are predicted before they are built."""
    hardware: Hardware = HERE
    at_once: int = 1
    """Points that are measured side by side; the sampler proposes them without knowing of each other."""

    @cached_property
    def calibration(self) -> Calibration | None:
        """Those of `timed` under the protocol of this search; `InputError` if there are none."""
        if not self.timed:
            return None
        if self.spec.latency is None:
            raise InputError("latencies are predicted for the protocol of the search: leave out --no-latency")
        device = self.hardware.resolve(self.spec.latency.device)
        (protocol,) = latency_protocols(self.spec.latency, self.hardware.timing(device))
        wanted = {name: protocol[name] for name in LATENCY_PROTOCOL}
        for found in self.timed:
            if found.protocol == wanted:
                return found
        nearest = min(self.timed, key=lambda one: sum(one.protocol[name] != wanted[name] for name in wanted))
        differs = ", ".join(
            f"{name} {nearest.protocol[name]}, not {value}"
            for name, value in wanted.items()
            if nearest.protocol[name] != value
        )
        raise InputError(f"{nearest.run} has no latencies under the protocol of this search: {differs}")

    @cached_property
    def where(self) -> str | None:
        """All budgets as one condition."""
        texts = [text for text in (self.spec.where, *self.budgets) if text is not None]
        for text in texts:
            condition(text)
        return " and ".join(f"({text})" for text in texts) or None

    @property
    def foreseen(self) -> bool:
        """Whether all objectives are known before a point is built, latencies within their intervals."""
        return self._weighs_latency and set(self.objectives) <= {*COUNTED, *PREDICTED}

    @property
    def times_last(self) -> bool:
        """Whether points are trained first, and timed if they may be Pareto-optimal."""
        return self._weighs_latency and any(COLUMNS[n].within == TRAINING_PROTOCOL for n in self.objectives)

    def expected(self, point: DesignPoint) -> dict[str, float | None] | None:
        """The predicted latencies of a point that is trained before it is timed; None for others.

        Others may break a budget by their latency, or have no prediction.
        """
        if self.calibration is None or not self.times_last:
            return None
        foreseen = Foreseen(self.calibration, point)
        budgets = None if self.where is None else condition(self.where)
        timed = budgets is not None and not budgets.names.isdisjoint(LATENCY_COLUMNS)
        if budgets is not None and timed and not foreseen.truth(budgets).holds.all():
            return None
        return foreseen.latencies

    @property
    def _weighs_latency(self) -> bool:
        """Whether one of the objectives is a latency that is predicted."""
        return self.calibration is not None and not set(self.objectives).isdisjoint(PREDICTED)

    @cached_property
    def within(self) -> Within:
        """The points to choose from; `InputError` if no legal one satisfies the budgets."""
        where = None if self.where is None else condition(self.where)
        foreseen = self.objectives if self.foreseen else ()
        within = Within(space_of(self.spec), where, self.calibration, foreseen, self.seed)
        if within.size == 0:
            raise InputError(f"no legal point of this space satisfies {self.where or 'its axes'}")
        return within

    def check(self) -> None:
        """Raise `InputError` if this can't be searched."""
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if self.spec.points is not None:
            raise InputError("a search needs axes, and this sweep lists its points")
        if not self.objectives:
            raise InputError("a search needs an objective, such as --objectives top1,latency_ms")
        if self.spec.train is not None and self.spec.train.schedule != "full":
            raise InputError(
                "a search compares points by trainings of one length: leave 'schedule: halving' out"
            )
        if self.spec.train is not None and self.spec.train.target is not None:
            raise InputError("a search compares points by as many seeds each: leave train.target out")
        for name in self.objectives:
            direction(name)
            trained = COLUMNS[name].within == TRAINING_PROTOCOL
            if trained and self.spec.train is None:
                raise InputError(f"objective '{name}' needs a training: add --train")
            if trained and self.spec.train is not None:
                _check_given(name, self.spec.train)
            if COLUMNS[name].within and not trained and self.spec.latency is None:
                raise InputError(f"objective '{name}' needs the latency measured: leave out --no-latency")
        for name in (axis.sweep_key for axis in TIMING_AXES.values() if axis.listed):
            values = getattr(self.spec.latency, name, None) or ()
            if len(values) > 1:
                raise InputError(f"latency has {len(values)} {name}: a search compares points by one of them")
        if find_spec("optuna") is None:
            raise InputError('search needs Optuna: pip install "wnexplore[search]"')
        if self.calibration is not None and self.where is None and not self._weighs_latency:
            raise InputError(
                "predicted latencies reject points that break a budget or are certainly off the front: give a"
                " --budget, or an objective such as latency_ms"
            )
        # Otherwise the first trials would find out, after the directory is created.
        check_can_begin(self.spec, self.within.baselines(), self.hardware)

    @property
    def identity(self) -> str:
        """The identity of a search: everything except the number of trials."""
        parts = [_as_text(self.spec), self.objectives, self.where, self.sampler, self.seed]
        # Which points are rejected depends on them.
        return json.dumps([*parts, *(one.run for one in self.timed[:1])])

    def going_on(self, identity: str) -> Search | None:
        """This search as it was begun, if its `identity` then was this, perhaps an earlier version's.

        None if it was another one. What that version didn't know is as it was then, unless this search sets
        it otherwise.
        """
        if identity == self.identity:
            return self
        try:
            text, *others = json.loads(identity)
            begun, lacking = written_before(text)
        except (InputError, ValueError, TypeError):
            return None
        if others != json.loads(self.identity)[1:]:
            return None
        wanted, train = self, self.spec.train
        if train is not None:
            unsaid = {name: BEFORE[name] for name in lacking - train.model_fields_set}
            spec = self.spec.model_copy(update={"train": train.model_copy(update=unsaid)})
            wanted = replace(self, spec=spec)
        return wanted if _as_text(wanted.spec) == _as_text(begun) else None


def _check_given(name: str, train: TrainSpec) -> None:
    """Raise `InputError` unless each training gives the figure `name`."""
    given = {"top1", "test_loss"}
    if train.source.task == "detection":
        # Data may lack objects of one size.
        given = {"ap", "ap50", "ap75", "ar"}
    figure = name.partition("_diff")[0]
    if figure not in given:
        raise InputError(
            f"objective '{name}' isn't what every training on '{shown(train.source.label)}' gives: choose"
            f" from {', '.join(sorted(given))}"
        )


def _as_text(spec: SweepSpec) -> str:
    # How many train at once is not part of a search's identity.
    train = None if spec.train is None else spec.train.model_copy(update={"jobs": 1})
    return spec.model_copy(update={"train": train}).to_yaml()


@dataclass(frozen=True)
class SearchOutcome:
    """The state of a search when it ends."""

    points: int
    """Distinct points measured, including those before this call."""
    rejected: int
    """Proposals rejected before anything was built, as illegal, over budget or certainly off the front."""
    untimed: int
    """Points that were trained and, being certainly off the front by their predicted latencies, not timed."""
    exhausted: bool
    """Whether no further point satisfies the budgets, and may be on the front where all is predicted."""
    spec: SweepSpec
    """As it was searched: a search that an earlier version began goes on as it did."""


def search(
    wanted: Search,
    store: Store,
    on_step: Callable[[int, SweepStep], None] = lambda number, step: None,
    *,
    population: int = POPULATION,
    lend: LendExecutor | None = None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> SearchOutcome:
    """Measure points until there are `wanted.trials` distinct ones, including those of earlier calls.

    `on_step` is called with the number of the point, from 1, and the progress of its measurement.
    `population` points are drawn before the sampler proposes any; `lend` and `on_record`: as `run`. Raises
    `InputError` if the store's directory holds another search or no point satisfies the budgets, and
    `RunError` if the sampler stops proposing new points.
    """
    wanted.check()
    with translate_study_errors(store.path.parent / STUDY):
        return _search(wanted, store, on_step, population, lend, on_record)


def _search(
    wanted: Search,
    store: Store,
    on_step: Callable[[int, SweepStep], None],
    population: int,
    lend: LendExecutor | None,
    on_record: Callable[[Record], None],
) -> SearchOutcome:
    from optuna.trial import TrialState

    reading = partial(translate_damage, store.path.parent / STUDY)
    with reading():
        study, wanted = _study(wanted, store.path.parent)
    within = wanted.within
    first = within.sample(min(population, wanted.trials))
    with reading():
        _put_back(study, wanted)
        known, fruitless = _standing(study, wanted)
    untimed: set[Hashable] = set()
    # Once, before anything is measured: reports damaged records.
    threads = threads_before(store.records())

    def ahead() -> int:
        """Trainings of the points after the present one."""
        seeds = 0 if wanted.spec.train is None else wanted.spec.train.seeds
        return (min(within.size, wanted.trials) - len(known) - 1) * seeds

    with nullcontext(lend) if lend is not None else locally(ahead) as lent:
        while len(known) < min(within.size, wanted.trials):
            most = min(wanted.at_once, population, min(within.size, wanted.trials) - len(known))
            asked: list[_Asked] = []
            while len({one.function for one in asked}) < most and fruitless < _MAX_FRUITLESS:
                with reading():
                    if not study.get_trials(states=(TrialState.WAITING,)):
                        _propose_first(study, wanted, first, asked)
                        if fruitless == _PATIENCE and within.listed:
                            others = known.keys() | {one.function for one in asked}
                            study.enqueue_trial(encode(wanted.spec, within.another(others)))
                    study.sampler = _sampler(wanted, len(_reported(study)) + len(asked), population)
                    trial = study.ask()
                    point = decode(wanted.spec, trial)
                    trial.set_user_attr(_POINT, json.dumps(point.to_dict()))
                reason = _rejected(wanted, point)
                function = None if reason else network_function(point)
                if function is None or function in known:
                    fruitless += 1
                    with reading():
                        _report_trial(study, trial, reason, None if function is None else known[function])
                    continue
                fruitless = fruitless + 1 if any(one.function == function for one in asked) else 0
                asked.append(_Asked(trial, point, function))
            if not asked:
                raise RunError(
                    f"{fruitless} proposals in a row were known or over budget; {len(known)} of"
                    f" {wanted.trials} points are measured and kept: try another seed, wider budgets or more"
                    " values of an axis"
                )
            points = {one.function: one.point for one in reversed(asked)}
            rivals = [values for values in known.values() if values is not None]
            measured = _measure(
                wanted, list(points.values()), store, rivals, threads, on_step, lent, len(known), on_record
            )
            for function, (values, timed) in zip(points, measured, strict=True):
                known[function] = values
                untimed |= set() if timed else {function}
            for one in asked:
                if one.function in untimed:
                    one.trial.set_user_attr(_UNTIMED, True)
                with reading():
                    _report_trial(study, one.trial, None, known[one.function])
    with reading():
        trials = _reported(study)
    rejected = sum(trial.user_attrs["outcome"] == _REJECTED for trial in trials)
    left_out = sum(_UNTIMED in trial.user_attrs for trial in trials)
    return SearchOutcome(len(known), rejected, left_out, len(known) < wanted.trials, wanted.spec)


@dataclass(frozen=True)
class _Asked:
    """A proposal that is to be measured."""

    trial: optuna.Trial
    point: DesignPoint
    function: Hashable


_POINT = "point"
_REJECTED, _MEASURED = "thrown out", "measured"
_UNTIMED = "untimed"
_PATIENCE = 10
"""Fruitless proposals after which an unknown point is drawn at random, where points are listed."""
_MAX_FRUITLESS = 2000


def _study(wanted: Search, directory: Path) -> tuple[optuna.Study, Search]:
    """The study of `directory`, and the search as it was begun there."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    better: dict[str, Literal["minimize", "maximize"]] = {"smaller": "minimize", "larger": "maximize"}
    study = optuna.create_study(
        study_name="wnexplore",
        storage=storage(directory),
        directions=[better[direction(name)] for name in wanted.objectives],
        load_if_exists=True,
    )
    identity = study.user_attrs.get("search")
    if identity is None:
        study.set_user_attr("search", wanted.identity)
    begun = wanted if identity is None else wanted.going_on(str(identity))
    if begun is None:
        raise InputError(
            f"{directory} holds another search: give the same options, or another folder by --out"
        )
    if begun.spec != wanted.spec:
        before, now = (s.train.recipe.model_dump() for s in (begun.spec, wanted.spec) if s.train is not None)
        changed = ", ".join(f"{name} {before[name]}" for name in before if before[name] != now[name])
        warnings.warn(
            f"an earlier version began the search in {directory}, which goes on as it did: {changed}",
            Notice,
            stacklevel=1,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Names shown by the dashboard.
        study.set_metric_names(list(wanted.objectives))
    return study, begun


def _reported(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The finished trials, in order; stopped trials are proposed again."""
    trials = study.trials
    again = {trial.user_attrs.get("again") for trial in trials}
    return [trial for trial in trials if "outcome" in trial.user_attrs and trial.number not in again]


def _standing(study: optuna.Study, wanted: Search) -> tuple[dict[Hashable, Values], int]:
    """The objectives of every measured point, and the number of fruitless proposals since the last one."""
    known: dict[Hashable, Values] = {}
    fruitless = 0
    for trial in _reported(study):
        fruitless += 1
        if trial.user_attrs["outcome"] == _MEASURED:
            function = network_function(_point_of(trial, wanted))
            fruitless = fruitless if function in known else 0
            known.setdefault(function, trial.values)
    return known, fruitless


def _put_back(study: optuna.Study, wanted: Search) -> None:
    """Propose the point again that was being measured when an earlier call was stopped.

    A trial without a complete point is abandoned: the next one draws the same.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _POINT in trial.user_attrs:
            attributes = {"first": trial.user_attrs.get("first"), "again": trial.number}
            study.enqueue_trial(encode(wanted.spec, _point_of(trial, wanted)), attributes)
        study.tell(trial.number, state=TrialState.FAIL)


def _propose_first(
    study: optuna.Study, wanted: Search, first: list[DesignPoint], asked: Sequence[_Asked]
) -> None:
    """Propose the next of the initial points: one at a time, which keeps their order."""
    proposed = {trial.user_attrs.get("first") for trial in _reported(study)}
    proposed |= {one.trial.user_attrs.get("first") for one in asked}
    number = next((number for number in range(len(first)) if number not in proposed), None)
    if number is not None:
        study.enqueue_trial(encode(wanted.spec, first[number]), {"first": number})


def _point_of(trial: optuna.trial.FrozenTrial, wanted: Search) -> DesignPoint:
    """The point of a trial; `ValueError` if its backbone is not searched.

    The study is untrusted, and counting a file's network runs the file: only backbones named in this search
    are allowed.
    """
    try:
        point = DesignPoint.from_dict(json.loads(trial.user_attrs[_POINT]))
    except InputError as error:
        raise ValueError(f"trial {trial.number}: {error}") from None
    if point.backbone not in {DesignPoint.of(name).backbone for name in wanted.spec.networks}:
        raise ValueError(
            f"trial {trial.number} has backbone '{shown(point.backbone)}', which is not searched"
        )
    return point


def _sampler(wanted: Search, number: int, population: int) -> optuna.samplers.BaseSampler:
    """A sampler that depends only on the trial number, so that stopping and resuming changes nothing."""
    import optuna

    seed = (wanted.seed * 1_000_003 + number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if wanted.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=population)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)


def _rejected(wanted: Search, point: DesignPoint) -> str | None:
    """Why `point` is rejected before it is built; None if it isn't."""
    try:
        counts = count(point, skeleton_of(point))
    except IllegalPointError as error:
        return str(error)
    where = None if wanted.where is None else condition(wanted.where)
    if wanted.calibration is not None:
        foreseen = Foreseen(wanted.calibration, point)
        if where is not None and foreseen.truth(where).fails.all():
            return wanted.where
        near = wanted.within.near
        better = near is not None and not foreseen.near(near)
        return f"another point is certainly better in {', '.join(wanted.objectives)}" if better else None
    row = frame([Record("complexity", point, {}, value=counts._asdict())])
    return wanted.where if where is not None and truth(row, where).fails.all() else None


def _measure(
    wanted: Search,
    points: Sequence[DesignPoint],
    store: Store,
    rivals: Sequence[list[float]],
    threads: dict[DesignPoint, int],
    on_step: Callable[[int, SweepStep], None],
    lend: LendExecutor,
    before: int,
    on_record: Callable[[Record], None],
) -> list[tuple[Values, bool]]:
    """The objectives of each of `points`, measured, and whether it was timed where that is asked.

    `rivals` are the objectives of the points `before`; `threads` records the number of threads of trainings.
    """
    spec = SweepSpec(
        points=tuple(PointSpec.model_validate(point.to_dict()) for point in points),
        latency=wanted.spec.latency,
        train=wanted.spec.train,
        where=wanted.where,
    )
    planned = plan(spec, threads, wanted.hardware, check_starts=False)
    keys = {point: [m.key for m in planned.measurements if m.point == point] for point in planned.points}
    _check_complete(wanted, store, (key for of_point in keys.values() for key in of_point))
    number = {point: at for at, point in enumerate(points, start=before + 1)}

    def noted(record: Record) -> None:
        threads.update(threads_before([record]))
        on_record(record)

    def measure(some: Collection[DesignPoint], figures: Collection[str]) -> None:
        every = remaining(planned, store.keys(key for point in some for key in keys[point]))
        todo = [m for m in every if m.figure in figures and m.point in some]
        run(
            spec,
            todo,
            store,
            lambda step: on_step(number[step.measurement.point], step),
            noted,
            lend=lend,
        )

    expected = {point: at for point in points if (at := wanted.expected(point)) is not None}
    found: dict[DesignPoint, tuple[Values, bool]] = {}
    measure([point for point in points if point not in expected], ("complexity", "latency", "training"))
    measure(list(expected), ("complexity", "training"))
    for point, latencies in expected.items():
        values = off_front(wanted.objectives, frame(store.records(keys[point])), latencies, rivals)
        if values is not None:
            found[point] = values, False
    measure([point for point in expected if point not in found], ("complexity", "latency", "training"))
    for point in points:
        if point not in found:
            found[point] = _objectives(wanted, frame(store.records(keys[point]))), True
    return [found[point] for point in points]


def _objectives(wanted: Search, rows: pd.DataFrame) -> Values:
    """Those of a point by its `rows`."""
    if wanted.where is not None and truth(rows, condition(wanted.where)).fails.all():
        return None
    found = [numbers(rows, name)[0] for name in wanted.objectives]
    return None if None in found else [value for value in found if value is not None]


def _check_complete(wanted: Search, store: Store, keys: Iterable[str]) -> None:
    """Raise `InputError` if a training with one of `keys` is from before an objective's figure was kept."""
    # Older records have a top-1; a detector's lack what there is no object for.
    names = {"test_loss"} & set(wanted.objectives)
    for record in store.records(keys) if names else ():
        for name in names if record.figure == "training" and record.status == "ok" else ():
            if record.value.get(name) is None:
                raise InputError(
                    f"{record.point} was trained here by an earlier version, which did not keep {name}: give"
                    " another folder by --out"
                )


def _report_trial(study: optuna.Study, trial: optuna.Trial, reason: str | None, values: Values) -> None:
    from optuna.trial import TrialState

    if reason is not None:
        trial.set_user_attr("reason", reason)
    trial.set_user_attr("outcome", _MEASURED if reason is None else _REJECTED)
    if values is None:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, values)
