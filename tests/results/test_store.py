import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from wnexplore import DesignPoint
from wnexplore.errors import InputError, RunError
from wnexplore.results.record import Record, record_key
from wnexplore.results.schema import VERSION
from wnexplore.results.store import FILE_NAME, Store, read_records

POINT = DesignPoint.of("shufflenet_v2_x0_5", "weightnet", "1/2", "1/4")


def _record(seed: int = 0, status: str = "ok") -> Record:
    return Record(
        figure="training",
        point=POINT,
        protocol={"seed": seed, "lr": 0.1},
        status=status,  # type: ignore[arg-type]
        value={"top1": 0.1 + 0.2},
        samples={"loss": [1 / 3, 2 / 3]},
        error=None if status == "ok" else "RuntimeError: no",
        environment={"torch": "2"},
    )


def test_records_come_back_as_they_were_in_order(tmp_path: Path) -> None:
    made = [_record(2), _record(0), _record(1)]
    with Store.create(tmp_path / "run") as store:
        for record in made:
            store.append(record)
        assert store.keys() == {record.key: "ok" for record in made}
        # A reader sees each record as soon as it is committed.
        assert read_records(tmp_path / "run") == made
    assert read_records(tmp_path / "run") == made


def test_the_key_is_made_of_figure_point_and_protocol() -> None:
    one = _record()
    assert one.key == record_key("training", POINT, {"lr": 0.1, "seed": 0})
    assert len({one.key, _record(1).key, record_key("latency", POINT, one.protocol)}) == 3


def test_a_key_is_what_it_was_before_there_were_stages() -> None:
    point = DesignPoint.of("resnet18", "weightnet", 4, 2)
    key = record_key("latency", point, {"device": "cpu", "batch_size": 1})
    assert key == "6e9886f9de53aac6e65b16e9b1fdaf9bb77fbaeb9df32969b5f22d4a0ab40366"
    some = DesignPoint.of("resnet18", "weightnet", 4, 2, stages="3+4")
    assert record_key("latency", some, {"device": "cpu", "batch_size": 1}) != key


def test_a_condition_that_came_later_leaves_the_keys_from_before_as_they_were() -> None:
    protocol = {"device": "cpu", "threads": None}
    key = record_key("latency", POINT, protocol)
    assert record_key("latency", POINT, protocol | {"wait_policy": "adaptive"}) == key
    assert record_key("latency", POINT, protocol | {"wait_policy": None}) == key
    assert record_key("latency", POINT, protocol | {"wait_policy": "OMP_WAIT_POLICY=passive"}) != key
    assert record_key("latency", POINT, {"device": "cpu"}) != key


def test_a_record_is_there_once_and_a_failed_one_gives_way(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        store.append(_record(status="failed"))
        store.append(_record())
        assert [record.status for record in read_records(tmp_path)] == ["ok"]
        with pytest.raises(InputError, match="damaged: UNIQUE"):
            store.append(_record())
        assert read_records(tmp_path) == [_record()]


def test_the_file_is_in_wal_mode_and_marked_as_ours(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        store.append(_record())
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_second_process_is_reported_and_stops(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from wnexplore.results.store import Store;"
        f" Store.create(Path({str(tmp_path)!r}))"
    )
    with Store.create(tmp_path):
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (1, "")
    assert str(tmp_path) in second.stderr.splitlines()[-1]
    third = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_records(tmp_path / "nowhere")
    with pytest.raises(InputError, match=FILE_NAME):
        read_records(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=str(tmp_path)):
        Store.create(tmp_path)
    with pytest.raises(InputError, match=r"notes\.txt"):
        Store.create(tmp_path / "notes.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        store.append(_record())
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    for use in (read_records, Store.create):
        with pytest.raises(InputError, match="newer"):
            use(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_store_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(InputError, match=FILE_NAME):
        read_records(tmp_path)


def test_a_truncated_store_is_reported(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        for seed in range(200):
            store.append(_record(seed))
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096])
    with pytest.raises(InputError, match="damaged"):
        read_records(tmp_path)


def test_another_programs_database_is_no_store(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE cats (name)")
    connection.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    for use in (read_records, Store.create):
        with pytest.raises(InputError, match=FILE_NAME):
            use(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_row_that_makes_no_sense_is_reported(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        store.append(_record())
    connection = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    connection.execute('UPDATE records SET point = \'{"backbone": "resnet19"}\'')
    connection.close()
    with pytest.raises(InputError, match=r"damaged: .*'resnet19'"):
        read_records(tmp_path)


def test_a_full_disk_is_reported_and_keeps_what_was_committed(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writes fail in the same place."""
    script = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.results.records import points, training
from wnexplore.results.store import Store
with Store.create(Path({str(tmp_path / "run")!r})) as store:
    point = points()[0]
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    for seed in range(10_000):
        store.append(training(point, seed=seed))
        print(seed, flush=True)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert RunError.__name__ in run.stderr, run.stderr
    assert str(tmp_path / "run") in run.stderr.splitlines()[-1]
    committed = [int(line) for line in run.stdout.split()]
    assert committed
    assert [r.protocol["seed"] for r in read_records(tmp_path / "run")] == committed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_on_read_only_storage_can_be_read(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        store.append(_record())
    tmp_path.chmod(0o500)
    try:
        assert read_records(tmp_path) == [_record()]
    finally:
        tmp_path.chmod(0o700)
