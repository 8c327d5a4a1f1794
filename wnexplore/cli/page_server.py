"""Serves a page of runs on 127.0.0.1, which follows the records as they come."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from wnexplore.cli.output import notify, say
from wnexplore.errors import WnexploreError, shown
from wnexplore.report.page_data import page_data, page_details
from wnexplore.report.page_file import packed, page_file
from wnexplore.results.store import FILE_NAME

if TYPE_CHECKING:
    from wnexplore.report.page_data import PageRun
    from wnexplore.report.page_details import SkeletonOf

State = tuple[tuple[int, int], ...]


def serve(page: LivePage) -> None:
    """Serve `page` until it is interrupted; prints its address.

    Nothing but 127.0.0.1 can connect, and only who knows the random token in the address gets an answer.
    The stores are only read.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(page)) as server:
        server.daemon_threads = True
        say(f"http://127.0.0.1:{server.server_address[1]}{page.address}")
        sys.stdout.flush()
        notify("Ctrl-C ends it")
        server.serve_forever(poll_interval=0.2)


class Held(NamedTuple):
    """One state of the stores, as it is sent."""

    number: int
    """Counts the states that were read."""
    page: bytes
    data: bytes


class LivePage:
    """The page and its data as the stores are now."""

    def __init__(
        self,
        title: str,
        directories: Sequence[Path],
        read: Callable[[], list[PageRun]],
        skeleton_of: SkeletonOf,
    ) -> None:
        self.address = f"/{secrets.token_urlsafe(24)}/"
        self._title, self._directories, self._read, self._skeleton_of = title, directories, read, skeleton_of
        self._lock = Lock()
        self._seen: State = ()
        self.held = Held(0, b"", b"")

    def update(self) -> None:
        """Read the runs again if their stores have changed; raises what reading them does."""
        with self._lock:
            state = self._state()
            if state == self._seen:
                return
            runs = self._read()
            data, details = page_data(runs), page_details(runs, self._skeleton_of)
            number = self.held.number + 1
            page = page_file(self._title, data, details, live=f"{self.address}data?{number}")
            # At once: requests read it without the lock.
            self.held = Held(number, page, f"{packed(data)} {packed(details)}".encode())
            self._seen = state

    def _state(self) -> State:
        files = [directory / f"{FILE_NAME}{end}" for directory in self._directories for end in ("", "-wal")]
        return tuple((s.st_mtime_ns, s.st_size) if (s := _stat(file)) else (0, 0) for file in files)


def handler(pages: LivePage) -> type[BaseHTTPRequestHandler]:
    """What answers the requests for a page."""

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "wnexplore", ""

        def handle(self) -> None:
            # A browser may leave before it has its answer.
            with suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            path, _, number = self.path.partition("?")
            if self.headers.get("Host", "").partition(":")[0] != "127.0.0.1":
                # Another name for this address: a page elsewhere may be asking.
                self._answer(403, b"")
            elif path not in (pages.address, f"{pages.address}data"):
                self._answer(404, b"")
            elif not self._updated():
                self._answer(500, b"The runs can't be read now; the terminal says why.")
            elif path == pages.address:
                self._answer(200, pages.held.page, "text/html; charset=utf-8")
            else:
                held = pages.held
                if number == str(held.number):
                    self._answer(204, b"")
                else:
                    self._answer(200, f"{held.number} ".encode() + held.data)

        def _updated(self) -> bool:
            """Whether there is a state to send: the newest, or the one before if that can't be read."""
            try:
                pages.update()
            except WnexploreError as error:
                notify(error)
            except Exception as error:  # no memory, a library that fails: the next request may be luckier
                notify(f"{type(error).__name__}: {shown(error)}")
                return False
            return True

        def _answer(self, status: int, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal is for problems."""

    return Handler


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
