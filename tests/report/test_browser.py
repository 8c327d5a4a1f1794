"""The page of a run in a real browser, by mouse and by keyboard."""

from __future__ import annotations

import csv
import importlib.resources
import io
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import pandas as pd
import pytest

from tests.report.pages import (
    IN_BROWSER,
    brush,
    column,
    drawn_again,
    key_of,
    opened,
    sampled,
    shown,
    small_run,
    write_page,
    write_run,
)
from tests.results.records import sweep
from wnexplore.cli.report import known_skeleton
from wnexplore.design.multiplier import parse_setting
from wnexplore.design.where import Sign, compare
from wnexplore.errors import InputError
from wnexplore.report.export import export
from wnexplore.report.layout import layout
from wnexplore.report.page_data import PageRun, page_data, page_details
from wnexplore.report.page_file import page_file
from wnexplore.report.page_rows import column_dicts
from wnexplore.results import filters
from wnexplore.results.columns import COLUMNS, difference, direction, with_interval
from wnexplore.results.frame import cells, frame
from wnexplore.results.fronts import pareto_rows
from wnexplore.results.pareto import pareto

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return frame(sampled(sweep()))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    return write_page(folder / "page.html", small_run(folder / "run")).as_uri()


@pytest.fixture(scope="module")
def point(address: str) -> str:
    """The fragment that opens a point."""
    return f"#point={key_of(Path(address.removeprefix('file://')), 3)}"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as found:
        yield found


def scripts(browser: Browser, *names: str) -> Page:
    """A blank page with some of the page's scripts, whose functions can be called."""
    blank = browser.new_page()
    folder = importlib.resources.files("wnexplore.report") / "page"
    for name in names:
        blank.add_script_tag(content=(folder / name).read_text(encoding="utf-8"))
    return blank


def test_numbers_are_those_of_the_terminals_table(page: Page, rows: pd.DataFrame) -> None:
    expected = layout(rows)
    headings = ["params", "FLOPs", "latency (ms)", "×plain", "top-1 (%)", "Δ top-1 (points)"]
    for heading in headings:
        at = expected.headings.index(heading)
        assert column(page, heading) == [row[at] for row in expected.rows]
    starred = [text.count("★") for text in column(page, "Point")]
    assert starred == [int(optimal) for optimal in pareto_rows(rows)]
    assert f"{len(rows)} rows of {len(rows)}" in page.inner_text("#shown")


@pytest.mark.parametrize("width", [1600, 1280, 360])
def test_plots_are_as_wide_as_their_places(browser: Browser, address: str, point: str, width: int) -> None:
    with opened(browser, address + point, viewport={"width": width, "height": 900}) as page:
        page.wait_for_selector("#point figure svg")
        found = page.eval_on_selector_all(
            "figure",
            "all => all.map(f => [f.clientWidth, f.querySelector('svg').getBoundingClientRect().width])",
        )
        assert len(found) >= 7
        assert all(0.9 * place < plot <= place for place, plot in found)


def test_its_csv_is_that_of_export(page: Page, rows: pd.DataFrame) -> None:
    drawn_again(page, lambda: page.check("#all-columns"))
    with page.expect_download() as waiting:
        page.click("#csv")
    ours = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
    text = export(rows, "csv")
    assert isinstance(text, str)
    theirs = list(csv.DictReader(io.StringIO(text)))
    assert len(ours) == len(theirs)
    for name in ours[0]:
        for mine, other in zip(ours, theirs, strict=True):
            same = mine[name] == other[name]
            assert same or float(mine[name]) == float(other[name])
    assert {"latency_ms_low", "top1_diff_high", "params"} <= set(ours[0])


def test_it_sorts(page: Page, rows: pd.DataFrame) -> None:
    drawn_again(page, lambda: page.click("button[data-column=top1]"))
    assert page.get_attribute("th:has(button[data-column=top1])", "aria-sort") == "descending"
    expected = cells(filters.sort(rows, "-top1"), "top1")
    assert [float(text.split()[0]) for text in column(page, "top-1 (%)") if text] == [
        pytest.approx(value, abs=0.06) for value in expected if value is not None
    ]
    drawn_again(page, lambda: page.click("button[data-column=top1]"))
    assert page.get_attribute("th:has(button[data-column=top1])", "aria-sort") == "ascending"
    drawn_again(page, lambda: page.go_back())
    assert page.get_attribute("th:has(button[data-column=top1])", "aria-sort") == "descending"


def test_it_filters_by_the_words_of_where(page: Page, rows: pd.DataFrame) -> None:
    text = "method in [se, weightnet] and M != 2 and batch_size == 1"
    page.fill("#where", text)
    drawn_again(page, lambda: page.press("#where", "Enter"))
    expected = filters.where(rows, text)
    assert len(shown(page)) == len(expected) > 0
    assert quote("M !=", safe="") in page.url.replace("+", "%20")
    page.fill("#where", "metod == se")
    drawn_again(page, lambda: page.press("#where", "Enter"))
    assert "method" in page.inner_text("#where-problem")
    assert page.get_attribute("#where", "aria-invalid") == "true"
    drawn_again(page, lambda: page.click("#reset"))
    assert len(shown(page)) == len(rows)
    assert page.inner_text("#where-problem") == ""


def test_a_view_can_be_sent(browser: Browser, address: str, rows: pd.DataFrame) -> None:
    fragment = "#where=batch_size%20%3D%3D%2016&sort=-params&x=params&y=latency_ms"
    with opened(browser, address + fragment) as page:
        assert len(shown(page)) == len(filters.where(rows, "batch_size == 16"))
        assert page.input_value("#where") == "batch_size == 16"
        assert page.get_attribute("#free figure", "data-pair") == "params,latency_ms"
        assert page.get_attribute("th:has(button[data-column=params])", "aria-sort") == "descending"


def test_a_brush_in_one_plot_selects_everywhere(page: Page) -> None:
    before = len(shown(page))
    brush(page, 0, 0.25, 0.6)
    page.wait_for_function("() => location.hash.includes('in.flops')")
    page.wait_for_timeout(500)
    assert "in.top1" in page.url
    assert "in the selection" in page.inner_text("#shown")
    assert 0 < len(shown(page)) < before
    assert page.input_value("#range-flops-0") != ""
    drawn_again(page, lambda: page.click("#reset"))
    assert len(shown(page)) == before


def test_the_same_selection_by_keyboard(page: Page, rows: pd.DataFrame) -> None:
    page.focus("#range-flops-1")
    page.keyboard.type("50000000")
    drawn_again(page, lambda: page.keyboard.press("Tab"))
    assert len(shown(page)) == len(filters.where(rows, "flops <= 50M"))


def test_a_budget_by_keyboard(page: Page, rows: pd.DataFrame) -> None:
    page.focus("#budget-params")
    drawn_again(page, lambda: page.keyboard.press("Home"))
    least = min(value for value in cells(rows, "params") if value is not None)
    assert len(shown(page)) == len(filters.where(rows, f"params <= {least * 1.001}"))


def test_a_point_opens_and_closes_by_keyboard(page: Page, rows: pd.DataFrame) -> None:
    button = page.locator("#table tbody tr:has-text('weightnet') th button").first
    title = button.inner_text()
    button.focus()
    drawn_again(page, lambda: page.keyboard.press("Enter"))
    page.wait_for_selector("#point:not([hidden]) pre")
    assert page.evaluate("document.activeElement.id") == "point"
    details = page.inner_text("#point")
    assert 'wnexplore.build("shufflenet_v2_x0_5", "weightnet", M=1, G=1' in details
    assert "wnexplore profile --backbone=shufflenet_v2_x0_5" in details
    assert "120 rounds" in details
    assert "2.14.1" in (page.locator("#point details").last.text_content() or "")
    page.wait_for_selector("#point figure svg")
    assert page.locator("#stages tbody tr").count() == 5
    page.focus("#close-point")
    drawn_again(page, lambda: page.keyboard.press("Enter"))
    assert page.is_hidden("#point")
    assert page.evaluate("document.activeElement.innerText") == title
    drawn_again(page, lambda: page.go_back())
    page.wait_for_selector("#point:not([hidden])")


def test_a_click_on_a_point_opens_it(page: Page) -> None:
    page.locator("#headline figure svg .mark-symbol path").first.click(force=True)
    page.wait_for_selector("#point:not([hidden]) pre")


def test_lines_are_copied(browser: Browser, address: str, point: str) -> None:
    with opened(browser, address + point, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.wait_for_selector("#point:not([hidden]) pre")
        page.click("#point button[data-copy]")
        page.wait_for_selector("#point button:has-text('Copied')")
        assert page.evaluate("navigator.clipboard.readText()").startswith("wnexplore.build(")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 640, 360])
def test_axe_finds_nothing(browser: Browser, address: str, point: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    look: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with opened(browser, address + point, **look) as page:
        page.wait_for_selector("#point figure svg")
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [node["html"][:100] for node in v["nodes"]][:3]) for v in found] == []
        # Nothing but tables in boxes of their own is wider than the page.
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_all_that_is_on_it(page: Page) -> None:
    page.emulate_media(media="print")
    assert page.is_hidden("#choose")
    assert page.is_visible("#table")
    assert page.locator("#headline figure").count() == 3
    assert page.pdf(format="A4").startswith(b"%PDF")
    box = page.locator("#table").bounding_box()
    assert box is not None


def test_predicted_points_are_hollow(browser: Browser, tmp_path: Path) -> None:
    records = [record for record in sampled(sweep()) if record.figure != "training"]
    measured = frame(records)
    fitted = measured.iloc[[1, 2]].assign(latency_is="predicted", latency_ms=3.5)
    run = PageRun("run", records, pd.concat([measured, fitted], ignore_index=True), None)
    path = tmp_path / "page.html"
    path.write_bytes(page_file("run", page_data([run]), page_details([run], known_skeleton)))
    with opened(browser, f"{path.as_uri()}#where=latency_is+%3D%3D+predicted") as page:
        assert [text.count("○") for text in column(page, "Point")] == [1, 1]
        fills = page.eval_on_selector_all(
            "#headline figure .mark-symbol.role-mark path[stroke-width='1.5']",
            "all => all.map(p => p.getAttribute('fill'))",
        )
        assert fills
        assert set(fills) <= {"transparent", None, "none"}


def test_two_runs(browser: Browser, tmp_path: Path) -> None:
    one, other = small_run(tmp_path / "a"), write_run(tmp_path / "b", sampled(sweep())[:-6])
    address = write_page(tmp_path / "page.html", one, other).as_uri()
    with opened(browser, address) as page:
        assert page.is_visible("#compare")
        assert {"a", "b"} == set(column(page, "run"))
        assert "only in A" in page.inner_text("#compare")


def test_hostile_texts_are_shown(browser: Browser, tmp_path: Path) -> None:
    name = "<script>alert(1)</script><b>'\"&amp;"
    records = [
        replace(r, protocol={**r.protocol, "dataset": name}) if r.figure == "training" else r for r in sweep()
    ]
    records = [
        replace(r, protocol={**r.protocol, "device_name": name}) if r.figure == "latency" else r
        for r in records
    ]
    path = write_page(tmp_path / "page.html", write_run(tmp_path / "run", sampled(records)))
    with opened(browser, f"{path.as_uri()}#all=1&color=dataset&point={key_of(path, 1)}") as page:
        page.wait_for_selector("#point:not([hidden]) pre")
        assert column(page, "dataset")[0] == name
        assert name in page.inner_text("#swept")
        assert name in page.inner_text("#point")
        assert page.locator("b").count() == 0


CONDITIONS = (
    "params < 2.5M and flops >= 40.7M",
    "latency_ratio < 1.5 or top1 > 88.05",
    "not (method == weightnet) and batch_size == 16",
    "M in [1, 4] and G != 2",
    "1 < M <= 4",
    "M / 2 == 1",
    "M == '2' or M == \" 4\"",
    "M == 1/2 or M == 8/2",
    "method not in [plain, 'se']",
    "top1_diff_low > 0",
    "latency_ms_low < latency_ms",
    "status == failed or error == 'nothing'",
    "params < 1e6k and params > -3",
    "latency_ms = 3",
    "latency_ms < fast",
    "latency_ms",
    "(((params < 3M)",
    "method < se",
    "params < 1/0",
    "'a' == 'b'",
    "device_name == 'AMD EPYC 7B13'",
    "top1 == 91.2 or top1 >= 8.7e1",
)


def test_conditions_mean_what_they_do_in_python(browser: Browser, rows: pd.DataFrame) -> None:
    blank = scripts(browser, "where.js")
    table = {name: [None if c is None else c for c in _plain(rows, name)] for name in COLUMNS}
    blank.evaluate(
        """([columns, table]) => {
          window.known = new Map(columns.map((column) => [column.name, column]));
          const count = Object.values(table)[0].length;
          window.rows = Array.from({length: count}, (_, at) =>
            Object.fromEntries(Object.entries(table).map(([name, cells]) => [name, cells[at]])));
        }""",
        [column_dicts(), table],
    )
    held = 0
    for text in CONDITIONS:
        found = blank.evaluate(
            """(text) => {
              try { return rows.map(parseWhere(text, known)); }
              catch (error) { if (error instanceof WhereError) return error.message; throw error; }
            }""",
            text,
        )
        try:
            truth = filters.truth(rows, filters.condition(text))
        except InputError as error:
            assert isinstance(found, str), text
            place = str(error).partition(":")[0]
            assert place.startswith("filter") == found.startswith("filter")
            assert not place.startswith("filter") or found.partition(":")[0] == place
            continue
        expected = [
            True if h else False if f else None for h, f in zip(truth.holds, truth.fails, strict=True)
        ]
        assert found == expected, text
        held += 1
    assert held > 12


def _plain(rows: pd.DataFrame, name: str) -> list[Any]:
    values = cells(rows, name)
    if COLUMNS[name].kind in ("text", "multiplier"):
        return [None if value is None else str(value) for value in values]
    return [None if value is None else float(value) for value in values]


def test_settings_by_stage_compare_as_in_python(browser: Browser) -> None:
    blank = scripts(browser, "where.js")
    texts = [
        "1",
        "2",
        "1/2",
        "0.5",
        "4/C",
        "8/C",
        "2:1+3:2",
        "2:2+3:2",
        "2:1+3:4/C",
        "3:2",
        "3:2+head:1",
        "pyramid:4",
    ]
    for text in texts:
        assert blank.evaluate("canonical", text) == str(parse_setting(text, "M"))
    for left in texts:
        for right in texts:
            for sign in get_args(Sign):
                a, b = (parse_setting(text, "M") for text in (left, right))
                found = blank.evaluate(
                    "([a, s, b]) => byStage(setting(a), s, setting(b))", [left, sign, right]
                )
                assert found == compare(a, sign, b), (left, sign, right)


def test_fronts_are_those_of_python(browser: Browser) -> None:
    blank = scripts(browser, "front.js")
    described = {column["name"]: column for column in column_dicts()}
    dice = random.Random(5)
    for names in (
        ("latency_ms", "top1"),
        ("params", "latency_ratio"),
        ("flops", "params"),
        ("energy_j", "top1"),
    ):
        for count in (0, 1, 3, 12, 60):
            rows = [_figures(names, dice) for _ in range(count)]
            found = blank.evaluate(
                "([rows, x, y]) => optimal(rows, x, y)", [rows, *(described[name] for name in names)]
            )
            points = [[row[name] for name in names] for row in rows]
            bounds = [[_bounds(row, name) for name in names] for row in rows]
            directions = [direction(name) for name in names]
            certain, plain = pareto(points, directions, bounds), pareto(points, directions)
            assert [level > 0 for level in found] == certain
            assert [level == 2 for level in found] == [a and b for a, b in zip(certain, plain, strict=True)]


def _figures(names: Sequence[str], dice: random.Random) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for name in names:
        # Few values, so that some are equal, and some are missing.
        value = dice.choice((None, *range(1, 9)))
        row[name] = value
        for end, bound in zip((-1, 1), COLUMNS[name].interval or (), strict=False):
            row[bound] = (
                None if value is None or dice.random() < 0.1 else value + end * dice.choice((0.5, 1, 2))
            )
    return row


def _bounds(row: dict[str, float | None], name: str) -> tuple[float, float] | None:
    low, high = (row[bound] for bound in COLUMNS[name].interval or (name, name))
    if not COLUMNS[name].unsure or (low is None and high is None):
        return None
    return math.nan if low is None else low, math.nan if high is None else high


VALUES = (0.0, 0.5, 1.5, 2.5, 0.125, 0.375, 1.005, 9.995, 99.95, 12.345, 1e-7, 123456.789, 0.045, 2.675, 1e12)


def test_numbers_are_written_as_in_python(browser: Browser) -> None:
    blank = scripts(browser, "format.js")
    for value in VALUES:
        for sign in (1, -1):
            for digits in range(5):
                found = blank.evaluate("([v, d]) => fixed(v, d)", [sign * value, digits])
                assert found.replace("-0", "0") == f"{sign * value:.{digits}f}".replace("-0", "0")
        for name in ("latency_ms", "params", "top1", "latency_ratio"):
            described = next(c for c in column_dicts() if c["name"] == name)
            given = int(value) if name == "params" else value
            assert blank.evaluate("([c, v]) => formatted(c, v)", [described, given]) == COLUMNS[name].format(
                given
            )
        for low, high in ((0.9 * value, 1.2 * value), (0.5 * value, 1.01 * value)):
            described = next(c for c in column_dicts() if c["name"] == "latency_ms")
            found = blank.evaluate(
                "([c, v, l, h]) => withInterval(c, v, l, h, 0.3)", [described, value, low, high]
            )
            assert found == with_interval(value, low, high, COLUMNS["latency_ms"])
            described = next(c for c in column_dicts() if c["name"] == "top1_diff")
            found = blank.evaluate(
                "([c, v, l, h]) => difference(c, v, l, h)", [described, value - 1, low - 1, high]
            )
            assert found == difference(value - 1, low - 1, high, COLUMNS["top1_diff"])
