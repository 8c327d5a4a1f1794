"""A page that follows a sweep: who gets it, and that it shows what comes."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from tests.report.pages import in_browser, opened, opened_browser, sampled, write_run
from tests.results.records import sweep
from wnexplore.cli.page_server import LivePage, handler
from wnexplore.cli.report import known_skeleton, read_run
from wnexplore.report.page_data import PageRun
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
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has SIGINT ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
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


def test_what_fails_is_said_and_tried_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failing = [MemoryError("no room")]

    def read() -> list[PageRun]:
        if failing:
            raise failing.pop()
        return [read_run(run, None, False, None)]

    page = LivePage("run", [run], read, known_skeleton)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(page)) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        statuses = []
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
            connection.request("GET", f"{page.address}data?0", headers={"Host": "127.0.0.1"})
            statuses.append(connection.getresponse().status)
            connection.close()
        # A browser that leaves before its answer.
        with socket.create_connection(("127.0.0.1", server.server_address[1])) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaving.sendall(f"GET {page.address} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        time.sleep(0.3)
        server.shutdown()
    said = capsys.readouterr().err
    assert statuses == [500, 200]
    assert "MemoryError: no room" in said
    assert "Traceback" not in said


@in_browser
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


@in_browser
def test_what_a_person_does_outlives_new_records(tmp_path: Path) -> None:
    """A point stays open while rows come before it, and a filter that is being typed stays as it is."""
    first = [r for r in sampled(sweep()) if r.point.method != "se" and r.protocol.get("batch_size") != 1]
    run = write_run(tmp_path / "run", first)
    with served(run) as server, opened_browser() as browser:
        address = f"http://127.0.0.1:{server.port}{server.path}"
        with opened(browser, address) as page:
            page.locator("#table tbody button[aria-label*='M=4 G=2']").click()
            page.wait_for_selector("#point:not([hidden]) pre")
            title, rows = page.inner_text("#point-title"), page.inner_text("#shown")
            page.locator("#point details summary").first.click()
            page.focus("#where")
            page.keyboard.type("params < ")
            with Store.create(run) as store:
                for record in sampled(sweep()):
                    if record.point.method == "se" or record.protocol.get("batch_size") == 1:
                        store.append(record)
            page.wait_for_function("b => document.getElementById('shown').innerText !== b", arg=rows)
            page.wait_for_function(
                "() => document.querySelectorAll('#headline .role-legend-label text').length === 12"
            )
            assert page.input_value("#where") == "params < "
            assert page.evaluate("document.activeElement.id") == "where"
            assert page.inner_text("#point-title") == title
            assert page.locator("#point details[open]").count() == 1
            assert page.locator("tr.chosen button").get_attribute("aria-label") == "WeightNet · M=4 G=2"
