"""A page as one HTML file that requests nothing."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from wnexplore.errors import WnexploreError
from wnexplore.files import cache_folder, write_atomically
from wnexplore.results.escape import one_line

SCRIPTS = (
    *("format.js", "where.js", "data.js", "front.js", "state.js", "table.js", "charts.js"),
    *("plots.js", "details.js", "answer.js", "controls.js", "page.js"),
)
"""The page's own scripts, in the order in which each may use those before it."""


def page_file(title: str, data: dict[str, Any], details: dict[str, Any], *, live: str | None = None) -> bytes:
    """The page that shows `data` and `details`, of `wnexplore.report.page_data`.

    A Content-Security-Policy forbids all requests, and all scripts but the page's own. With `live`, the
    page asks the server that it came from for newer data, at the address `live`.
    """
    own = "\n".join(_asset(name) for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{own}\n}})();'
    style = _asset("page.css")
    library = chart_library()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(library)} {_hash(script)}",
            # Vega sets styles of elements that it makes.
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "connect-src 'none'" if live is None else "connect-src 'self'",
            *("base-uri 'none'", "form-action 'none'"),
        )
    )
    parts = {
        "POLICY": html.escape(policy),
        "TITLE": html.escape(one_line(title)),
        "STYLE": style,
        "LIVE": html.escape(live or ""),
        "DATA": packed(data),
        "DETAILS": packed(details),
        "LIBRARY": library,
        "SCRIPT": script,
    }
    pieces = re.split(r"%([A-Z]+)%", _asset("page.html"))
    return "".join(parts[piece] if at % 2 else piece for at, piece in enumerate(pieces)).encode()


def packed(content: dict[str, Any]) -> str:
    """JSON values, compressed, in characters that need no escaping."""
    # In ASCII, which also holds what no encoding of file names can.
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode()


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which vl-convert bundles in two seconds: kept on disk."""
    path = cache_folder() / "charts" / f"{version('vl-convert-python')}.js"
    with suppress(OSError, ValueError):
        return path.read_text(encoding="utf-8")
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    with suppress(OSError, WnexploreError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, script.encode())
    return script


def _asset(name: str) -> str:
    return (files("wnexplore.report") / "page" / name).read_text(encoding="utf-8").rstrip()


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
