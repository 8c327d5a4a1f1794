"""The record of a training: its protocol at the start, its figures at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wnexplore.design.point import DesignPoint
from wnexplore.design.protocol import TrainSpec
from wnexplore.design.vision_tasks import TASKS
from wnexplore.measure.torch_settings import PRECISION
from wnexplore.results.record import Record


@dataclass
class TrainingFigure:
    """The figures of a training so far."""

    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch, in nats."""
    tested_epochs: list[int] = field(default_factory=list)
    tested_scores: list[float] = field(default_factory=list)
    """Top-1 accuracy after those epochs, or a detector's average precision, in percent."""
    tested_loss: list[float | None] = field(default_factory=list)
    """Mean cross-entropy of the test images after those epochs, in nats.

    None where it was not finite, and from before a resumed training's version kept it.
    """
    test_images: int | None = None
    """Test images without damaged ones; None before the first test, and where an older version tested."""
    seconds: float = 0.0
    """Wall-clock time of the steps, without building, testing and saving."""
    damaged: tuple[str, ...] = ()
    """Paths of images that couldn't be read."""
    why_damaged: dict[str, str] = field(default_factory=dict)
    """The reason for each of them, where known."""
    skipped: int = 0
    """Skipped steps: damaged images left too few in the batch."""
    figures: dict[str, float | None] = field(default_factory=dict)
    """All figures of the last test by column, in percent; {} from a state of an older version."""

    @property
    def score(self) -> float:
        """The last of `tested_scores`."""
        return self.tested_scores[-1]

    @property
    def test_loss(self) -> float | None:
        """The last of `tested_loss`; None without any."""
        return self.tested_loss[-1] if self.tested_loss else None

    @property
    def best(self) -> float | None:
        """The largest of `tested_scores`; None before the first test."""
        return max(self.tested_scores, default=None)


def training_protocol(
    spec: TrainSpec, device: str, threads: int, seed: int, images: str | None = None
) -> dict[str, Any]:
    """The protocol of a training's record; `images` is the data set's `Data.listing`."""
    halving = {
        "schedule": spec.schedule,
        "min_epochs": spec.first_rung,
        "max_epochs": spec.max_epochs,
        "eta": spec.reduction,
        # Left out for what earlier versions ranked by, so that their records keep their keys.
        **({} if spec.ranked_by == "top1" else {"by": spec.ranked_by}),
    }
    return {
        "dataset": spec.source.label,
        "path": None if spec.source.path is None else str(spec.source.path.resolve()),
        **({} if images is None else {"images": images}),
        "device": device,
        # The order of additions, and with it the last bits, depends on the number of threads.
        "threads": threads if device == "cpu" else None,
        # Left out on a CPU, where there is no other value, so that older records keep their keys.
        **({} if device == "cpu" else {"precision": PRECISION}),
        **spec.recipe.identity,
        **(halving if spec.schedule == "halving" else {}),
        "seed": seed,
    }


def threads_before(records: Iterable[Record]) -> dict[DesignPoint, int]:
    """CPU threads of a run directory's trainings, by plain network, for resuming with as many."""
    plains: dict[DesignPoint, DesignPoint] = {}
    found = {}
    for record in records:
        if record.figure == "training" and record.protocol.get("threads") is not None:
            if record.point not in plains:
                plains[record.point] = record.point.baseline()
            found[plains[record.point]] = record.protocol["threads"]
    return found


def trained_record(
    record: Record,
    figure: TrainingFigure,
    environment: Mapping[str, Any],
    dropped_at: int | None = None,
) -> Record:
    """`record`, which holds the protocol, completed with the figures of its training.

    `dropped_at`: the epochs after which successive halving dropped it; None if it completed the recipe.
    """
    score = TASKS[record.point.task].score
    value = {
        score: figure.score,
        **figure.figures,
        "test_loss": figure.test_loss,
        "test_images": figure.test_images,
        "seconds": figure.seconds,
        "epochs": len(figure.losses),
        "dropped_at": dropped_at,
        "damaged": list(figure.damaged),
        "why_damaged": figure.why_damaged,
        "skipped": figure.skipped,
    }
    samples: dict[str, Any] = {
        "loss": figure.losses,
        "tested_epochs": [float(epoch) for epoch in figure.tested_epochs],
        f"tested_{score}": figure.tested_scores,
        "tested_loss": figure.tested_loss,
    }
    return replace(record, value=value, samples=samples, environment=environment)
