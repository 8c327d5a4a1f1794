"""Files that are no images, or none that can be read."""

from __future__ import annotations

import os
import socket
import zlib
from pathlib import Path

import numpy as np

from tests.data.files import chunk, png


def unreadable(folder: Path) -> dict[str, str]:
    """Files that are no images, or none that can be read -> what is told of them."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 2**21))
    good = png(np.full((50, 50), 9, np.uint16))
    dot = np.zeros((1, 1), np.uint16)
    files = {
        "empty.png": (b"", "empty"),
        "text.png": (b"no image", "format"),
        "bomb.png": (png(dot, size=(60000, 60000)), "decompression bomb"),
        "chunk.png": (png(dot, text), "too large"),
        "cut.png": (good[: len(good) // 2], ""),
        "no size.png": (png(dot, size=(0, 0)), ""),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "circle.png").symlink_to("circle.png")
    with socket.socket(socket.AF_UNIX) as listening:
        before = os.getcwd()
        os.chdir(folder)  # names of sockets are short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(before)
    (folder / "device.png").symlink_to("/dev/zero")
    others = {
        "pipe.png": "a pipe",
        "folder.png": "a folder",
        "circle.png": "symbolic links",
        "socket.png": "a socket",
        "device.png": "a device",
        "nothing.png": "No such file",
        "\n\x1b[31m.png": "No such file",
        "a\0b": "null",
    }
    return {name: told for name, (_, told) in files.items()} | others
