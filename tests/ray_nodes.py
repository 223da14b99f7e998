"""A Ray cluster of several nodes on this machine, in a process of its own: `python -m tests.ray_nodes FOLDER`.

Reads commands from standard input, one JSON object a line, and answers each with one line. It never runs in the process
of the tests, because Ray's threads don't survive the forks there. The head node has no CPUs; engines run on the others,
each of which has a cache folder of its own below FOLDER.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

OBJECT_STORE_BYTES = 80_000_000
"""Memory of each node's object store: about the least that Ray accepts."""


class RayNodes:
    """The nodes, each by its number in the order of its start; the head is 0."""

    def __init__(self, folder: Path) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # a short path: sockets lie in it
        (self.temporary / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = str(self.temporary)  # before Ray is imported
        from ray.cluster_utils import Cluster  # pyright: ignore  # there only with the extra `cluster`

        from tests.free_ports import free_port

        self.folder = folder
        self.port = free_port()
        self.cluster: Any = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "ray_client_server_port": self.port,
                "object_store_memory": OBJECT_STORE_BYTES,
            },
        )
        self.nodes: list[Any] = [self.cluster.head_node]

    def add_node(self, cpus: float = 1, **variables: str) -> int:
        """Start a node, with further environment variables; returns its number."""
        number = len(self.nodes)
        cache = self.cache(number)
        cache.mkdir(parents=True, exist_ok=True)
        node = self.cluster.add_node(
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            env_vars={"XDG_CACHE_HOME": str(cache), **variables},
        )
        self.nodes.append(node)
        return number

    def cache(self, number: int) -> Path:
        """The cache folder of a node."""
        return self.folder / f"node-{number}"

    def kill_node(self, number: int) -> None:
        """End a node's processes at once, as a power cut does."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)

    def remove_node(self, number: int) -> None:
        """End a node as `ray stop` does."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=True)

    def engines(self) -> dict[int, list[int]]:
        """Process ids of the engines on each node."""
        found: dict[int, list[int]] = {}
        for number, node in enumerate(self.nodes):
            found[number] = []
            for info in node.all_processes.get("raylet", []):
                if info.process.poll() is None:
                    children = psutil.Process(info.process.pid).children(recursive=True)
                    found[number] += [child.pid for child in children if _is_engine(child)]
        return found

    def stop(self) -> None:
        """End all nodes."""
        self.cluster.shutdown()
        shutil.rmtree(self.temporary, ignore_errors=True)


def _is_engine(process: psutil.Process) -> bool:
    try:
        return any("fake_engine" in word or "timbred.engine" in word for word in process.cmdline())
    except psutil.Error:
        return False


def main() -> int:
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray's own lines go to standard error
    nodes = RayNodes(folder)
    print(json.dumps({"port": nodes.port}), file=answers, flush=True)
    try:
        for line in sys.stdin:
            command: dict[str, Any] = json.loads(line)
            name, arguments = command.pop("command"), command
            print(json.dumps({"result": getattr(nodes, name)(**arguments)}), file=answers, flush=True)
            if name == "stop":
                break
        else:
            nodes.stop()
    finally:
        answers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
