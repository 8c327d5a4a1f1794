"""What a page says and keeps in particular cases: of runs, of addresses, of where the focus is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from tests.results.records import failure, latency, points, sweep, training

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = IN_BROWSER

FOCUSED = "document.activeElement.innerText || document.activeElement.id"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    return write_page(folder / "page.html", small_run(folder / "run"))


@pytest.fixture
def page(browser: Browser, path: Path) -> Iterator[Page]:
    with opened(browser, path.as_uri()) as found:
        yield found


def test_one_seed_is_not_called_sure(browser: Browser, tmp_path: Path) -> None:
    one = [r for r in sampled(sweep()) if r.figure != "training" or r.protocol["seed"] == 0]
    with opened(browser, write_page(tmp_path / "one.html", write_run(tmp_path / "a", one)).as_uri()) as page:
        assert "Not known: 12 of 12 points have no interval" in page.inner_text("#answers")
    alone = [r for r in one if r.point.method == "plain"]
    with opened(browser, write_page(tmp_path / "b.html", write_run(tmp_path / "b", alone)).as_uri()) as page:
        assert "nothing to compare" in page.inner_text("#answers")


def test_the_answer_says_what_pairing_shows(browser: Browser, tmp_path: Path) -> None:
    plain, better = points()[0], points()[1]
    records = [latency(plain, 4, warnings=["busy_machine"]), latency(better, 9, warnings=["busy_machine"])]
    for seed, luck in enumerate((0, 5, 9, 14)):
        records += [training(plain, 70 + luck, seed=seed), training(better, 72 + luck, seed=seed)]
    run = write_run(tmp_path / "run", sampled(records))
    with opened(browser, write_page(tmp_path / "page.html", run).as_uri()) as page:
        answer = page.inner_text("#answers")
        assert page.inner_text(".take").startswith("Take Plain: top-1 77.0 ± ")
        assert "Runner-up, with the largest mean: SE: top-1 79.0" in answer
        assert "+2.0 [2.0, 2.0] points over plain on the same seeds" in answer
        assert "1 of the 1 others can't be told apart" in answer
        assert "SE is above plain" in answer
        assert "busy machine (2)" in answer
        page.click(".answer button:has-text('SE')")
        page.wait_for_selector("#point:not([hidden]) pre")


def test_so_it_does_where_plain_is_not_taken(page: Page) -> None:
    answer = page.inner_text("#answers")
    assert page.inner_text(".take").startswith("Take WeightNet · M=4 G=4")
    assert "WeightNet · M=8 G=2 is further above plain than WeightNet · M=4 G=4" in answer


def test_a_run_in_which_all_failed(browser: Browser, tmp_path: Path) -> None:
    records = [failure("complexity", point) for point in points()]
    run = write_run(tmp_path / "run", records)
    with opened(browser, write_page(tmp_path / "page.html", run).as_uri()) as page:
        assert len(shown(page)) == len(records)
        assert "Nothing to draw" in page.inner_text("#trade-hint")
        assert page.is_hidden("#free-section")
    bare = [r for r in sampled(sweep()) if r.figure == "training"]
    run = write_run(tmp_path / "bare", bare)
    with opened(browser, write_page(tmp_path / "bare.html", run).as_uri()) as page:
        assert page.is_visible("#free svg")


def test_runs_are_told_apart(browser: Browser, tmp_path: Path) -> None:
    slower = [
        replace(r, value={**r.value, "latency_ms": 90.0}) if r.figure == "latency" else r for r in sweep()
    ]
    one, other = small_run(tmp_path / "a"), write_run(tmp_path / "b", sampled(slower))
    path = write_page(tmp_path / "page.html", one, other)
    with opened(browser, f"{path.as_uri()}#heat=latency_ms&point={key_of(path, 3)}") as page:
        assert page.input_value("#choose-color") == "run"
        legend = page.locator("#headline figure").first.locator(".role-legend-label text").all_text_contents()
        assert legend == ["a", "b"]
        page.wait_for_selector("#point:not([hidden]) pre")
        assert page.inner_text("#point-title").startswith("a: ")
        # Neither runs nor protocols are averaged.
        assert page.inner_text("#heat figcaption") == "At a, batch 1; choose another."
        first = page.locator("#heat .mark-text text").first.text_content()
        drawn_again(page, lambda: page.select_option("[id='choose-at.run']", "b"))
        assert set(column(page, "run")) == {"b"}
        assert page.locator("#heat .mark-text text").first.text_content() == "90.0" != first


@pytest.mark.parametrize(
    "fragment",
    [
        "max.nosuch=5&min.method=3&in.nosuch=1~2&in.params=a~b",
        "max.params=abc&at.toString=1&at.batch_size=77",
        "toString=1&heat=method&size=M&color=nosuch&x=method&sort=nosuch&page=0.5&point=%20",
    ],
)
def test_an_address_that_means_nothing_here_hides_nothing(
    browser: Browser, path: Path, fragment: str
) -> None:
    with opened(browser, f"{path.as_uri()}#{fragment}") as page:
        count, of = page.inner_text("#shown").replace(" rows", "").split(" of ")
        assert count == of == str(len(shown(page)))
        assert page.is_hidden("#point")
        assert page.locator("figure svg").count() == 5


def test_plots_have_names_and_each_point_once(page: Page, browser: Browser) -> None:
    plots = (
        "[...document.querySelectorAll('#headline .view')].map(v => [v.getAttribute('role'), v.ariaLabel])"
    )
    expected = "Top-1 accuracy (%) over FLOPs (multiply-adds), {} points; the table below has them all"
    assert page.evaluate(plots)[0] == ["img", expected.format(12)]
    drawn_again(page, lambda: page.evaluate("location.hash = 'where=method+!%3D+weightnet'"))
    assert page.evaluate(plots)[0] == ["img", expected.format(3)]
    # Of both batch sizes where that is what it shows.
    drawn_again(page, lambda: page.select_option("#choose-color", "batch_size"))
    assert page.evaluate(plots)[0] == ["img", expected.format(6)]


def test_a_selection_is_drawn_where_it_was_made(page: Page) -> None:
    rectangles = """[...document.querySelectorAll('#headline figure')].map(
        f => [...f.querySelectorAll('.brush_brush path')].some(p => p.getBoundingClientRect().width > 5))"""
    brush(page, 0, 0.15, 0.9)
    assert page.evaluate(rectangles) == [True, False, False]
    chosen = len(shown(page))
    assert chosen > 0
    # Under the rectangle there are points.
    places = page.evaluate(
        """() => { const b = document.querySelector('#headline .brush_brush path').getBoundingClientRect();
          return [...document.querySelectorAll('#headline figure:first-child .mark-symbol.role-mark path')]
            .map(p => p.getBoundingClientRect()).map(r => [r.x + r.width / 2, r.y + r.height / 2])
            .filter(([x, y]) => x > b.left && x < b.right && y > b.top && y < b.bottom); }"""
    )
    page.mouse.move(*places[0], steps=5)
    page.wait_for_selector("#vg-tooltip-element.visible")
    box = page.locator("#vg-tooltip-element").bounding_box()
    assert box is not None
    # Beside the pointer.
    assert 0 < abs(box["x"] + box["width"] / 2 - places[0][0]) < box["width"]
    drawn_again(page, lambda: page.mouse.click(*places[0]))
    page.wait_for_selector("#point:not([hidden]) pre")
    page.wait_for_timeout(300)
    assert len(shown(page)) == chosen
    assert page.evaluate(rectangles) == [True, False, False]
    brush(page, 1, 0.15, 0.6)
    page.wait_for_timeout(300)
    assert page.evaluate(rectangles) == [False, True, False]
    drawn_again(page, lambda: page.go_back())
    assert page.evaluate(rectangles) == [True, False, False]
    drawn_again(page, lambda: page.click("#reset"))
    assert page.evaluate(rectangles) == [False, False, False]


def test_controls_follow_the_address(page: Page) -> None:
    page.focus("#choose-x")
    drawn_again(page, lambda: page.select_option("#choose-x", "peak_memory_mb"))
    assert page.is_visible("#range-peak_memory_mb-0")
    drawn_again(page, lambda: page.go_back())
    assert page.input_value("#choose-x") == "latency_ratio"
    # The ends of sliders hold the points that are there.
    best = max(float(text.split()[0]) for text in column(page, "top-1 (%)") if text)
    page.focus("#budget-top1")
    drawn_again(page, lambda: page.keyboard.press("End"))
    assert {float(text.split()[0]) for text in column(page, "top-1 (%)")} == {best}
    drawn_again(page, lambda: page.go_back())
    assert page.input_value("#budget-top1") == "0"
    page.locator("#headline button.link").first.click()
    assert page.evaluate("document.activeElement.id") == "choose-at.batch_size"


def test_the_focus_stays(page: Page) -> None:
    page.focus("button[data-column=top1]")
    drawn_again(page, lambda: page.keyboard.press("Enter"))
    assert page.evaluate("document.activeElement.dataset.column") == "top1"
    name = page.locator("#table tbody button").nth(1)
    name.focus()
    key = page.evaluate("document.activeElement.dataset.point")
    drawn_again(page, lambda: page.keyboard.press("Enter"))
    page.wait_for_selector("#point:not([hidden]) pre")
    drawn_again(page, lambda: page.go_back())
    assert page.evaluate("document.activeElement.dataset.point") == key
    drawn_again(page, lambda: page.keyboard.press("Enter"))
    page.wait_for_selector("#point:not([hidden]) pre")
    page.focus("#close-point")
    drawn_again(page, lambda: page.keyboard.press("Escape"))
    assert page.evaluate("document.activeElement.dataset.point") == key


def test_an_open_point_follows_the_scheme(browser: Browser, path: Path) -> None:
    with opened(browser, f"{path.as_uri()}#point={key_of(path, 3)}", color_scheme="dark") as page:
        colour = "document.querySelector('#point .role-axis-title text').getAttribute('fill')"
        page.wait_for_selector("#point .role-axis-title text")
        assert page.evaluate(colour) == "#ededed"
        drawn_again(page, lambda: page.emulate_media(color_scheme="light"))
        page.wait_for_function(f"() => {colour} === '#1a1a1a'")


def test_paper_has_all_rows_and_says_which(browser: Browser, tmp_path: Path) -> None:
    timed = [latency(p, 3 + n / 10, batch_size=b) for n, p in enumerate(points()) for b in range(1, 6)]
    path = write_page(tmp_path / "page.html", write_run(tmp_path / "run", sampled(timed)))
    with opened(browser, f"{path.as_uri()}#max.latency_ms=4.05&where=batch_size+%3C+9&page=2") as page:
        rows = int(page.inner_text("#shown").split()[0])
        assert 50 < rows < len(timed)
        page.locator("#pages button").first.focus()
        drawn_again(page, lambda: page.keyboard.press("Enter"))
        assert page.evaluate(FOCUSED) == "Next"
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert len(shown(page)) == rows
        assert (
            page.inner_text("#limits")
            == "Shown are rows with filter batch_size < 9; Latency (ms) at most 4.05."
        )
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert len(shown(page)) == 50
