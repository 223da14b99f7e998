"""Real sclang with the Quark, and a real scsynth behind a JACK server without a card."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil

from tests.hosts import TIMEOUT_S, Program, running
from tests.integration.daemons import ROOT
from tests.player.player_stage import Recording

QUARK = ROOT / "bridges" / "supercollider"

RequireHost = Callable[[str], str]

WITH_SERVER = """
Server.default = s = Server(\\stage, NetAddr("127.0.0.1", {server}));
s.options.numInputBusChannels = 0;
s.options.numOutputBusChannels = 2;
s.options.bindAddress = "127.0.0.1";
s.waitForBoot {{
{body}
}};
"""


@contextlib.contextmanager
def sclang(require_host: RequireHost, folder: Path, script: str, daemon: int) -> Generator[Program]:
    """Sclang that runs a script with `Timbred.default` at this daemon's port."""
    language = require_host("sclang")
    settings, file = folder / "sclang.yaml", folder / "stage.scd"
    settings.write_text(f"includePaths:\n  - {QUARK}\nexcludePaths: []\npostInlineWarnings: false\n", "utf-8")
    file.write_text(f'(\nTimbred.connect("127.0.0.1", {daemon});\n{script}\n)\n', "utf-8")
    with running(language, "-D", "-l", str(settings), str(file), folder=folder) as program:
        yield program


@contextlib.contextmanager
def sclang_with_server(
    require_host: RequireHost, folder: Path, body: str, daemon: int, server: int
) -> Generator[Program]:
    """Sclang whose default server is a running scsynth; both gone at the end. Needs a JACK server."""
    require_host("scsynth")
    script = WITH_SERVER.format(server=server, body=body)
    with sclang(require_host, folder, script, daemon) as program:
        family = psutil.Process(program.process.pid)
        try:
            yield program
        finally:
            servers = family.children(recursive=True)
            program.close()
            for one in servers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(servers, TIMEOUT_S)


class ServerRecording(Recording):
    """What `jack_capture` records of scsynth's first output."""

    def __init__(self, program: str, path: Path) -> None:
        command = [program, "-b", "FLOAT", "-c", "1", "-B", "20", "-p", "SuperCollider:out_1", "-dc", "-hbu", str(path)]
        self._path = path
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait_for(self, frames: int) -> None:
        """Wait until so much more has been recorded."""
        size, deadline = self._path.stat().st_size + 4 * frames, time.monotonic() + TIMEOUT_S
        while self._path.stat().st_size < size:
            assert time.monotonic() < deadline, "jack_capture records nothing"
            time.sleep(0.02)


def until_said(program: Program, pattern: str, times: int) -> None:
    """Wait until so many lines with the pattern have been said."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(program.spoken.matching(pattern)) < times:
        assert time.monotonic() < deadline, program.spoken.lines
        time.sleep(0.01)


@contextlib.contextmanager
def recording(require_host: RequireHost, folder: Path) -> Generator[ServerRecording]:
    """A recording of scsynth's first output that has begun."""
    found = ServerRecording(require_host("jack_capture"), folder / "captured.wav")
    try:
        found.wait_until_it_runs()
        yield found
    finally:
        found.end()
