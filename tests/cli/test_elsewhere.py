"""The options of processes and clusters."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.sweeps import TINY, write_sweep
from wnexplore.cli.elsewhere import with_address


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ([], []),
        (["sweep", "--ray"], ["sweep", "--ray=auto"]),
        (["sweep", "--ray", "--seeds", "2"], ["sweep", "--ray=auto", "--seeds", "2"]),
        (["sweep", "--ray", "head:6379"], ["sweep", "--ray", "head:6379"]),
        (["sweep", "--ray=head:6379", "-h"], ["sweep", "--ray=head:6379", "-h"]),
    ],
)
def test_a_bare_ray_is_the_cluster_of_this_machine(given: list[str], then: list[str]) -> None:
    assert with_address(given) == then


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "2", "--ray"), "--workers are processes of this machine, and --ray is a cluster"),
        (("--latency-on", "EPYC"), "--latency-on chooses among the nodes of a cluster: give --ray too"),
        (("--task-hours", "1"), "--task-hours limits tasks elsewhere: give --workers or --ray too"),
        (("--workers", "2", "--task-hours", "0"), "--task-hours is 0: expected a number above 0"),
        (("--workers", "2", "--task-hours", "nan"), "--task-hours is nan: expected a number above 0"),
        (("--workers", "0"), "--workers"),
        (("--ray", "nowhere"), "--ray nowhere: expected HOST:PORT of the cluster's head"),
        (("--ray", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1: "),
        (("--ray", "ray://127.0.0.1:10001"), "--ray ray://127.0.0.1:10001: expected HOST:PORT"),
    ],
)
def test_options_that_do_not_fit_and_clusters_that_are_not_there(
    tmp_path: Path, command: Command, options: tuple[str, ...], said: str
) -> None:
    file = write_sweep(tmp_path, TINY)
    outcome = command("sweep", file, "--out", tmp_path / "run", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_ray_one_line_says_how_to_install_it(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = command("sweep", write_sweep(tmp_path, TINY), "--out", tmp_path / "run", "--ray")
    assert outcome.code == 2
    assert outcome.err == 'wnexplore: a cluster needs Ray: pip install "wnexplore[ray]"\n'
