from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sweeps import TRAINED, write_sweep
from wnexplore.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line as the shell would, in this process."""

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a small sweep, counted, timed and trained."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.raises(SystemExit) as stop:
        main(["sweep", str(write_sweep(folder, TRAINED)), "--out", str(folder / "run")])
    assert stop.value.code == 0
    return folder / "run"
