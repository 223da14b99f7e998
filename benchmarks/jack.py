"""JACK servers on the dummy driver, for the benchmarks of the player."""

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
"""Real-time priority of a server, as musicians set it; its clients have five less."""

QUIET_OPTIONS: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(frozen=True)
class JackServer:
    """A running server; `realtime` is True if the system granted its priority."""

    name: str
    realtime: bool
    log: Path

    def count_xruns(self) -> int:
        """Return the number of xruns that it logged, of its own or of a client."""
        return self.log.read_text(errors="replace").count("XRun")

    def use(self) -> None:
        """Use this server in this process and in the children that it starts from now on."""
        os.environ.update(JACK_DEFAULT_SERVER=self.name, JACK_NO_START_SERVER="1")


def is_realtime_allowed() -> bool:
    """Tell if the system allows a program of this user a server's priority."""
    return subprocess.run(["chrt", "-f", str(SERVER_PRIORITY), "true"], check=False, **QUIET_OPTIONS).returncode == 0


@contextmanager
def jack_server(period: int, name: str = "timbred-bench", synchronous: bool = False) -> Generator[JackServer]:
    """Run and use a server on the dummy driver; needs jackd and jack_wait.

    A synchronous server waits for its clients; any other one skips blocks of late clients. Names are
    few: one of a crashed server is only free for a server of the same name.
    """
    realtime = is_realtime_allowed()
    priority_options = ["-R", "-P", str(SERVER_PRIORITY)] if realtime else ["-r"]
    synchronous_option = ["-S"] if synchronous else []
    command = [
        "jackd",
        *priority_options,
        *synchronous_option,
        "-n",
        name,
        "-d",
        "dummy",
        "-r",
        str(RATE_HZ),
        "-p",
        str(period),
    ]
    with tempfile.TemporaryDirectory() as folder:
        jack = JackServer(name, realtime, Path(folder) / "log")
        with jack.log.open("w") as log:
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            subprocess.run(["jack_wait", "-s", name, "-w", "-t", "20"], check=True, **QUIET_OPTIONS)
            jack.use()
            yield jack
        finally:
            terminate()  # PortAudio crashes if its server exits first
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
