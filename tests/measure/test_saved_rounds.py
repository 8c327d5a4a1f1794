"""Rounds of latencies under way, kept in a file: what a kill leaves, and what is no such file."""

import json
import time
from pathlib import Path

import pytest

from tests.commands import ended, started
from tests.sweeps import committed, write_sweep
from wnexplore.measure.rounds import RawRound
from wnexplore.measure.saved_rounds import KeptRounds
from wnexplore.results.store import read_records

SWEEP = """\
backbones: [own.py:tiny]
methods: [plain, weightnet]
M: [1, 2]
resolution: [8]
num_classes: [10]
latency: {device: cpu, threads: [1], seconds: 0.7, target: 0.0001}
"""


@pytest.mark.slow
def test_a_killed_sweep_resumes_after_the_last_round(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = ("sweep", write_sweep(tmp_path, SWEEP), "--out", directory)
    until = time.monotonic() + 120
    with started(*command) as process:
        while process.poll() is None and time.monotonic() < until:
            if any(path.read_bytes().count(b"\n") > 30 for path in directory.glob("rounds/*.jsonl")):
                break
            time.sleep(0.002)
        assert process.kill() < 0, "it was to be killed while it timed"
    (file,) = directory.glob("rounds/*.jsonl")
    header, *lines = file.read_bytes().split(b"\n")[:-1]
    rounds = [json.loads(line)["ms"][0] for line in lines]
    keys = json.loads(header)["keys"]
    assert len(rounds) >= 30
    assert len(keys) == committed(directory), "counts alone are recorded"

    ended(*command)
    records = {record.key: record for record in read_records(directory) if record.figure == "latency"}
    assert records.keys() == set(keys)
    for key, record in records.items():
        assert len(record.samples["latency_ms"]) > len(rounds)
        assert record.samples["latency_ms"][: len(rounds)] == [one[key] for one in rounds]
    assert not (directory / "rounds").exists()


GROUP = {"baseline": "p", "environment": {"torch": "2"}}
NAMES = {1: "p", 2: "a", 3: "b"}
FIRST = RawRound(0.1, ({1: 10.0, 2: 20.0, 3: 30.0},))
SECOND = RawRound(0.2, ({1: 10.5, 2: 20.5}, {3: None, 1: 11.5}))
THIRD = RawRound(0.3, ({1: 1.0, 3: 3.0}, {2: 2.0, 1: 1.5}))


def _written(path: Path) -> bytes:
    keep = KeptRounds(path, GROUP, NAMES)
    keep.begin((1, 2, 3), resume=False)
    keep.add(FIRST)
    keep.add(SECOND)
    keep.close()
    return path.read_bytes()


def test_rounds_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rounds" / "p.jsonl"
    _written(path)
    keep = KeptRounds(path, GROUP, {1: "p", 2: "a", 3: "b", 4: "new"})
    assert (keep.together, keep.keys) == (3, (1, 2)), "who failed is measured anew"
    assert keep.rounds == (FIRST, SECOND)
    without = RawRound(0.1, ({1: 10.0, 2: 20.0},))
    assert KeptRounds(path, GROUP, {1: "p", 2: "a"}).rounds[0] == without, "only who is asked for"
    keep.remove()
    assert not path.parent.exists()


def test_a_file_cut_off_anywhere_gives_its_whole_rounds_and_continues(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    content = _written(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        keep = KeptRounds(path, GROUP, NAMES)
        assert len(keep.rounds) == max(content[:length].count(b"\n") - 1, 0)
        assert bool(keep.keys) == (b"\n" in content[:length])
        if keep.keys:
            keep.begin(keep.keys, resume=True)
            keep.add(THIRD)
            keep.close()
            again = KeptRounds(path, GROUP, NAMES).rounds
            assert again == (*keep.rounds, THIRD)
            # Nothing of what was cut off stays behind the new round, however long that was.
            full = content[: content.rfind(b"\n", 0, length) + 1]
            *kept, added = path.read_bytes().splitlines(keepends=True)
            assert b"".join(kept) == full
            assert json.loads(added)["seconds"] == 0.3


def test_what_follows_a_damaged_line_goes_when_rounds_are_added(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    content = _written(path)
    head, first, second = content.splitlines(keepends=True)
    path.write_bytes(head + first + b"damaged, and longer than any round" * 20 + b"\n" + second * 5)
    keep = KeptRounds(path, GROUP, NAMES)
    assert len(keep.rounds) == 1
    keep.begin(keep.keys, resume=True)
    keep.close()
    assert path.read_bytes() == head + first


@pytest.mark.parametrize(
    "line",
    [b"null", b"[]", b"\xff", b"1e999", b"[" * 100000]
    + [b'{"seconds":%s,"ms":%s}' % pair for pair in [(b"NaN", b"[]"), (b"1", b"[1]"), (b"1", b'[{"p":"x"}]')]]
    + [b'{"seconds":1,"ms":{"p":1}}']
    + [b'{"seconds":1,"ms":[{"p":%s}]}' % value for value in (b"-1", b"Infinity", b"9" * 400, b"[]")],
)
def test_damaged_lines_are_ignored(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "p.jsonl"
    content = _written(path)
    path.write_bytes(content + line + b"\n")
    assert len(KeptRounds(path, GROUP, NAMES).rounds) == 2
    path.write_bytes(line + b"\n" + content)
    assert not KeptRounds(path, GROUP, NAMES).keys


def test_rounds_of_other_conditions_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    _written(path)
    assert not KeptRounds(path, GROUP | {"environment": {"torch": "3"}}, NAMES).keys
    assert not KeptRounds(tmp_path, GROUP, NAMES).keys
