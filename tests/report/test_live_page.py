"""A page that follows a sweep: who gets it, and that it shows what comes."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.report.pages import CHROMIUM, opened, opened_browser, sampled, write_run
from tests.results.records import sweep
from wnexplore.results.store import Store


class Served(NamedTuple):
    """A server, and where it is."""

    process: subprocess.Popen[str]
    port: int
    path: str

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextmanager
def served(run: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "wnexplore", "report", str(run), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/[\w-]{20,}/)\n", process.stdout.readline())
            assert found is not None
            yield Served(process, int(found[1]), found[2])
        finally:
            process.kill()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", sampled(sweep())[:-10])


def add(run: Path) -> None:
    with Store.create(run) as store:
        for record in sampled(sweep())[-10:]:
            store.append(record)


def test_only_who_knows_the_token_gets_an_answer(run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    with served(run) as server:
        status, page = server.get(server.path)
        assert status == 200
        assert b"Content-Security-Policy" in page
        assert b"connect-src &#x27;self&#x27;" in page
        for path in (
            "/",
            "/data",
            server.path[:-2] + "/",
            f"{server.path}../",
            f"{server.path}results.sqlite",
        ):
            assert server.get(path)[0] == 404
        assert server.get(server.path, host="example.org")[0] == 403
        # Nothing new, then something.
        assert server.get(f"{server.path}data?1") == (204, b"")
        add(run)
        status, newer = server.get(f"{server.path}data?1")
        assert status == 200
        assert newer.split()[0] == b"2"
        # On 127.0.0.1 alone.
        listening = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
        mine = [line.split()[1] for line in listening if line.split()[1].endswith(f":{server.port:04X}")]
        assert set(mine) == {f"0100007F:{server.port:04X}"}
        os.kill(server.process.pid, signal.SIGINT)
        assert server.process.wait(timeout=30) == 130
        assert server.process.stderr is not None
        assert "Traceback" not in server.process.stderr.read()
    assert {path.name for path in run.iterdir()} == before


def test_it_waits_for_the_first_records(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ())
    command = [sys.executable, "-m", "wnexplore", "report", str(run), "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "waiting" in process.stderr.readline()
        add(run)
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.kill()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.xdist_group("browser")
def test_the_page_shows_records_as_they_come(run: Path) -> None:
    with served(run) as server, opened_browser() as browser:
        address = f"http://127.0.0.1:{server.port}{server.path}"
        with opened(browser, f"{address}#sort=-params", expected="ERR_CONNECTION_REFUSED") as page:
            rows = int(page.inner_text("#shown").split()[0])
            add(run)
            page.wait_for_function(
                "before => parseInt(document.getElementById('shown').innerText) > before", arg=rows
            )
            assert page.get_attribute("th:has(button[data-column=params])", "aria-sort") == "descending"
            server.process.kill()
            page.wait_for_function("() => document.getElementById('status').innerText.includes('ended')")
