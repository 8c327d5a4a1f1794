from decimal import Decimal
from fractions import Fraction

import pytest

from wnexplore.design.published_figures import PublishedComparison, PublishedRow, published_rows
from wnexplore.design.shipped import shipped_sweeps
from wnexplore.design.sweep_file import load_sweep
from wnexplore.space.expansion import expand


def _row(params: str = "1.5", flops: str = "41") -> PublishedRow:
    figures = (Decimal(params), Decimal(flops), Decimal("36.7"))
    return PublishedRow("source", "shufflenet_v2_x0_5", "weightnet", 1, *figures)


def test_rows_keep_the_digits_that_were_printed() -> None:
    rows = published_rows()
    assert len(rows) == 14
    assert {str(row.params_m) for row in rows} >= {"1.4", "18.1"}
    assert [row.multiplier for row in rows[:3]] == [None, 1, 8]


def test_candidates_have_the_multiplier() -> None:
    for row in published_rows():
        for point in row.candidates():
            if row.multiplier is None:
                assert (point.M, point.G) == (None, None)
            else:
                assert isinstance(point.G, Fraction)
                assert point.M == row.multiplier * point.G


def test_agreement_is_to_the_digits_printed() -> None:
    (point, *_) = _row().candidates()
    assert PublishedComparison(_row(), point, 1_450_000, 41_499_999).params_agree
    assert PublishedComparison(_row(), point, 1_450_000, 41_499_999).flops_agree
    assert not PublishedComparison(_row(), point, 1_449_999, 41_500_000).params_agree
    assert not PublishedComparison(_row(), point, 1_449_999, 41_500_000).flops_agree
    assert PublishedComparison(_row("1.46"), point, 1_462_880, 40_704_040).params_agree


def test_counts_that_print_as_published_are_at_no_distance() -> None:
    (point, *_) = _row().candidates()
    assert PublishedComparison(_row(), point, 1_450_000, 41_500_000).distance == 0
    assert PublishedComparison(_row(), point, 1_700_000, 41_000_000).distance == pytest.approx(0.15 / 1.5)
    assert PublishedComparison(_row(), point, 1_500_000, 40_090_000).distance == pytest.approx(0.41 / 41)


def test_the_shipped_sweep_has_a_point_for_every_row() -> None:
    points = set(expand(load_sweep(shipped_sweeps()["published"])).points)
    for row in published_rows():
        assert points & set(row.candidates()), row
