"""The tasks of networks: their usual number of classes, and the figures that a test of one gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task."""

    classes: int
    """By default: those of ImageNet, or of COCO."""
    score: str
    """The column by which networks are ranked, in percent; more is better."""
    others: tuple[str, ...] = ()
    """The columns of the test's other figures, in percent."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The columns of all its figures."""
        return (self.score, *self.others)


TASKS = {
    "classification": Task(1000, "top1"),
    # Lin et al., Microsoft COCO, ECCV 2014, as its evaluation has them today.
    "detection": Task(80, "ap", ("ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar")),
}
"""Name -> task."""
