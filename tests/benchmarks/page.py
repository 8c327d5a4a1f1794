"""Size of a report, and how long a browser takes with it: python -m tests.benchmarks.page [--points 1000]

Makes the pages of made-up runs, opens each in Chromium from disk, and prints its size, the time to the first
paint, until all plots are drawn, and until the table and the plots in sight follow a filter. With --picture
FILE.png it draws the first screen of the page of a run directory instead.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.report.pages import CHROMIUM, grid, opened, opened_browser, write_page
from wnexplore.cli.report import known_skeleton
from wnexplore.report.page_data import PageRun, page_data, page_details
from wnexplore.report.page_file import page_file
from wnexplore.results.frame import frame

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FILTERS = ("params < 400k", "latency_ratio < 2", "top1 > 85 and params < 450k", "")


def main() -> None:
    """Make the pages, open them, print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--points", type=int, nargs="+", default=[1000, 10_000])
    options.add_argument("--picture", type=Path, nargs=2, metavar=("RUN", "FILE.png"))
    requested = options.parse_args()
    if CHROMIUM is None:
        options.error("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, opened_browser() as browser:
        path = Path(folder) / "page.html"
        if requested.picture is not None:
            run, picture = requested.picture
            with opened(browser, write_page(path, run).as_uri()) as page:
                page.screenshot(path=picture)
            return
        print(f"{'points':>7} {'MB':>6} {'first paint ms':>15} {'all drawn ms':>13} {'filter ms':>10}")
        for points in requested.points:
            records = grid(points)
            run = PageRun("run", records, frame(records), None)
            path.write_bytes(page_file("run", page_data([run]), page_details([run], known_skeleton)))
            print(line(browser, path, points), flush=True)


def line(browser: Browser, path: Path, points: int) -> str:
    """What the browser takes with one page."""
    begun = time.perf_counter()
    with opened(browser, path.as_uri()) as page:
        drawn = 1e3 * (time.perf_counter() - begun)
        paint = page.evaluate("() => performance.getEntriesByType('paint')[0].startTime")
        filters = median(filtered(page, text) for text in FILTERS)
    size = path.stat().st_size / 1e6
    return f"{points:>7} {size:>6.2f} {paint:>15.0f} {drawn:>13.0f} {filters:>10.0f}"


def filtered(page: Page, text: str) -> float:
    """Milliseconds until the table and the plots in sight follow a filter."""
    return float(
        page.evaluate(
            """(text) => new Promise((resume) => {
              const begun = performance.now();
              const root = document.documentElement;
              new MutationObserver((seen, observer) => {
                observer.disconnect();
                requestAnimationFrame(() => resume(performance.now() - begun));
              }).observe(root, {attributeFilter: ["data-shown"]});
              location.hash = text ? `where=${encodeURIComponent(text)}` : "";
            })""",
            text,
        )
    )


if __name__ == "__main__":
    main()
