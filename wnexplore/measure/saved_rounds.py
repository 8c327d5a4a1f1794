"""Rounds of a timing, saved to a file as they are measured: a kill loses at most one."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Generic, TypeVar

from wnexplore.files import make_folder, translate_errors, write_all
from wnexplore.measure.rounds import RawRound

MAX_BYTES = 64 * 2**20
"""Largest file that is read, in bytes; 2000 rounds of 65 networks take less than 16 MiB."""

_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
"""The errors of reading a damaged file."""

Key = TypeVar("Key", bound=Hashable)


class KeptRounds(Generic[Key]):
    """The file at `path` for one group of networks, identified in it by the `names` of their records.

    Its first line gives the networks timed together and their protocol; each further line is a round. A
    truncated last line is ignored, and so is a file of a group other than `group` (JSON values).
    """

    def __init__(self, path: Path, group: Mapping[str, Any], names: Mapping[Key, str]) -> None:
        self._path = path
        self._group = dict(group)
        self._names = dict(names)
        self._file: FileIO | None = None
        self._length = 0
        self.together = 0
        """How many networks were timed together."""
        self.keys: tuple[Key, ...] = ()
        """The known ones among them, in order, without those that failed in a round."""
        self.rounds: tuple[RawRound[Key], ...] = ()
        """The rounds saved by a previous run."""
        with suppress(OSError, *_DAMAGED):
            self._read()

    def begin(self, residents: tuple[Key, ...], *, resume: bool) -> None:
        """Append to the saved rounds, or start a new file with `residents`; raises as `write_atomically`."""
        self.close()
        make_folder(self._path.parent)
        with translate_errors(self._path):
            self._file = FileIO(self._path, "r+" if resume else "w")
            if resume:
                self._file.truncate(self._length)
                self._file.seek(self._length)
            else:
                self._write({"group": self._group, "keys": [self._names[key] for key in residents]})

    def add(self, taken: RawRound[Key]) -> None:
        """Save one more round; raises as `write_atomically`."""
        parts = [{self._names[key]: sample for key, sample in part.items()} for part in taken.parts]
        with translate_errors(self._path):
            self._write({"seconds": taken.seconds, "ms": parts})

    def close(self) -> None:
        """Close the file and keep it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the file, and the folder if it becomes empty."""
        self.close()
        with translate_errors(self._path):
            self._path.unlink(missing_ok=True)
        with suppress(OSError):  # other groups' files are there
            self._path.parent.rmdir()

    def _write(self, line: dict[str, Any]) -> None:
        assert self._file is not None
        # Unbuffered: written data survives the process.
        write_all(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def _read(self) -> None:
        if not self._path.is_file() or self._path.stat().st_size > MAX_BYTES:
            return
        first, *lines = self._path.read_bytes().split(b"\n")[:-1]
        header = json.loads(first)
        if header["group"] != self._group:
            return
        together: list[str] = header["keys"]
        by_name = {name: key for key, name in self._names.items()}
        failed: set[str] = set()
        rounds: list[RawRound[Key]] = []
        length = len(first) + 1
        with suppress(*_DAMAGED):
            for line in lines:
                taken = json.loads(line)
                parts, seconds = taken["ms"], float(taken["seconds"])
                before = rounds[-1].seconds if rounds else 0.0
                samples = {name: value for part in parts for name, value in part.items()}
                if not all(_is_time(value) for value in (seconds, *samples.values()) if value is not None):
                    break
                if seconds < before:
                    break
                failed |= {name for name, value in samples.items() if value is None}
                known = [
                    {by_name[name]: value for name, value in part.items() if name in by_name}
                    for part in parts
                ]
                rounds.append(RawRound(seconds, tuple(known)))
                length += len(line) + 1
        self.together, self.rounds, self._length = len(together), tuple(rounds), length
        self.keys = tuple(by_name[name] for name in together if name in by_name and name not in failed)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
