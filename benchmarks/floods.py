"""Pings of one client beside floods of another, over each transport, and the daemon's memory before and after.

Goal: the 99th percentile of a ping is at most 100 ms beside any flood, and memory doesn't grow with the flood. Each
flood is a process that sends bad requests as fast as it can and reads the answers (`deaf` reads none). The pings come
from this process, 20 a second, each over every transport in turn. A datagram that the system drops is sent again after
50 ms, which counts as part of its ping.

python -m benchmarks floods [--seconds S] [FLOOD...]
"""

import argparse
import contextlib
import json
import multiprocessing
import multiprocessing.synchronize
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import zmq
from pythonosc.osc_message_builder import OscMessageBuilder
from websockets.sync.client import connect

from benchmarks.daemon import Client, Ports, daemon
from benchmarks.machine import machine
from timbred.protocol.osc_packets import encode_slip

PING_INTERVAL_S = 0.05
MAX_PING_MS = 100.0
RESEND_AFTER_S = 0.05
CLIENT_COUNTS = {"tcp clients": 100, "zmq clients": 200, "websocket clients": 50}
"""Number of clients of the floods with many clients."""

_INVALID_BUNDLE = b"".join(encode_slip(b"x") for _ in range(2000))
_HTTP_REQUEST = b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def _osc(address: str) -> bytes:
    return OscMessageBuilder(address).build().dgram


def _read_all(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(1 << 16):
            pass


def _flood_tcp(ports: Ports, *, reads: bool = True) -> None:
    with socket.create_connection(("127.0.0.1", ports.osc)) as connection:
        if reads:
            threading.Thread(target=_read_all, args=(connection,), daemon=True).start()
        while True:
            connection.sendall(_INVALID_BUNDLE)


def _flood_without_reading(ports: Ports) -> None:
    _flood_tcp(ports, reads=False)


def _flood_udp(ports: Ports) -> None:
    packet = _osc("/timbred/sing")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        while True:
            connection.sendto(packet, ("127.0.0.1", ports.osc))


def _flood_bundles(ports: Ports) -> None:
    packet = _osc("/timbred/sing")
    bundle = b"#bundle\0" + bytes(7) + b"\1" + (len(packet).to_bytes(4, "big") + packet) * 2500
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        while True:
            connection.sendto(bundle, ("127.0.0.1", ports.osc))


def _flood_zmq(ports: Ports) -> None:
    connection = zmq.Context.instance().socket(zmq.DEALER)
    connection.connect(f"tcp://127.0.0.1:{ports.requests}")
    while True:
        connection.send_multipart([b"{", b"x" * 200, b"y"])
        while connection.poll(0):
            connection.recv()


def _flood_multiparts(ports: Ports) -> None:
    """Send a hundred messages from each new client."""
    context = zmq.Context.instance()
    while True:
        with context.socket(zmq.DEALER) as connection:
            connection.set(zmq.LINGER, 0)
            connection.connect(f"tcp://127.0.0.1:{ports.requests}")
            for _ in range(100):
                connection.send_multipart([b"", b"x" * 1000, b"", b"y"])
            for _ in range(100):
                if not connection.poll(1000):
                    break
                connection.recv_multipart()


def _flood_websocket(ports: Ports) -> None:
    with connect(f"ws://127.0.0.1:{ports.http}/ws", proxy=None, max_queue=None) as connection:
        threading.Thread(target=lambda: [None for _ in connection], daemon=True).start()
        while True:
            connection.send("{")


def _flood_http(ports: Ports) -> None:
    with socket.create_connection(("127.0.0.1", ports.http)) as connection:
        threading.Thread(target=_read_all, args=(connection,), daemon=True).start()
        while True:
            connection.sendall(_HTTP_REQUEST * 100)


def _many(flood: Callable[[Ports], None], count: int) -> Callable[[Ports], None]:
    def run(ports: Ports) -> None:
        threads = [threading.Thread(target=flood, args=(ports,), daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def _flood_models(ports: Ports) -> None:
    connection = zmq.Context.instance().socket(zmq.DEALER)
    connection.connect(f"tcp://127.0.0.1:{ports.requests}")
    while True:
        connection.send(b'{"type": "models"}')
        while connection.poll(0):
            connection.recv()


FLOODS_BY_NAME: dict[str, Callable[[Ports], None]] = {
    "tcp": _flood_tcp,
    "deaf": _flood_without_reading,
    "udp": _flood_udp,
    "bundles": _flood_bundles,
    "zmq": _flood_zmq,
    "multiparts": _flood_multiparts,
    "websocket": _flood_websocket,
    "http": _flood_http,
    "models": _flood_models,
    "tcp clients": _many(_flood_tcp, CLIENT_COUNTS["tcp clients"]),
    "zmq clients": _many(_flood_zmq, CLIENT_COUNTS["zmq clients"]),
    "websocket clients": _many(_flood_websocket, CLIENT_COUNTS["websocket clients"]),
}


def _run(name: str, ports: Ports, started: multiprocessing.synchronize.Event) -> None:
    started.set()
    with contextlib.suppress(OSError):
        FLOODS_BY_NAME[name](ports)


@contextlib.contextmanager
def flood(name: str, ports: Ports) -> Generator[None]:
    """Run a flood in a separate process."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_run, args=(name, ports, started), daemon=True)
    process.start()
    started.wait()
    try:
        yield
    finally:
        process.kill()
        process.join()


class Pinger:
    """Clients of all transports that measure pings."""

    def __init__(self, ports: Ports) -> None:
        self._stack = contextlib.ExitStack()
        udp = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.connect(("127.0.0.1", ports.osc))
        tcp = self._stack.enter_context(socket.create_connection(("127.0.0.1", ports.osc)))
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._stack.enter_context(zmq.Context.instance().socket(zmq.DEALER))
        connection.set(zmq.LINGER, 0)
        connection.connect(f"tcp://127.0.0.1:{ports.requests}")
        web = self._stack.enter_context(connect(f"ws://127.0.0.1:{ports.http}/ws", proxy=None))
        ping, json_ping = _osc("/timbred/ping"), json.dumps({"type": "ping"})
        framed = encode_slip(ping)
        udp.settimeout(RESEND_AFTER_S)

        def by_udp() -> None:
            while True:
                udp.send(ping)
                try:
                    udp.recv(4096)
                except TimeoutError:
                    continue
                return

        def by_tcp() -> None:
            tcp.sendall(framed)
            tcp.recv(4096)

        def by_zmq() -> None:
            connection.send(json_ping.encode())
            connection.recv()

        def by_websocket() -> None:
            web.send(json_ping)
            web.recv()

        self.pings = {"udp": by_udp, "tcp": by_tcp, "zmq": by_zmq, "websocket": by_websocket}

    def measure(self, seconds: float) -> dict[str, list[float]]:
        """Return the milliseconds of each ping, by transport."""
        times: dict[str, list[float]] = {name: [] for name in self.pings}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, ping in self.pings.items():
                started_at = time.perf_counter()
                ping()
                times[name].append(1000 * (time.perf_counter() - started_at))
            time.sleep(PING_INTERVAL_S)
        return times

    def close(self) -> None:
        """Close all connections."""
        self._stack.close()


def percentile(times: list[float], share: float) -> float:
    """Return the time that this share of all pings does not exceed."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def memory_mb(process: int) -> float:
    """Return the resident memory of a process; 0 where the system does not report it."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text("ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


def _measure_flood(client: Client, name: str, seconds: float) -> bool:
    """Print one flood's row; return True if the goal was met."""
    pinger = Pinger(client.ports)
    before = memory_mb(client.process)
    try:
        if name == "none":
            times = pinger.measure(seconds)
        else:
            with flood(name, client.ports):
                time.sleep(0.5)
                times = pinger.measure(seconds)
    finally:
        pinger.close()
    worst = max(percentile(times[transport], 0.99) for transport in times)
    columns = "  ".join(f"{percentile(times[transport], 0.99):7.1f}" for transport in times)
    print(f"  {name:18}{columns}  {before:7.0f} {memory_mb(client.process):7.0f}", flush=True)
    return worst <= MAX_PING_MS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks floods")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("floods", nargs="*", default=["none", *FLOODS_BY_NAME])
    chosen = parser.parse_args(sys.argv[1:])
    print(f"99th percentile of a ping in ms beside floods, and the daemon's memory in MB; {machine()}")
    print(f"  {'flood':18}{'udp':>7}  {'tcp':>7}  {'zmq':>7}  {'web':>7}   before   after")
    with daemon("models.preload=0", model=None) as client:
        met = [_measure_flood(client, name, chosen.seconds) for name in chosen.floods]
    print(f"  goal of {MAX_PING_MS:g} ms missed beside {met.count(False)} of {len(met)}")


if __name__ == "__main__":
    main()
