"""JACK servers without a card, for the player's figures."""

import os
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timbred.player.process.devices import terminate

RATE_HZ = 48_000
SERVER_PRIORITY = 70
"""Of a server among real-time threads, as a musician sets it; its clients have five less."""

QUIET_OPTIONS: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(frozen=True)
class JackServer:
    """A running server. `realtime`: whether the system let it have its priority."""

    name: str
    realtime: bool
    log: Path

    def count_xruns(self) -> int:
        """How often it said that something came late: itself, or a client. It tells all clients each time."""
        return self.log.read_text(errors="replace").count("XRun")

    def use(self) -> None:
        """Let this process and the children that it starts from now on play here."""
        os.environ.update(JACK_DEFAULT_SERVER=self.name, JACK_NO_START_SERVER="1")


def is_realtime_allowed() -> bool:
    """Whether the system gives a program of ours a server's priority."""
    return subprocess.run(["chrt", "-f", str(SERVER_PRIORITY), "true"], check=False, **QUIET_OPTIONS).returncode == 0


@contextmanager
def jack_server(period: int, name: str = "timbred-bench", synchronous: bool = False) -> Generator[JackServer]:
    """A server on the dummy driver, in use; needs jackd and jack_wait.

    A synchronous one waits for its clients; any other calls some again and loses blocks between them. Names are
    few: one that was left behind is free again only for itself.
    """
    realtime = is_realtime_allowed()
    priority_options = ["-R", "-P", str(SERVER_PRIORITY)] if realtime else ["-r"]
    synchronous_option = ["-S"] if synchronous else []
    command = ["jackd", *priority_options, *synchronous_option, "-n", name, "-d", "dummy", "-r", str(RATE_HZ), "-p", str(period)]
    with tempfile.TemporaryDirectory() as folder:
        jack = JackServer(name, realtime, Path(folder) / "log")
        with jack.log.open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            subprocess.run(["jack_wait", "-s", name, "-w", "-t", "20"], check=True, **QUIET_OPTIONS)
            jack.use()
            yield jack
        finally:
            terminate()  # PortAudio ends badly when its server is gone before it
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
