"""Chaos parts: floods, crowds, clients that don't read, and a full disk."""

import contextlib
import json
import random
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zmq
from pythonosc import slip

from benchmarks.chaos_stage import (
    LOOPBACK_ADDRESS,
    ChaosDaemon,
    CountingClient,
    Outcome,
    Reporter,
    Sizes,
    chaos_daemon,
)
from benchmarks.connections import Connection, TcpConnection, WebSocketConnection, ZmqConnection, encode_osc

PING_P99_S = 0.1
"""Limit of the 99th percentile of pings during a flood."""

MAX_RISE_MB = 48.0
"""Largest rise of the daemon's memory over a flood."""

SLOW_MAX_RISE_MB = 160.0
"""Largest rise with clients that don't read, whose unsent messages are bounded."""

SEED_PACKETS = (
    encode_osc("generate", {"id": "f1", "prompt": "kick", "seconds": 0.5, "model": "no such model"}),
    encode_osc("ping", {}),
    encode_osc("status", {}),
    encode_osc("cancel", {"id": "f1"}),
    encode_osc("sync", {"n": 1}),
    encode_osc("takes", {"search": "kick", "limit": 3}),
    encode_osc("play", {"voice": 1, "take": "none", "gain": -6.0}),
)


def mutate_packet(generator: random.Random) -> bytes:
    """Return a message with some bytes changed, cut, doubled or added."""
    packet = bytearray(generator.choice(SEED_PACKETS))
    for _ in range(generator.randint(1, 6)):
        match generator.randrange(5):
            case 0 if packet:
                packet[generator.randrange(len(packet))] = generator.randrange(256)
            case 1:
                del packet[generator.randrange(len(packet) + 1) :]
            case 2:
                packet += packet[: generator.randrange(64)]
            case 3:
                packet[0:0] = generator.randbytes(generator.randrange(8))
            case _:
                packet += generator.randbytes(generator.randrange(64))
    return bytes(packet[:8000])


def flood(kind: str, port: int, count: int, seed: int) -> int:
    """Send `count` messages of one kind as fast as possible, in a separate process; returns their number."""
    generator = random.Random(seed)
    match kind:
        case "datagrams":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
                line.connect((LOOPBACK_ADDRESS, port))
                for _ in range(count):
                    with contextlib.suppress(ConnectionError):
                        line.send(mutate_packet(generator))
        case "frames":
            frame = slip.encode(SEED_PACKETS[1])
            chunk = b"".join(
                [slip.encode(mutate_packet(generator)) if index % 10 == 0 else frame for index in range(1000)]
            )
            with socket.create_connection((LOOPBACK_ADDRESS, port)) as line, ThreadPoolExecutor(1) as reader:
                reading = reader.submit(_drain, line)
                for _ in range(max(1, count // 1000)):
                    line.sendall(chunk)
                line.shutdown(socket.SHUT_WR)
                reading.result()
        case _:
            with zmq.Context() as context, context.socket(zmq.DEALER) as line:
                line.linger = 30_000
                line.connect(f"tcp://{LOOPBACK_ADDRESS}:{port}")
                for index in range(count):
                    line.send_multipart([generator.randbytes(generator.randrange(40)) for _ in range(2 + index % 5)])
                    with contextlib.suppress(zmq.Again):
                        line.recv_multipart(zmq.NOBLOCK)
    return count


def _drain(line: socket.socket) -> int:
    byte_count = 0
    with contextlib.suppress(OSError):
        while part := line.recv(1 << 16):
            byte_count += len(part)
    return byte_count


def floods(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Send 10^6 mutated datagrams, 10^5 frames over TCP and 10^5 malformed multiparts, each beside pings."""
    outcomes: list[Outcome] = []
    for kind, full in (("datagrams", 1_000_000), ("frames", 100_000), ("multiparts", 100_000)):
        survived = Outcome(f"flood of {kind}: the daemon answers, its memory is bounded")
        prompt = Outcome(f"flood of {kind}: p99 of another client's ping at most {1000 * PING_P99_S:g} ms")
        with chaos_daemon("player.device=none", "models.preload=0", "log.level=error") as daemon:
            count = sizes.scaled_count(full)
            port = daemon.ports.requests if kind == "multiparts" else daemon.ports.osc
            _one_flood(daemon, kind, port, min(1000, count), sizes)
            before = daemon.memory_mb
            pings = _one_flood(daemon, kind, port, count, sizes)
            rise = daemon.memory_mb - before
            survived.attempts = count
            if not _pings(daemon, 1):
                survived.faults.append("no answer to a ping afterwards")
            if rise > MAX_RISE_MB:
                survived.faults.append(f"memory rose by {rise:.0f} MB")
        p99 = sorted(pings)[int(0.99 * len(pings))] if pings else 0.0
        report(f"    {kind}: p99 of {len(pings)} pings {1000 * p99:.0f} ms, memory {rise:+.0f} MB")
        prompt.attempts = len(pings)
        if sizes.check_times:
            prompt.faults += [
                f"a ping took {1000 * ping_s:.0f} ms" for ping_s in pings if p99 > PING_P99_S and ping_s >= p99
            ]
        outcomes += [survived, prompt]
    return outcomes


def _one_flood(daemon: ChaosDaemon, kind: str, port: int, count: int, sizes: Sizes) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.chaos_floods", kind, str(port), str(count), str(sizes.seed)]
    sender = subprocess.Popen(command)
    connection = TcpConnection(daemon.ports)
    pings: list[float] = []
    while sender.poll() is None:
        started_at = time.perf_counter()
        connection.send("ping")
        if connection.receive(60.0) is None:
            break
        pings.append(time.perf_counter() - started_at)
        time.sleep(0.005)
    connection.close()
    if sender.wait(600) != 0:
        raise RuntimeError(f"the sender of {kind} ended with {sender.returncode}")
    return pings


def _pings(daemon: ChaosDaemon, count: int) -> list[float]:
    connection = ZmqConnection(daemon.ports)
    times: list[float] = []
    try:
        for _ in range(count):
            started_at = time.perf_counter()
            connection.send("ping")
            if connection.receive(60.0) is None:
                return []
            times.append(time.perf_counter() - started_at)
    finally:
        connection.close()
    return times


def crowd(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Connect 400 TCP, 500 ZeroMQ and 200 WebSocket clients: each is answered, and each tenth gets its sound."""
    outcome = Outcome("crowd: each of 400 TCP, 500 ZeroMQ and 200 WebSocket clients is answered")
    _raise_descriptors()
    kinds: Sequence[tuple[type[Connection], int]] = (
        (TcpConnection, 400), (ZmqConnection, 500), (WebSocketConnection, 200)
    )  # fmt: skip
    with chaos_daemon("player.device=none", "queue.length=512") as daemon, contextlib.ExitStack() as stack:
        clients: list[tuple[str, Connection]] = []
        for kind, full in kinds:
            for number in range(sizes.scaled_count(full)):
                client = kind(daemon.ports)  # pyright: ignore[reportCallIssue]
                stack.callback(client.close)
                clients.append((f"{client.name} {number}", client))
        for _, client in clients:
            client.send("ping")
        for name, client in clients:
            event = client.receive(60.0)
            outcome.check(event is not None and event["type"] == "pong", f"{name} got {event} for a ping")
        makers = clients[::10]
        for number, (_, client) in enumerate(makers):
            client.send("generate", id=f"c{number}", prompt="kick", seconds=0.2, steps=2)
        for name, client in makers:
            event = client.receive(180.0)
            while event is not None and event["type"] not in ("done", "fail"):
                event = client.receive(180.0)
            outcome.check(event is not None and event["type"] == "done", f"{name}: its request ended with {event}")
        report(f"    {len(clients)} clients, {len(makers)} sounds, daemon {daemon.memory_mb:.0f} MB")
    return [outcome]


def _raise_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def slow_readers(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Send many requests from clients that read nothing: others are answered, memory stays bounded."""
    outcome = Outcome("slow readers: others are answered, unsent messages are bounded")
    with chaos_daemon("player.device=none", "models.preload=0") as daemon:
        _pings(daemon, 50)
        before = daemon.memory_mb
        with contextlib.ExitStack() as stack:
            request_count = sizes.scaled_count(40_000)
            line = stack.enter_context(socket.create_connection((LOOPBACK_ADDRESS, daemon.ports.osc)))
            line.settimeout(5.0)
            status = slip.encode(SEED_PACKETS[2]) * 100
            with contextlib.suppress(OSError):
                for _ in range(request_count // 100):
                    line.sendall(status)
            dealer = stack.enter_context(zmq.Context.instance().socket(zmq.DEALER))
            dealer.linger = 0
            dealer.sndtimeo = 5000
            dealer.connect(f"tcp://{LOOPBACK_ADDRESS}:{daemon.ports.requests}")
            with contextlib.suppress(zmq.Again):
                for _ in range(request_count):
                    dealer.send_json({"type": "models"})
            web = stack.enter_context(socket.create_connection((LOOPBACK_ADDRESS, daemon.ports.http)))
            web.settimeout(5.0)
            with contextlib.suppress(OSError):
                _open_websocket(web, daemon.ports.http)
                for _ in range(request_count // 100):
                    web.sendall(_text_frame(json.dumps({"type": "models"}).encode()) * 100)
            pings = _pings(daemon, 200)
            outcome.check(len(pings) == 200, "pings of another client weren't answered")
            rise = daemon.memory_mb - before
            outcome.check(rise < SLOW_MAX_RISE_MB, f"memory rose by {rise:.0f} MB")
        outcome.check(bool(_pings(daemon, 1)), "no answer after they disconnected")
        worst = 1000 * max(pings, default=0.0)
        report(f"    memory {rise:+.0f} MB beside them, the slowest of {len(pings)} pings {worst:.0f} ms")
    return [outcome]


def _open_websocket(line: socket.socket, port: int) -> None:
    line.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {LOOPBACK_ADDRESS}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    if b" 101 " not in line.recv(4096):
        raise ConnectionError("the daemon refused a WebSocket")


def _text_frame(text: bytes) -> bytes:
    """Return a text frame as clients send it; the mask is 0."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text


def full_disk(sizes: Sizes, report: Reporter) -> list[Outcome]:
    """Fill the disk of the takes folder: requests fail with disk-full, once each, and succeed after space is freed."""
    outcome = Outcome("full disk: each request has one end, files are complete, requests succeed after space is freed")
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        disk = Path(temporary) / "disk"
        disk.mkdir()
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
        )
        if mount.returncode:
            outcome.skipped = f"a small disk can't be mounted here ({mount.stderr.strip() or 'mount failed'})"
            return [outcome]
        try:
            folder = Path(temporary) / "daemon"
            folder.mkdir()
            daemon = ChaosDaemon(folder, "player.device=none", f"takes.folder={disk}")
            try:
                _fill(daemon, disk, sizes, outcome, report)
            finally:
                daemon.stop()
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return [outcome]


def _fill(daemon: ChaosDaemon, disk: Path, sizes: Sizes, outcome: Outcome, report: Reporter) -> None:
    client = CountingClient(daemon.ports)
    client.send("generate", id="first", prompt="kick", seconds=0.5, steps=2)
    outcome.check((client.until_end("first") or {}).get("type") == "done", "no sound before the disk is full")
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    for number in range(sizes.scaled_count(32)):
        client.send("generate", id=f"full{number}", prompt="pad", seconds=2.0, steps=2)
        client.until_end(f"full{number}")
    outcome.check(client.end_types["fail disk-full"] > 0, f"no request failed with disk-full: {dict(client.end_types)}")
    hidden = [path.name for path in disk.rglob("*") if path.name.startswith(".")]
    partial_files = [
        name for name in hidden if not name.startswith(".timbred")
    ]  # the library, and records of what was made
    outcome.check(not partial_files, f"incomplete files: {partial_files}")
    filler.unlink()
    client.send("generate", id="last", prompt="kick", seconds=0.5, steps=2)
    end = client.until_end("last")
    outcome.check(end is not None and end["type"] == "done", f"after space was freed a request ended with {end}")
    client.wait_for_ends()
    client.check_ends(outcome)
    report(f"    ends: {dict(client.end_types)}; {shutil.disk_usage(disk).free // 1024} KB free")
    client.close()


if __name__ == "__main__":
    flood(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
