"""Nodes of a Ray cluster killed in mid-render: requests lost or answered twice, and the times of requests.

Three nodes run on this machine (`ray.cluster_utils.Cluster`), each with room for one engine. The engine is
`tests/fake_engine.py`, so that the figures are those of the supervision. For each kill three requests are sent, one is
held at its second step, its node is killed, and a new node joins. Before, requests are timed with an engine of the
daemon and with one in the cluster: the difference is what Ray adds on this machine, without a network.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.chaos_stage import CountingClient, Event, chaos_daemon, wait_for_exit
from tests.processes import python_path
from tests.ray_cluster import FAKE_ENGINE, ROOT, RayCluster

NODE_COUNT = 3
KILL_COUNT = 20
REQUESTS_PER_KILL = 3

TIMED_REQUESTS = 20
TIMED_SOUND_S = 5.0

EXIT_TIMEOUT_S = 60.0
"""Seconds in which the engine of a killed node exits."""


def main() -> None:
    """Print the counts and the recovery times."""
    parser = argparse.ArgumentParser(prog="benchmarks node_losses")
    parser.add_argument("--kills", type=int, default=KILL_COUNT)
    kills: int = parser.parse_args().kills

    with tempfile.TemporaryDirectory(prefix="node-losses-") as folder:
        cluster = RayCluster(Path(folder), NODE_COUNT)
        try:
            os.environ |= {"TIMBRED_ENGINE_PROGRAM": FAKE_ENGINE, "PYTHONPATH": python_path(ROOT, ROOT / "daemon")}
            with chaos_daemon("player.device=none") as daemon:
                local_s = time_requests(CountingClient(daemon.ports))
            with chaos_daemon("player.device=none", f"engines={cluster.address} 1") as daemon:
                client = CountingClient(daemon.ports)
                report_times(local_s, time_requests(client))
                recovery_s = [
                    kill_one(cluster, client, Path(folder) / f"go-{number}", number) for number in range(kills)
                ]
                client.wait_for_ends()
                client.close()
        finally:
            cluster.stop()
    report(client, kills, recovery_s)


def time_requests(client: CountingClient) -> list[float]:
    """Return the seconds from a request to its finished file, of several one after the other."""
    seconds: list[float] = []
    for number in range(TIMED_REQUESTS + 1):
        sent_at = time.monotonic()
        client.send("generate", id=f"timed-{number}", prompt="pad", seconds=TIMED_SOUND_S, steps=4)
        end = client.until_end(f"timed-{number}")
        if end is None or end["type"] != "done":
            raise RuntimeError(f"no sound: {end}")
        seconds.append(time.monotonic() - sent_at)
    return seconds[1:]  # the first one waits for the engine


def report_times(local_s: list[float], cluster_s: list[float]) -> None:
    """Print what the cluster adds to a request."""
    local_ms, cluster_ms = (1e3 * statistics.median(seconds) for seconds in (local_s, cluster_s))
    print(
        f"request to file, {TIMED_SOUND_S:g} s of sound: engine of the daemon {local_ms:.0f} ms, "
        f"engine in the cluster {cluster_ms:.0f} ms (medians of {TIMED_REQUESTS})",
        flush=True,
    )


def kill_one(cluster: RayCluster, client: CountingClient, go: Path, number: int) -> float:
    """Kill the node of a held request, and return the seconds until it is done elsewhere."""
    held = f"held-{number}"
    client.send("generate", id=held, prompt=f"wait {go}", seconds=0.5, steps=3)
    for other in range(1, REQUESTS_PER_KILL):
        client.send("generate", id=f"beside-{number}-{other}", prompt="pad", seconds=0.5, steps=3)
    client.until(lambda event: is_step(event, held))
    ((node, pids),) = cluster.engines().items()
    engines = [psutil.Process(pid) for pid in pids]
    killed_at = time.monotonic()
    cluster.kill_node(node)
    if not wait_for_exit(engines, EXIT_TIMEOUT_S):
        raise RuntimeError(f"an engine of the killed node {node} goes on")
    go.touch()
    end = client.until_end(held)
    seconds = time.monotonic() - killed_at
    cluster.add_node()
    print(f"  kill {number + 1}: {end['type'] if end else 'no end'} after {seconds:.1f} s", flush=True)
    return seconds


def is_step(event: Event, name: str) -> bool:
    """Report whether an event is a denoising step of a request."""
    return event["type"] == "progress" and event.get("id") == name and event["step"] > 0


def report(client: CountingClient, kills: int, recovery_s: list[float]) -> None:
    """Print the counts."""
    ends = [client.end_counts[name] for name in client.request_ids]
    print(f"{kills} kills of one of {NODE_COUNT} nodes in mid-render; {len(ends)} requests: {dict(client.end_types)}")
    print(f"lost: {ends.count(0)}; answered twice: {sum(count > 1 for count in ends)}; takes: {len(client.takes)}")
    median_s, longest_s = statistics.median(recovery_s), max(recovery_s)
    print(f"from the kill to the finished file: median {median_s:.1f} s, longest {longest_s:.1f} s")


if __name__ == "__main__":
    main()
