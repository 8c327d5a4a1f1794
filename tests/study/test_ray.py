"""The same sweep in one process, and on three nodes of a Ray cluster that lose processes now and then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.study.cluster import Nodes
from tests.study.faults import FULL, broken, kill_driver, kill_ray_worker, told, unbroken
from wnexplore.design.protocol import TrainSpec
from wnexplore.errors import InputError
from wnexplore.study.ray_cluster import RayCluster, connected
from wnexplore.study.remote import Needs, installed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.cluster.shutdown()


def test_lost_workers_nodes_and_commands_change_no_record(nodes: Nodes, tmp_path: Path) -> None:
    file, alone = unbroken(tmp_path / "sweep", FULL)
    directory = tmp_path / "run"
    command = ("sweep", file, "--out", directory, "--ray", nodes.address)
    starts, said = broken(command, [kill_ray_worker, nodes.kill_one, kill_driver], 3)
    assert starts > 1
    assert told(directory) == alone
    assert any("measures latencies" in line for line in said)


def test_a_node_that_lacks_something_is_refused_with_one_line(nodes: Nodes, tmp_path: Path) -> None:
    folder = TrainSpec(data=f"folder:{tmp_path / 'nowhere'}", device="cpu", epochs=1)
    needs = Needs(str(tmp_path), versions=installed())
    with connected(nodes.address):
        assert len(RayCluster(needs).survey()) == 3
        for lacking, said in (
            (replace(needs, versions={**installed(), "torch": "1.0"}), r"node .* it has torch .*, not 1\.0"),
            (replace(needs, sources={f"{tmp_path}/gone.py:tiny": "0"}), "node .* can't read .*gone.py"),
            (replace(needs, data=folder), "node .*nowhere"),
        ):
            with pytest.raises(InputError, match=said):
                RayCluster(lacking).survey()


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1"), ("ray://127.0.0.1:1", "expected HOST:PORT")],
)
def test_where_no_cluster_is_one_line_says_so(address: str, said: str) -> None:
    with pytest.raises(InputError, match=said), connected(address):
        pass
