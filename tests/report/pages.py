"""Pages of made-up runs, and a browser that opens them."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import random
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.results.records import complexity, latency, sweep, training
from wnexplore.cli.report import known_skeleton, read_run
from wnexplore.design.point import DesignPoint
from wnexplore.report.page_data import page_data, page_details
from wnexplore.report.page_file import page_file
from wnexplore.results.record import Record
from wnexplore.results.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""The browser, where there is one."""

IN_BROWSER = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),
]
"""The marks of tests that open a page."""

ENVIRONMENT = {"torch": "2.14.1", "python": "3.11.7", "wnexplore": "0.1.0"}


def in_browser(test: Any) -> Any:
    """A test with these marks."""
    for mark in IN_BROWSER:
        test = mark(test)
    return test


def sampled(records: Iterable[Record]) -> list[Record]:
    """`records` with raw times and curves, as measured ones have."""
    dice = random.Random(3)
    return [replace(record, samples=_samples(record, dice), environment=ENVIRONMENT) for record in records]


def _samples(record: Record, dice: random.Random) -> dict[str, list[float]]:
    if record.status != "ok":
        return {}
    if record.figure == "latency":
        ms = record.value["latency_ms"]
        return {
            name: [ms * dice.uniform(0.9, 1.1) for _ in range(record.value["rounds"])]
            for name in ("latency_ms", "baseline_ms")
        }
    if record.figure == "training":
        epochs = range(1, record.protocol["epochs"] + 1)
        top1 = [record.value["top1"] - 20 / epoch for epoch in epochs]
        loss = [3 / epoch for epoch in epochs]
        return {"loss": loss, "tested_epochs": [float(e) for e in epochs], "tested_top1": top1}
    return {}


def write_run(directory: Path, records: Iterable[Record]) -> Path:
    """A run directory of `records`."""
    with Store.create(directory) as store:
        for record in records:
            store.append(record)
    return directory


def write_page(path: Path, *directories: Path, where: str | None = None) -> Path:
    """The page of run directories."""
    runs = [read_run(directory, where, False, None) for directory in directories]
    path.write_bytes(page_file("run", page_data(runs), page_details(runs, known_skeleton)))
    return path


def grid(count: int) -> list[Record]:
    """Records of so many points, M and G crossed by stage: 30 rounds of a latency and 3 seeds each."""
    pairs = list(itertools.product((1, 2, 4, 8), (1, "1/2")))
    records = []
    for number, stages in enumerate(
        itertools.islice(itertools.cycle(itertools.product(pairs, repeat=3)), count)
    ):
        M, G = ("+".join(f"{at}:{pair[part]}" for at, pair in enumerate(stages, 2)) for part in (0, 1))
        backbone = ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0")[number % 1024 // 512]
        point = DesignPoint.of(
            backbone, "weightnet", M, G, stem="small", reduction=16 + number // 1024, num_classes=10
        )
        timed = latency(point, 5 + number / 977)
        records += [
            complexity(point, 350_001 + 17 * number, 40_700_003 + 131 * number),
            replace(timed, value={**timed.value, "rounds": 30}),
            *(training(point, 80 + (number * 37 + seed * 11) % 997 / 100, seed=seed) for seed in range(3)),
        ]
    return sampled(records)


def small_run(directory: Path) -> Path:
    """A run of 17 points under two batch sizes, with failures."""
    return write_run(directory, sampled(sweep()))


def unpacked(page: str, name: str) -> dict[str, Any]:
    """The JSON values that a page holds as its script `name`."""
    found = re.search(rf'<script id="{name}" type="text/plain">([^<]*)</script>', page)
    assert found is not None
    content: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return content


def key_of(path: Path, row: int) -> str:
    """What the address of a page calls one of its rows."""
    column = unpacked(path.read_text(), "data")["marks"]["key"]
    return str(column["all"] if "all" in column else column["cells"][row])


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # In a container there is no sandbox for the superuser.
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str, *, expected: str = "\0", **context: object) -> Iterator[Page]:
    """A page, drawn. Fails at the end if it logged an error that isn't `expected`, or requested anything but
    itself."""
    problems: list[str] = []
    surroundings = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})  # type: ignore[arg-type]
    page = surroundings.new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(address)
        page.wait_for_selector("html[data-drawn]")
        yield page
        assert [problem for problem in problems if expected not in problem] == []
        if address.startswith("file:"):
            own = address.partition("#")[0]
            assert {url.partition("#")[0] for url in requests if not url.startswith(("data:", "blob:"))} == {
                own
            }
    finally:
        surroundings.close()


def shown(page: Page) -> list[list[str]]:
    """The body of the table, without marks."""
    found: list[list[str]] = page.eval_on_selector_all(
        "#table tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return found


def column(page: Page, heading: str) -> list[str]:
    """The cells under a heading of the table."""
    headings = [text.strip(" ▲▼") for text in page.locator("#table thead th").all_inner_texts()]
    return [row[headings.index(heading)] for row in shown(page)]


def brush(page: Page, plot: int, left: float, right: float) -> None:
    """Drag over the upper part of a plot, from and to these shares of its width."""
    figure = page.locator("figure:has(.view)").nth(plot)
    figure.scroll_into_view_if_needed()
    box = figure.locator("svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + left * box["width"], box["y"] + 15)
    page.mouse.down()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + 0.65 * box["height"], steps=5)
    drawn_again(page, page.mouse.up)


def drawn_again(page: Page, act: object) -> None:
    """Do something, and wait until the page shows what follows from it."""
    before = page.get_attribute("html", "data-drawn")
    act()  # type: ignore[operator]
    page.wait_for_function("before => document.documentElement.dataset.drawn !== before", arg=before)
