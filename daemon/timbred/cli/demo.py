"""`timbred demo`: a first sound over OSC, from nothing to a file that is played."""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from pathlib import Path

from timbred import __version__
from timbred.cli.serve import settings_from
from timbred.cli.terminal import Display, display
from timbred.client.connection import reachable
from timbred.errors import ForbiddenPath, Internal, ShuttingDown, TimbredError, from_code
from timbred.ipc.socket_folder import TemporaryFile, make_file
from timbred.protocol.keys import VOICE_COUNT
from timbred.protocol.osc_packets import Argument, read_packet, write_message
from timbred.protocol.schema import ROOT

ANSWERS_WITHIN_S = 0.5
"""Time in which a daemon that runs answers a ping."""

LOOK_EVERY_S = 0.25
"""Time between two looks at the daemon's process while no answer comes."""

PING_EVERY_S = 5.0
"""Time without an answer after which the daemon is asked whether it is still there."""

SILENCE_S = 120.0
"""Time without any answer after which the daemon counts as lost."""

STOPS_WITHIN_S = 15.0
"""Time that the demo's own daemon gets to stop; then it is killed."""

OWN = ("host=127.0.0.1", "osc.port=0", "zmq.requests=0", "zmq.events=0", "http.port=0", "discovery.announce=0")
"""Settings of the daemon that the demo starts: free ports, for this machine alone."""

Answer = tuple[str, list[Argument]]
"""An event's name, and its OSC arguments."""


class OscLine:
    """A UDP socket to one daemon."""

    def __init__(self, host: str, port: int) -> None:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind)
        self._socket.connect(address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, name: str, *arguments: str | float) -> None:
        """Send `/timbred/NAME` with these arguments.

        Raises:
            ConnectionError: nobody receives there.
        """
        self._socket.send(write_message(ROOT + name, arguments))

    def receive(self, within: float) -> list[Answer]:
        """The events in the next datagram; empty when none comes within so many seconds.

        Raises:
            ConnectionError: nobody receives what was sent.
        """
        self._socket.settimeout(within)
        try:
            packet = self._socket.recv(65536)
        except TimeoutError:
            return []
        return [(message.address.removeprefix(ROOT), message.arguments) for message in read_packet(packet)]

    def is_answered(self) -> bool:
        """Tell whether a daemon answers a ping here."""
        try:
            self.send("ping")
            return any(name == "pong" for name, _ in self.receive(ANSWERS_WITHIN_S))
        except ConnectionError:
            return False


class DemoDaemon:
    """A daemon in a process of its own. Its log is a temporary file, kept where `reason` was asked for."""

    def __init__(self, file: Path | None, flags: list[str]) -> None:
        """Start it.

        Raises:
            ForbiddenPath: no temporary file can be made for the log.
        """
        self._log = _new_log()
        self.log = self._log.path
        self._keeps_log = False
        command = [sys.executable, "-P", "-m", "timbred", "serve"]
        command += ["--config", str(file)] if file else []
        for setting in (*flags, *OWN):
            command += ["--set", setting]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)

    def port(self) -> int:
        """The OSC port, once requests are taken.

        Raises:
            Internal: it ended first; says why.
        """
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().decode("utf-8", "replace")
        if not ready.startswith("ready "):
            raise self.reason()
        return int(ready.split("osc=")[1].split()[0])

    @property
    def runs(self) -> bool:
        """Tell whether the process is running."""
        return self._process.poll() is None

    def reason(self) -> TimbredError:
        """Why the process ended, as its log tells it. Waits for its end."""
        try:
            said = f"status {self._process.wait(STOPS_WITHIN_S)}"
        except subprocess.TimeoutExpired:
            said = "it doesn't answer any more"
        lines = self.log.read_text("utf-8", "replace").splitlines()
        told = next((line.removeprefix("timbred: ") for line in reversed(lines) if line.startswith("timbred: ")), None)
        return Internal(self.with_log(told or f"the daemon has ended ({said}); ask again, or look at its log"))

    def with_log(self, message: str) -> str:
        """The message, and where the log is. From now on it is kept."""
        self._keeps_log = True
        self._log.keep()
        return f"{message}\nThe log: {self.log}"

    def close(self) -> None:
        """Stop the process, wait until it has ended, and remove the log unless it was named."""
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if not self._keeps_log:
            self._log.remove()


def _new_log() -> TemporaryFile:
    try:
        return make_file(Path(tempfile.gettempdir()), prefix="timbred-demo-", suffix=".log")
    except OSError as error:
        remedy = "set TMPDIR to a folder that you may write to, on a disk with room"
        raise ForbiddenPath(f"no temporary file can be made ({error.strerror or error}): {remedy}") from error


class Demo:
    """One conversation with a daemon. `own` is None where the daemon was running before."""

    def __init__(self, line: OscLine, own: DemoDaemon | None) -> None:
        self._line = line
        self._own = own

    def make(self, prompt: str, show: Display) -> list[Argument]:
        """Ask for a sound and show how far it is; the arguments of its `take`.

        Raises:
            TimbredError: the request failed, or the daemon ended.
        """
        name = f"demo-{uuid.uuid4().hex}"
        self._line.send("generate", name, prompt)
        take: list[Argument] = []
        for event, values in self._answers():
            if values[:1] != [name]:
                continue
            match event, values:
                case "queued", _:
                    show.stage("waiting for the engine")
                case "started", [_, model, *_]:
                    show.stage(f"getting {model} ready")
                case "progress", [_, float(fraction), 0, *_]:
                    show.stage("loading the model", fraction)
                case "progress", [_, float(fraction), *_]:
                    show.stage("making the sound", fraction)
                case "take", _:
                    take = values
                case "done", _:
                    return take
                case "cancelled", _:
                    raise ShuttingDown("the request was cancelled by somebody else; ask again")
                case "fail", [_, code, message, *_]:
                    raise from_code(str(code), self._own.with_log(str(message)) if self._own else str(message))
                case _:
                    pass
        raise AssertionError("answers end with an error only")

    def play(self, take_id: str, show: Display) -> str | None:
        """Play a take to its end; the reason where that isn't possible.

        Raises:
            TimbredError: the daemon ended.
        """
        show.stage("opening the sound device")
        self._line.send("play", VOICE_COUNT, take_id)
        for event, values in self._answers():
            match event, values:
                case "playing", [int(voice), heard, *_] if (voice, heard) == (VOICE_COUNT, take_id):
                    show.stage("playing")
                case "ended", [int(voice), heard, *_] if (voice, heard) == (VOICE_COUNT, take_id):
                    return None
                case "fail", [str(name), _, message, *_] if not name.startswith("demo-"):
                    return str(message)
                case _:
                    pass
        raise AssertionError("answers end with an error only")

    def _answers(self) -> Generator[Answer]:
        """All that the daemon says to this socket.

        Raises:
            TimbredError: the daemon ended, or is silent.
        """
        heard = asked = time.monotonic()
        while True:
            try:
                answers = self._line.receive(LOOK_EVERY_S)
                now = time.monotonic()
                if not answers and now - max(heard, asked) > PING_EVERY_S:
                    self._line.send("ping")
                    asked = now
            except ConnectionError:
                answers, now = [], time.monotonic()
                if self._own is None:
                    raise ShuttingDown("the daemon has ended; start it with: timbred serve") from None
            if answers:
                heard = now
                yield from answers
            elif self._own is not None and not self._own.runs:
                raise self._own.reason()
            elif now - heard > SILENCE_S:
                raise Internal(f"the daemon hasn't answered for {SILENCE_S:.0f} s; end it and try again")


def demo(prompt: str, play: bool, file: Path | None, flags: list[str]) -> None:
    """Make one sound, print its file's path on standard output, and play it where that is possible.

    Raises:
        TimbredError: there is no sound; says why, and where the log of a daemon of its own is.
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _exit)
    with _daemon(file, flags) as conversation:
        with display() as show:
            show.say(f"asking over OSC for: {prompt}")
            _, _, path, seconds, rate, _, _, _, take_id, *_ = conversation.make(prompt, show)
            took = time.monotonic() - began
            show.say(f"made {float(str(seconds)):.1f} s of sound at {rate} Hz, {took:.1f} s after the start:")
        print(path, flush=True)
        if play:
            with display() as show:
                missing = conversation.play(str(take_id), show)
                show.say("played" if missing is None else f"not played: {missing}")


def _exit(number: int, _frame: object) -> None:
    """End the demo on a signal in the usual way, so that its daemon ends too."""
    sys.exit(128 + number)


@contextlib.contextmanager
def _daemon(file: Path | None, flags: list[str]) -> Generator[Demo]:
    """A conversation with the running daemon or, if there is none, with one for this demo."""
    config = settings_from(file, flags)
    with contextlib.ExitStack() as ending:
        running = OscLine(reachable(config["host"]), config["osc.port"])
        ending.callback(running.close)
        with display() as show:
            show.say(f"timbred {__version__}")
            if running.is_answered():
                show.say("a daemon is running")
                own = None
            else:
                show.stage("starting a daemon")
                own = DemoDaemon(file, flags)
                ending.callback(own.close)
                running = OscLine("127.0.0.1", own.port())
                ending.callback(running.close)
        yield Demo(running, own)
