"""Shared parts of the chaos benchmark: a daemon that can be killed, a client that counts terminal events, outcomes."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq

from benchmarks.daemon import Ports

LOOPBACK_ADDRESS = "127.0.0.1"
TERMINAL_TYPES = ("done", "cancelled", "fail")

ANSWER_TIMEOUT_S = 180.0
"""Seconds without a terminal event after which a request counts as lost."""

READY_PATTERN = re.compile(r"ready osc=(\d+) zmq=(\d+),(\d+) http=(\d+)\n")
ENGINE_READY_PATTERN = re.compile(r"engine ready on .*, pid (\d+)")
PLAYER_READY_PATTERN = re.compile(r"playing on .* at \d+ Hz")

Event = dict[str, Any]
Reporter = Callable[[str], None]


@dataclass
class Outcome:
    """A guarantee, its attempts and failures; `recovery_s` are the recovery times in seconds."""

    guarantee: str
    attempts: int = 0
    faults: list[str] = field(default_factory=list[str])
    recovery_s: list[float] = field(default_factory=list[float])
    skipped: str = ""

    def check(self, held: bool, fault: str) -> None:
        """Count one attempt; `held` is False for a failure."""
        self.attempts += 1
        if not held:
            self.faults.append(fault)


@dataclass(frozen=True)
class Sizes:
    """Size of each part; `seed` determines moments and mutations, `check_times` makes slow pings fail."""

    scale: float = 1.0
    minutes: float = 15.0
    pause_s: float = 36.0
    seed: int = 0
    check_times: bool = True

    def scaled_count(self, full_count: int) -> int:
        """Return a count at this scale, at least 1."""
        return max(1, round(full_count * self.scale))


class ChaosDaemon:
    """A process of `timbred serve` on free ports with its own takes folder, temporary folder and log."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.takes = folder / "takes"
        self.log = folder / "log.txt"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "timbred", "serve"]
        for setting in (
            f"takes.folder={self.takes}", "osc.port=0", "zmq.requests=0", "zmq.events=0", "http.port=0",
            "discovery.announce=0", "log.level=info", *settings,
        ):  # fmt: skip
            command += ["--set", setting]
        self._errors = self.log.open("ab")
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment, start_new_session=True
        )
        assert self.process.stdout is not None
        match = READY_PATTERN.fullmatch(self.process.stdout.readline())
        if match is None:
            self.kill()
            raise RuntimeError(f"the daemon isn't ready; its log ends with: {self.log_text()[-2000:]}")
        self.ports = Ports(*map(int, match.groups()))
        self.process_info = psutil.Process(self.process.pid)

    def log_text(self) -> str:
        """Read the daemon's log."""
        return self.log.read_text("utf-8", "replace")

    @property
    def memory_mb(self) -> float:
        """Memory of the daemon's own process in MB."""
        return self.process_info.memory_info().rss / 1e6

    def engine(self) -> int:
        """Return the id of the latest engine process."""
        return int(ENGINE_READY_PATTERN.findall(self.log_text())[-1])

    def player(self) -> psutil.Process:
        """Return the latest player process."""
        return psutil.Process(int(re.findall(r"player ready, pid (\d+)", self.log_text())[-1]))

    def ready_count(self, pattern: re.Pattern[str]) -> int:
        """Count the log lines that match a pattern."""
        return len(pattern.findall(self.log_text()))

    def processes(self) -> list[psutil.Process]:
        """Return the daemon's process and all its descendants."""
        return [self.process_info, *self.process_info.children(recursive=True)]

    def stop(self) -> int | None:
        """Stop it with SIGTERM; returns its exit status, None if it had to be killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it and its children."""
        family = self.processes() if hasattr(self, "own") and self.process_info.is_running() else []
        self.process.kill()
        self.process.wait()
        for process in family[1:]:
            if process.is_running():
                process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


@contextmanager
def chaos_daemon(*settings: str) -> Generator[ChaosDaemon]:
    """Run a daemon for one part."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        daemon = ChaosDaemon(Path(folder), *settings)
        try:
            yield daemon
        finally:
            if daemon.process.poll() is None:
                daemon.stop()


class CountingClient:
    """A ZeroMQ client that counts the terminal events of each of its requests."""

    def __init__(self, ports: Ports) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.connect(f"tcp://{LOOPBACK_ADDRESS}:{ports.requests}")
        self.request_ids: list[str] = []
        self.end_counts: Counter[str] = Counter()
        self.end_types: Counter[str] = Counter()
        self.takes: list[Event] = []

    def send(self, kind: str, **keys: Any) -> None:
        """Send a request without waiting for events."""
        if kind in ("generate", "vary"):
            self.request_ids.append(str(keys["id"]))
        self._socket.send_json({"type": kind, **keys})

    def receive(self, seconds: float) -> Event | None:
        """Return the next event; None if none arrives within `seconds`."""
        if not self._socket.poll(max(0, round(1000 * seconds))):
            return None
        event: Event = json.loads(self._socket.recv_multipart()[0])
        name = str(event.get("id", ""))
        if event["type"] in TERMINAL_TYPES and name in self.request_ids:
            self.end_counts[name] += 1
            self.end_types[event["type"] if event["type"] != "fail" else f"fail {event['code']}"] += 1
        if event["type"] == "take":
            self.takes.append(event)
        return event

    def until(self, matches: Callable[[Event], bool], seconds: float = ANSWER_TIMEOUT_S) -> Event | None:
        """Return the next event that matches; None if none arrives within `seconds`."""
        deadline = time.monotonic() + seconds
        while (remaining_s := deadline - time.monotonic()) > 0:
            event = self.receive(remaining_s)
            if event is not None and matches(event):
                return event
        return None

    def until_end(self, name: str) -> Event | None:
        """Return the terminal event of a request."""
        return self.until(lambda event: str(event.get("id", "")) == name and event["type"] in TERMINAL_TYPES)

    def listen(self, seconds: float) -> None:
        """Receive all events for `seconds`."""
        self.until(lambda _: False, seconds)

    def wait_for_ends(self) -> None:
        """Wait until every request has a terminal event, then listen for surplus ones."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < deadline and any(not self.end_counts[name] for name in self.request_ids):
            self.receive(1.0)
        self.listen(1.0)

    def check_ends(self, outcome: Outcome) -> None:
        """Count each request as an attempt that fails unless it had exactly one terminal event."""
        for name in self.request_ids:
            outcome.check(self.end_counts[name] == 1, f"request {name} had {self.end_counts[name]} terminal events")

    def close(self) -> None:
        """Close the socket without waiting for unsent messages."""
        self._socket.close(linger=0)


def wait_for_exit(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Wait for the exit of processes; returns False if one still runs after `seconds`."""
    _, alive = psutil.wait_procs(list(processes), seconds)
    return not alive


def await_line(daemon: ChaosDaemon, pattern: re.Pattern[str], count: int, seconds: float = ANSWER_TIMEOUT_S) -> bool:
    """Wait until `count` lines of the log match a pattern; returns False after `seconds`."""
    deadline = time.monotonic() + seconds
    while daemon.ready_count(pattern) < count:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
