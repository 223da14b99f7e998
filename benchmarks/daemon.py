"""A daemon process for one benchmark, and a client that times its requests."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import zmq

ANSWER_TIMEOUT_MS = 300_000
"""Milliseconds without an answer after which a benchmark fails."""


@dataclass(frozen=True)
class Ports:
    """Ports at which a daemon receives requests and publishes events (`events`)."""

    osc: int
    requests: int
    events: int
    http: int


class Client:
    """A ZeroMQ client of a daemon; `process` is the daemon's process id."""

    def __init__(self, ports: Ports, process: int) -> None:
        self.ports = ports
        self.osc = ports.osc
        self.process = process
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.connect(f"tcp://127.0.0.1:{ports.requests}")
        self._number = 0

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request without waiting for events."""
        self._socket.send_json({"type": kind, **keys})

    def until(self, *kinds: str) -> dict[str, Any]:
        """Return the next event of one of these types; a `fail` raises RuntimeError."""
        while True:
            if not self._socket.poll(ANSWER_TIMEOUT_MS):
                raise TimeoutError(f"no {' or '.join(kinds)} came")
            event = json.loads(self._socket.recv())
            if event["type"] == "fail":
                raise RuntimeError(event["message"])
            if event["type"] in kinds:
                return event

    def time_generate(self, **keys: Any) -> float:
        """Return the seconds from a `generate` request to its finished file."""
        self._number += 1
        started_at = time.perf_counter()
        self.send("generate", id=self._number, **keys)
        self.until("done")
        return time.perf_counter() - started_at

    def close(self) -> None:
        """Close the socket without waiting for unsent messages."""
        self._socket.close(linger=0)


@contextmanager
def daemon(*settings: str, model: str | None = "pocket") -> Generator[Client]:
    """Run a daemon on free ports, with this model resident unless it is None."""
    with tempfile.TemporaryDirectory() as takes:
        command = [sys.executable, "-m", "timbred", "serve"]
        for setting in (
            f"takes.folder={takes}",
            "osc.port=0",
            "zmq.requests=0",
            "zmq.events=0",
            "http.port=0",
            *settings,
        ):
            command += ["--set", setting]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        client = Client(_ports_of(process.stdout.readline()), process.pid)
        try:
            if model is not None:
                client.send("load", model=model)
                client.until("loaded")
            yield client
        finally:
            client.close()
            process.terminate()
            process.wait()


def _ports_of(ready_line: str) -> Ports:
    """Parse the ports in a daemon's first line of output."""
    named = dict(part.split("=") for part in ready_line.split()[1:])
    requests, events = map(int, named["zmq"].split(","))
    return Ports(int(named["osc"]), requests, events, int(named["http"]))
