"""A Ray cluster on this machine that tests talk to: see `tests.ray_nodes`, which runs it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.patience import TIMEOUT_S
from tests.processes import python_path

ROOT = Path(__file__).parents[1]
FAKE_ENGINE = f"{sys.executable} -m tests.fake_engine"
POLL_INTERVAL_S = 0.05


class RayCluster:
    """The cluster's process, with the head node and as many others as are named.

    Args:
        folder: Folder for the nodes' caches and the cluster's log.
        nodes: Nodes with one CPU beside the head.
        variables: Further environment variables of all nodes.
    """

    def __init__(self, folder: Path, nodes: int = 3, **variables: str) -> None:
        self.folder = folder
        self.log = folder / "ray.txt"
        self._errors = self.log.open("wb")
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(ROOT, ROOT / "daemon"),
            "TIMBRED_ENGINE_PROGRAM": FAKE_ENGINE,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GRPC_ENABLE_FORK_SUPPORT": "0",  # as docs/laptop-and-rack.md says
            "RAY_worker_niceness": "0",
            **variables,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.ray_nodes", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
        self.port = int(self._answer()["port"])
        self.nodes = [self.add_node() for _ in range(nodes)]

    @property
    def address(self) -> str:
        """The address of the Ray client server on the head node."""
        return f"ray://127.0.0.1:{self.port}"

    def add_node(self, cpus: float = 1, **variables: str) -> int:
        """Start a node; returns its number."""
        return int(self._ask("add_node", cpus=cpus, **variables))

    def kill_node(self, number: int) -> None:
        """End a node's processes at once."""
        self._ask("kill_node", number=number)

    def remove_node(self, number: int) -> None:
        """End a node as `ray stop` does."""
        self._ask("remove_node", number=number)

    def engines(self) -> dict[int, list[int]]:
        """Process ids of the engines on each node that has any."""
        found: dict[str, list[int]] = self._ask("engines")
        return {int(number): pids for number, pids in found.items() if pids}

    def wait_for_engines(self, number: int) -> dict[int, list[int]]:
        """Wait until so many engines run; their process ids on each node."""
        deadline = time.monotonic() + TIMEOUT_S
        while sum(map(len, (engines := self.engines()).values())) != number:
            assert time.monotonic() < deadline, f"{engines}, waiting for {number}"
            time.sleep(POLL_INTERVAL_S)
        return engines

    def copies(self, number: int) -> list[Path]:
        """The complete copies of models in a node's cache."""
        folder = self.folder / f"node-{number}" / "timbred" / "models"
        return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []

    def stop(self) -> None:
        """End the cluster, and prove that no process is left."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        guard = threading.Timer(TIMEOUT_S, self.process.kill)
        guard.start()
        try:
            self._ask("stop")
            assert self.process.wait(TIMEOUT_S) == 0
        finally:
            guard.cancel()
            _, left = psutil.wait_procs(family, 10.0)
            for process in (*left, self.process):
                process.kill()
            self.process.wait()
            self._errors.close()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
        assert not left, f"left running: {left}"

    def _ask(self, command: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()["result"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the cluster's process ended:\n{self.log.read_text('utf-8', 'replace')[-4000:]}"
        return json.loads(line)
