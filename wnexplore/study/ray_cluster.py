"""Tasks on the nodes of a Ray cluster, as Ray Core tasks: the store, not Ray, is the record of what is done.

A timing takes all processors and GPUs of its node, in a process of its own; other tasks a share: their
threads, and on a GPU one GPU. Ray retries nothing: the dispatcher does.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from wnexplore.errors import InputError, Notice, shown
from wnexplore.study.dispatch import Fault, Handle, Node, Returned
from wnexplore.study.hardware import Kind
from wnexplore.study.remote import Needs, Survey, perform_there, survey
from wnexplore.study.tasks import Task, TimingTask, TrainingTask


class RayCluster:
    """A backend of the nodes of a cluster, those that join later too.

    A node that lacks something of `needs` gets no task, and a line says why.
    """

    def __init__(self, needs: Needs) -> None:
        import ray

        self._ray: Any = ray
        self._perform: Any = ray.remote(max_retries=0)(perform_there)
        # A process that times does nothing after that, and by its environment nothing before; one that has
        # used a GPU would keep it.
        self._perform_once: Any = ray.remote(max_retries=0, max_calls=1)(perform_there)
        self._needs = needs
        self._known: dict[str, Node] = {}
        """Ray's id of each node that can be used -> the node."""
        self._refused: dict[str, str] = {}
        """Those that can't -> why."""
        self._asked: dict[str, Any] = {}
        self._resources: dict[str, dict[str, float]] = {}
        self._looked = float("-inf")
        self._alive: tuple[Node, ...] = ()
        self._ids: dict[str, str] = {}
        self._running: set[Any] = set()
        self._lost: set[str] = set()
        self._times: Kind | None = None

    def nodes(self) -> Sequence[Node]:
        """As `Backend.nodes`: those that are alive and have been looked at."""
        now = time.monotonic()
        if now > self._looked + _LOOK_S:
            self._looked = now
            self._look()
        return self._alive

    def measure_latencies_on(self, kind: Kind) -> None:
        """Let only nodes of `kind` measure latencies."""
        self._times, self._looked = kind, float("-inf")

    def survey(self) -> list[Node]:
        """All nodes that are there, once each was looked at. Raises `InputError` for one that lacks
        something, and if there is none with a processor."""
        until = time.monotonic() + _PATIENCE_S
        self._look()
        while self._asked and time.monotonic() < until:
            self._ray.wait(list(self._asked.values()), timeout=0.2)
            self._look()
        for why in self._refused.values():
            raise InputError(why)
        for node_id in self._asked:
            notice = f"node {node_id[:6]} has not answered in {_PATIENCE_S:g} s: it takes part when it does"
            warnings.warn(notice, Notice, stacklevel=1)
        if not self._alive:
            raise InputError("the Ray cluster has no node with a processor for tasks")
        return list(self._alive)

    def share(self, task: Task, node: Node) -> float:
        """As `Backend.share`."""
        wanted, there = self._share(task, self._ids[node.name]), self._resources[self._ids[node.name]]
        return max(wanted["num_cpus"] / there["CPU"], wanted["num_gpus"] / max(1, there.get("GPU", 0)))

    def start(self, task: Task, node: Node) -> Handle:
        """As `Backend.start`."""
        node_id = self._ids[node.name]
        share = self._share(task, node_id)
        tasks = "timing" if isinstance(task, TimingTask) else "gpu" if share["num_gpus"] else "shared"
        remote = (self._perform if tasks == "shared" else self._perform_once).options(
            scheduling_strategy=self._on(node_id), runtime_env=self._environment(node_id, tasks), **share
        )
        ref: Handle = remote.remote(task, self._needs.folder)
        self._running.add(ref)
        return ref

    def wait(self, seconds: float) -> Iterable[tuple[Handle, Returned | Fault]]:
        """As `Backend.wait`."""
        if not self._running:
            time.sleep(seconds)
            return
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        more, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        for ref in {*ended, *more}:
            self._running.discard(ref)
            result = self._result(ref)
            if isinstance(result, Fault):
                # Its node may be gone.
                self._looked = float("-inf")
            yield ref, result

    def cancel(self, handle: Handle) -> None:
        """As `Backend.cancel`."""
        self._running.discard(handle)
        with suppress(Exception):  # its node may be gone
            self._ray.cancel(handle, force=True)

    def end(self, *, kill: bool) -> None:
        """As `Backend.end`."""
        for ref in list(self._running):
            self.cancel(ref)

    def _look(self) -> None:
        """Ask the nodes that are new what they are, and forget those that are gone."""
        there = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        for node_id, node in there.items():
            self._resources[node_id] = node["Resources"]
            new = node_id not in self._known and node_id not in self._refused and node_id not in self._asked
            if new and node["Resources"].get("CPU", 0) >= 1:
                ask = self._ray.remote(survey).options(
                    num_cpus=0,
                    max_retries=0,
                    scheduling_strategy=self._on(node_id),
                    runtime_env=self._environment(node_id, "survey"),
                )
                self._asked[node_id] = ask.remote(self._needs)
        for node_id, ref in list(self._asked.items()):
            ready, _ = self._ray.wait([ref], timeout=0)
            if ready:
                del self._asked[node_id]
                self._take(node_id, there.get(node_id, {}).get("NodeManagerAddress", "?"), ref)
        for node_id in self._known.keys() - there.keys() - self._lost:
            self._lost.add(node_id)
            warnings.warn(f"node {self._known[node_id].name} is lost", Notice, stacklevel=1)
        self._alive = tuple(
            replace(
                node, times=self._times is None or Kind.of(node, self._times.device.device) == self._times
            )
            for node_id, node in self._known.items()
            if node_id in there
        )

    def _take(self, node_id: str, address: str, ref: Any) -> None:
        """Take the answer of a node."""
        try:
            found: Survey = self._ray.get(ref)
        except Exception as error:
            if node_id in {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}:
                self._refuse(node_id, f"node {address} can't run tasks: {_line(error)}")
            return
        name = f"{found.host} ({address}, {node_id[:6]})"
        if found.lacks is not None:
            self._refuse(node_id, f"node {name} can't run tasks as this machine would: {found.lacks}")
            return
        resources = self._resources[node_id]
        if resources.get("GPU", 0) >= 1 and "cuda" not in found.devices:
            self._refuse(node_id, f"node {name} has a GPU for Ray, which torch can't use there")
            return
        cores = int(resources["CPU"])
        devices = {
            # As many threads as Ray has processors there, which may be fewer than the machine's.
            device: replace(on, threads=None if on.threads is None else min(on.threads, cores))
            for device, on in found.devices.items()
            if device == "cpu" or resources.get("GPU", 0) >= 1
        }
        self._known[node_id] = Node(name, found.machine, cores, devices)
        self._ids[name] = node_id

    def _refuse(self, node_id: str, why: str) -> None:
        self._refused[node_id] = why
        if self._known:
            warnings.warn(why, Notice, stacklevel=1)

    def _on(self, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node_id, soft=False)

    def _environment(self, node_id: str, tasks: str) -> dict[str, Any]:
        """Of a process for some kind of tasks, which does no other kind."""
        variables = {
            "WNEXPLORE_TASKS": tasks,
            # Ray would let torch have as many threads as the task takes processors.
            "OMP_NUM_THREADS": str(int(self._resources[node_id]["CPU"])),
            # A task that takes no GPU may see them: the one that tells what its node has does.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        return {"env_vars": variables}

    def _share(self, task: Task, node_id: str) -> dict[str, float]:
        """What of its node a task takes."""
        there = self._resources[node_id]
        if isinstance(task, TimingTask):
            return {"num_cpus": there["CPU"], "num_gpus": there.get("GPU", 0)}
        on_gpu = isinstance(task, TrainingTask) and task.record.protocol["device"] == "cuda"
        threads = task.records[0].protocol.get("threads") or 1
        return {"num_cpus": min(threads, there["CPU"]), "num_gpus": 1 if on_gpu else 0}

    def _result(self, ref: Any) -> Returned | Fault:
        from ray import exceptions

        try:
            found: Returned | Fault = self._ray.get(ref)
            return found
        except exceptions.OutOfMemoryError as error:
            return Fault("out_of_memory", f"its node killed it to have memory: {_line(error)}")
        except exceptions.OutOfDiskError as error:
            return Fault("died", f"the object store's disk is full: {_line(error)}")
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError):
            return Fault("died", "its process or node died")
        except Exception as error:
            return Fault("raised", _line(error))


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connected to the cluster at `address` inside: "auto" is the one that runs on this machine, "local" one
    that is started for this and ends with it.

    Raises `InputError` if Ray isn't installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError('a cluster needs Ray: pip install "wnexplore[ray]"') from None
    if address not in ("auto", "local"):
        _check_answers(address)
    # What a record says of its machine is measured there; nothing is sent to Ray's makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray sets a handler of its own, which ends the process without a word.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
            namespace="wnexplore",
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        started = "ray start --head starts one" if address == "auto" else "is it there, and of this version?"
        raise InputError(f"no Ray cluster at {shown(address)}: {started} ({_line(error)})") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise `InputError` unless something answers there: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise InputError(
            f"--ray {shown(address)}: expected HOST:PORT of the cluster's head, as ray start prints it, and"
            " a machine that is one of its nodes"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"no Ray cluster at {shown(address)}: {error}") from None


def _line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {shown(lines[0].strip() if lines else '', 300)}"


_ANSWER_S = 5.0
_LOOK_S = 2.0
"""Seconds after which the nodes are asked for again."""
_PATIENCE_S = 120.0
"""Seconds for all nodes to load torch and answer."""
