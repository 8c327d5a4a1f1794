"""A Ray cluster of several nodes on this machine."""

from __future__ import annotations

import os
from typing import Any

import psutil


class Nodes:
    """A cluster of three nodes on this machine, of one processor each."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self.others = [self.add(), self.add()]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)

    def kill_one(self, pid: int) -> bool:
        """Kill a node's raylet, and let another node join."""
        (raylet,) = self.others.pop(0).all_processes["raylet"]
        psutil.Process(raylet.process.pid).kill()
        self.others.append(self.add())
        return True
