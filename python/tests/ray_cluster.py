"""A cluster of Ray on one machine, and ways to break it; for tests and `bench/ray_faults.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.cluster_utils import Cluster

STORE = 150 << 20
HEALTH = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 500, "health_check_failure_threshold": 10}
ENVIRONMENT = {"RAYON_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


class Nodes:
    """A head without CPUs, on which the driver is, and nodes of one CPU."""

    def __init__(self, nodes: int = 3) -> None:
        os.environ.update(ENVIRONMENT)
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": STORE,
                # A node that is lost is noticed within seconds, not a minute.
                "_system_config": HEALTH,
            },
        )
        self.size = nodes
        self.nodes = [self.add() for _ in range(nodes)]
        self.connect()

    def connect(self) -> None:
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        self.cluster.wait_for_nodes()

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE)

    def stop(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()

    def working(self, name: str = "") -> list[tuple[int, Any]]:
        """Processes that are at work on something of such a name, each with its node."""
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in self.nodes}
        found = []
        for place in Path("/proc").iterdir():
            if not place.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError, ValueError):
                title = (place / "cmdline").read_bytes().decode(errors="replace")
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets and title.startswith("ray::") and name in title and "IDLE" not in title:
                    found.append((int(place.name), raylets[parent]))
        return found

    def break_one(self, kind: str, name: str = "", wait: float = 20) -> bool:
        """Kill a worker, an actor or a node on which something of such a name is at work."""
        until = time.monotonic() + wait
        while not (found := self.working(name)):
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        pid, node = found[0]
        if kind == "worker":
            os.kill(pid, signal.SIGKILL)
        elif kind == "actor":
            ids = [key for key, actor in ray._private.state.actors().items() if actor["Pid"] == pid]
            if not ids:
                return False
            worker = ray._private.worker.global_worker
            worker.core_worker.kill_actor(ray.ActorID(bytes.fromhex(ids[0])), False)
        else:
            self.nodes.remove(node)
            # At once, as when a machine loses its power; `remove_node` then takes note of it.
            for process in node.all_processes["raylet"]:
                process.process.kill()
            self.cluster.remove_node(node, allow_graceful=False)
        return True

    @contextlib.contextmanager
    def breaking(self, kind: str, name: str, ready: Callable[[], bool], times: int = 1) -> Iterator[list[bool]]:
        """Break something in the background, once it is time; what is given tells whether it was."""
        done: list[bool] = []

        def work() -> None:
            for _ in range(times):
                while not ready() and not over.is_set():
                    time.sleep(0.02)
                if over.is_set():
                    return
                done.append(self.break_one(kind, name))

        over = threading.Event()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield done
        finally:
            over.set()
            thread.join(60)
            # A node that answers late, on a busy machine, is taken for dead and ends by itself.
            for node in [n for n in self.nodes if n.all_processes["raylet"][0].process.poll() is not None]:
                self.nodes.remove(node)
                self.cluster.remove_node(node, allow_graceful=False)
            # Nodes can be added by the main thread only, and are not needed for the work to end.
            while len(self.nodes) < self.size:
                self.nodes.append(self.add())
