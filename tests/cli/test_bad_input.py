"""Bad input gets one clear line and exit code 2, and nothing is written."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from wnexplore.results.store import FILE_NAME, Store

_PROFILE = ("profile", "--backbone", "resnet18")
_WEIGHTNET = (*_PROFILE, "--method", "weightnet")

WRONG = [
    # commands and options
    (("swep",), "'sweep'"),
    (("sweep", "--bogus"), "--bogus"),
    (("profile",), "--backbone"),
    (("profile", "--backbone"), "--backbone"),
    (("export",), "DIR"),
    (("published", "extra"), "extra"),
    # backbone, method, M, G
    (("profile", "--backbone", "resnet19"), "'resnet18'"),
    (("profile", "--backbone", ""), "backbone ''"),
    ((*_PROFILE, "--method", "wightnet"), "'weightnet'"),
    ((*_PROFILE, "--M", "2"), "'plain'"),
    ((*_WEIGHTNET, "--M", "x"), "M is 'x'"),
    ((*_WEIGHTNET, "--M", "0"), "M is '0'"),
    ((*_WEIGHTNET, "--M", "-1"), "M is '-1'"),
    ((*_WEIGHTNET, "--M", "1/0"), "M is '1/0'"),
    ((*_WEIGHTNET, "--M", "1", "--G", "2"), "layer1.0.conv1"),
    ((*_WEIGHTNET, "--M", "1/3", "--G", "1/3"), "M·C_out = 1/3·64"),
    ((*_WEIGHTNET, "--experts", "4"), "experts"),
    ((*_WEIGHTNET, "--activation", "relu"), "activation 'relu'"),
    ((*_PROFILE, "--method", "condconv", "--experts", "0"), "experts is '0'"),
    ((*_PROFILE, "--stem", "smal"), "'small'"),
    ((*_PROFILE, "--resolution", "0"), "resolution is '0'"),
    ((*_PROFILE, "--resolution", "big"), "--resolution"),
    ((*_PROFILE, "--num-classes", "-5"), "num_classes is '-5'"),
    # protocol
    ((*_PROFILE, "--dtype", "float8"), "--dtype"),
    ((*_PROFILE, "--dtype", ""), "latency.dtypes is empty"),
    ((*_PROFILE, "--batch-size", "0"), "option --batch-size"),
    ((*_PROFILE, "--batch-size", "1,x"), "'x'"),
    ((*_PROFILE, "--device", "gpu"), "'gpu'"),
    ((*_PROFILE, "--seconds", "-1"), "--seconds"),
    ((*_PROFILE, "--seconds", "nan"), "--seconds"),
    ((*_PROFILE, "--threads", "0"), "--threads"),
    # sweeps
    (("sweep",), "sweep"),
    (("sweep", "quickstar"), "'quickstart'"),
    (("sweep", "nowhere/sweep.yaml"), "nowhere/sweep.yaml"),
    (("sweep", "--backbone", "resnet19"), "option --backbone"),
    (("sweep", "--backbone", ""), "backbones is empty"),
    (("sweep", "--method", "plain,foo"), "'foo'"),
    (("sweep", "--M", "1,,2"), "option --M: M is ''"),
    (("sweep", "--M", "1", "--G", "2", "--method", "weightnet"), "layer"),
    (("sweep", "published", "--M", "2"), "--M"),
    (("sweep", "quickstart", "--resolution", "1000000000000"), "option --resolution"),
    (("sweep", "quickstart", "--device", "tpu"), "'tpu'"),
    (("sweep", "quickstart", "--seeds", "0"), "option --seeds"),
    (("sweep", "quickstart", "--seeds", "x"), "--seeds"),
    (("sweep", "quickstart", "--epochs", "-1"), "option --epochs"),
    (("sweep", "quickstart", "--data", "imagenet"), "option --data"),
    (("sweep", "quickstart", "--data", "cifar10"), "cifar10"),
    (("sweep", "quickstart", "--data", "cifar10", "--data-path", "nowhere"), "nowhere"),
    (("sweep", "quickstart", "--data", "folder", "--data-path", "nowhere"), "nowhere"),
    (("sweep", "quickstart", "--data-path", "somewhere"), "digits"),
    (("sweep", "quickstart", "--data", "shapes:1"), "option --data: data set 'shapes:1'"),
    (("sweep", "quickstart", "--data", "folder:nowhere"), "nowhere"),
    (("sweep", "quickstart", "--download"), "'digits'"),
    (("sweep", "quickstart", "--dtype", "int8"), "option --dtype"),
    (("sweep", "quickstart", "--sort", "speed"), "'speed'"),
    # run directories
    (("table", "nowhere"), "nowhere"),
    (("export", "nowhere"), "nowhere"),
    (("plot", "nowhere"), "nowhere"),
    (("compare", "nowhere", "nowhere"), "nowhere"),
    (("compare", "nowhere"), "DIR_B"),
    (("table", "."), "results.sqlite"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_one_line_exit_2_nothing_written(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(*arguments)
    _is_one_line(outcome.err, message)
    assert outcome.code == 2
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


READING = [
    (("table", "{}", "--sort", "speed"), "'speed'"),
    (("table", "{}", "--where", "params <"), "character 9"),
    (("table", "{}", "--where", "parms < 3e6"), "'params'"),
    (("table", "{}", "--where", "__import__('os')"), "'__import__'"),
    (("table", "{}", "--pareto", "--objectives", "speed"), "'speed'"),
    (("table", "{}", "--objectives", "backbone"), "'backbone'"),
    (("export", "{}", "--format", "xlsx"), "'xlsx'"),
    (("export", "{}", "--format", "cvs"), "'csv'"),
    (("export", "{}", "--out", "nowhere/x.csv"), "nowhere/x.csv"),
    (("export", "{}", "--out", "."), "'.'"),
    (("plot", "{}", "--x", "flop"), "'flops'"),
    (("plot", "{}", "--y", "method"), "'method'"),
    (("plot", "{}", "--y", "energy_j"), "energy_j"),
    (("plot", "{}", "--logx"), "--logx"),
    (("plot", "{}", "--ranks", "--logx"), "--logx"),
    (("plot", "{}", "--ranks", "--pareto"), "--pareto"),
    (("plot", "{}", "--ranks", "--y", "batch_size"), "'batch_size'"),
    (("plot", "{}", "--ranks", "--where", "method == plain"), "rank"),
    (("plot", "{}", "--x", "flops", "--strict"), "--pareto"),
    (("export", "{}", "--strict"), "csv"),
    (("compare", "{0}", "{0}", "--column", "seeds"), "'seeds'"),
    (("compare", "{0}", "{0}", "--fail-above", "0"), "--fail-above"),
    (("plot", "{}", "--color", "colour"), "'colour'"),
    (("plot", "{}", "--x", "flops", "--out", "fig.gif"), ".png, .svg or .pdf"),
    (("plot", "{}", "--x", "flops", "--out", "nowhere/fig.png"), "nowhere/fig.png"),
    (("plot", "{}", "--out", "nowhere/fig.png"), "nowhere/"),
    (("plot", "{}", "--where", "params < 0"), "plot"),
]


@pytest.mark.parametrize(("arguments", "message"), READING, ids=lambda value: " ".join(value)[:60])
def test_a_good_run_directory_read_wrongly(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_directory: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(run_directory.iterdir())
    outcome = command(*(argument.format(run_directory) for argument in arguments))
    _is_one_line(outcome.err, message)
    assert outcome.code == 2
    assert list(tmp_path.iterdir()) == []
    assert sorted(run_directory.iterdir()) == before


@pytest.mark.parametrize("name", ["table", "export", "plot", "sweep"])
@pytest.mark.parametrize("harm", ["newer", "damaged", "other"])
def test_a_store_that_cannot_be_read(command: Command, tmp_path: Path, name: str, harm: str) -> None:
    path = tmp_path / FILE_NAME
    if harm == "damaged":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    elif harm == "other":
        sqlite3.connect(path).execute("CREATE TABLE cats (name)").connection.close()
    else:
        Store.create(tmp_path).__exit__(None, None, None)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    message = {"newer": "newer", "damaged": "damaged", "other": FILE_NAME}[harm]
    given = ("--backbone", "resnet18", "--out", tmp_path) if name == "sweep" else (tmp_path,)
    outcome = command(name, *given)
    _is_one_line(outcome.err, message)
    assert outcome.code == 2


def test_a_foreign_folder_and_a_file_are_no_run_directories(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out, message in ((tmp_path, str(tmp_path)), (tmp_path / "notes.txt", "notes.txt")):
        outcome = command("sweep", "--backbone", "resnet18", "--out", out)
        _is_one_line(outcome.err, message)
        assert outcome.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_traceback_is_for_debug_alone(command: Command) -> None:
    quiet = command("table", "nowhere")
    loud = command("table", "nowhere", "--debug")
    assert quiet.code == loud.code == 2
    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err
    assert loud.err.endswith(quiet.err)


def test_a_full_disk_is_a_failure_of_the_run(command: Command, run_directory: Path) -> None:
    outcome = command("export", run_directory, "--out", "/dev/full")
    _is_one_line(outcome.err, "/dev/full")
    assert outcome.code == 1


def test_a_full_disk_behind_standard_output(run_directory: Path) -> None:
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "wnexplore", "export", str(run_directory)]
        shown = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    _is_one_line(shown.stderr, "standard output")
    assert shown.returncode == 1


def _is_one_line(text: str, message: str) -> None:
    assert text.startswith("wnexplore: "), text
    assert text.count("\n") == 1, text
    assert message in text
    assert "Traceback" not in text
