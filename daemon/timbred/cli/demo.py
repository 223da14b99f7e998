"""`timbred demo`: render a first sound over OSC, and play it."""

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
from timbred.errors import AccessDenied, ForbiddenPath, Internal, ShuttingDown, TimbredError, from_code
from timbred.ipc.socket_folder import TemporaryFile, make_file
from timbred.protocol.keys import VOICE_COUNT
from timbred.protocol.osc_packets import Argument, read_packet, write_message
from timbred.protocol.schema import ROOT

PING_TIMEOUT_S = 0.5
"""Seconds without an answer after which no daemon counts as running."""

POLL_INTERVAL_S = 0.25
"""Seconds between two checks of the daemon's process while no answer comes."""

PING_INTERVAL_S = 5.0
"""Seconds without an answer after which the daemon is pinged."""

ANSWER_TIMEOUT_S = 120.0
"""Seconds without an answer after which the daemon counts as lost."""

STOP_TIMEOUT_S = 15.0
"""Seconds after which the demo's own daemon is killed if it hasn't stopped."""

OWN_SETTINGS = ("host=127.0.0.1", "osc.port=0", "zmq.requests=0", "zmq.events=0", "http.port=0", "discovery.announce=0")
"""Settings of the daemon that the demo starts: free ports, reachable from this machine only."""

Answer = tuple[str, list[Argument]]
"""An event's name, and its OSC arguments."""


class OscConnection:
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
            ConnectionError: There is no receiver.
        """
        self._socket.send(write_message(ROOT + name, arguments))

    def receive(self, within: float) -> list[Answer]:
        """Return the events in the next datagram; none if none comes within `within` seconds.

        Raises:
            ConnectionError: An earlier message had no receiver.
        """
        self._socket.settimeout(within)
        try:
            packet = self._socket.recv(65536)
        except TimeoutError:
            return []
        return [(message.address.removeprefix(ROOT), message.arguments) for message in read_packet(packet)]

    def is_answered(self) -> bool:
        """Tell if a daemon answers a ping.

        Raises:
            AccessDenied: It is on another machine, and doesn't allow this one.
        """
        try:
            self.send("ping")
            answers = self.receive(PING_TIMEOUT_S)
        except ConnectionError:
            return False
        for name, arguments in answers:
            if name == "fail" and arguments[1:2] == [AccessDenied.code]:
                raise AccessDenied(str(arguments[2]))
        return any(name == "pong" for name, _ in answers)


class DemoDaemon:
    """A daemon in a child process. Its log is a temporary file, which is kept if a message names it.

    Raises:
        ForbiddenPath: No temporary file can be created for the log.
    """

    def __init__(self, file: Path | None, flags: list[str]) -> None:
        self._log = _new_log()
        self.log = self._log.path
        self._keeps_log = False
        command = [sys.executable, "-P", "-m", "timbred", "serve"]
        command += ["--config", str(file)] if file else []
        for setting in (*flags, *OWN_SETTINGS):
            command += ["--set", setting]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)

    def wait_for_port(self) -> int:
        """Wait until the daemon accepts requests; return its OSC port.

        Raises:
            Internal: The process exited first; the message has the reason.
        """
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().decode("utf-8", "replace")
        if not ready.startswith("ready "):
            raise self.reason()
        return int(ready.split("osc=")[1].split()[0])

    @property
    def is_running(self) -> bool:
        """True while the process is running."""
        return self._process.poll() is None

    def reason(self) -> TimbredError:
        """Wait for the process to end; return the error with the reason from its log."""
        try:
            status = f"status {self._process.wait(STOP_TIMEOUT_S)}"
        except subprocess.TimeoutExpired:
            status = "no answer"
        lines = self.log.read_text("utf-8", "replace").splitlines()
        logged = next(
            (line.removeprefix("timbred: ") for line in reversed(lines) if line.startswith("timbred: ")), None
        )
        return Internal(self.with_log(logged or f"the daemon has exited ({status}); try again, or check its log"))

    def with_log(self, message: str) -> str:
        """Return the message with the path of the log, and keep the log."""
        self._keeps_log = True
        self._log.keep()
        return f"{message}\nThe log: {self.log}"

    def close(self) -> None:
        """Stop the process, wait for its end, and remove the log unless it is kept."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
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
        remedy = "set TMPDIR to a writable folder on a disk with free space"
        raise ForbiddenPath(f"no temporary file can be created ({error.strerror or error}): {remedy}") from error


class Demo:
    """The requests of the demo. `own` is the daemon that it started; None if one was running."""

    def __init__(self, connection: OscConnection, own: DemoDaemon | None) -> None:
        self._connection = connection
        self._own = own

    def render(self, prompt: str, show: Display) -> list[Argument]:
        """Request a sound and show its progress; return the arguments of its `take`.

        Raises:
            TimbredError: The request failed, or the daemon ended.
        """
        name = f"demo-{uuid.uuid4().hex}"
        self._connection.send("generate", name, prompt)
        take: list[Argument] = []
        for event, values in self._answers():
            if values[:1] != [name]:
                continue
            match event, values:
                case "queued", _:
                    show.stage("waiting for the engine")
                case "started", [_, model, *_]:
                    show.stage(f"starting {model}")
                case "progress", [_, float(fraction), 0, *_]:
                    show.stage("loading the model", fraction)
                case "progress", [_, float(fraction), *_]:
                    show.stage("rendering", fraction)
                case "take", _:
                    take = values
                case "done", _:
                    return take
                case "cancelled", _:
                    raise ShuttingDown("the request was cancelled by another client; try again")
                case "fail", [_, code, message, *_]:
                    raise from_code(str(code), self._own.with_log(str(message)) if self._own else str(message))
                case _:
                    pass
        raise AssertionError("answers end with an error only")

    def play(self, take_id: str, show: Display) -> str | None:
        """Play a take to its end; return the reason if that isn't possible.

        Raises:
            TimbredError: The daemon ended.
        """
        show.stage("opening the audio device")
        self._connection.send("play", VOICE_COUNT, take_id)
        for event, values in self._answers():
            match event, values:
                case "playing", [int(voice), played, *_] if (voice, played) == (VOICE_COUNT, take_id):
                    show.stage("playing")
                case "ended", [int(voice), played, *_] if (voice, played) == (VOICE_COUNT, take_id):
                    return None
                case "fail", [str(name), _, message, *_] if not name.startswith("demo-"):
                    return str(message)
                case _:
                    pass
        raise AssertionError("answers end with an error only")

    def _answers(self) -> Generator[Answer]:
        """Yield all events that the daemon sends.

        Raises:
            TimbredError: The daemon ended, or no longer answers.
        """
        answered_at = pinged_at = time.monotonic()
        while True:
            try:
                answers = self._connection.receive(POLL_INTERVAL_S)
                now = time.monotonic()
                if not answers and now - max(answered_at, pinged_at) > PING_INTERVAL_S:
                    self._connection.send("ping")
                    pinged_at = now
            except ConnectionError:
                answers, now = [], time.monotonic()
                if self._own is None:
                    raise ShuttingDown("the daemon has exited; start it with: timbred serve") from None
            if answers:
                answered_at = now
                yield from answers
            elif self._own is not None and not self._own.is_running:
                raise self._own.reason()
            elif now - answered_at > ANSWER_TIMEOUT_S:
                raise Internal(f"the daemon hasn't answered for {ANSWER_TIMEOUT_S:.0f} s; stop it and try again")


def demo(prompt: str, play: bool, file: Path | None, flags: list[str]) -> None:
    """Render one sound, print its file's path on standard output, and play it if there is an audio device.

    Raises:
        TimbredError: It can't be rendered; the message has the reason, and the path of its own daemon's log.
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _exit)
    with _daemon(file, flags) as session:
        with display() as show:
            show.say(f"requesting over OSC: {prompt}")
            _, _, path, seconds, rate, _, _, _, take_id, *_ = session.render(prompt, show)
            took = time.monotonic() - began
            show.say(f"rendered {float(str(seconds)):.1f} s of audio at {rate} Hz in {took:.1f} s, start included:")
        print(path, flush=True)
        if play:
            with display() as show:
                missing = session.play(str(take_id), show)
                show.say("played" if missing is None else f"not played: {missing}")


def _exit(number: int, _frame: object) -> None:
    """Exit on a signal through SystemExit, so that the demo's own daemon is stopped."""
    sys.exit(128 + number)


@contextlib.contextmanager
def _daemon(file: Path | None, flags: list[str]) -> Generator[Demo]:
    """Yield a demo with the running daemon or, if there is none, with one of its own."""
    config = settings_from(file, flags)
    with contextlib.ExitStack() as cleanup:
        running = OscConnection(reachable(config["host"]), config["osc.port"])
        cleanup.callback(running.close)
        with display() as show:
            show.say(f"timbred {__version__}")
            if running.is_answered():
                show.say("a daemon is running")
                own = None
            else:
                show.stage("starting a daemon")
                own = DemoDaemon(file, flags)
                cleanup.callback(own.close)
                running = OscConnection("127.0.0.1", own.wait_for_port())
                cleanup.callback(running.close)
        yield Demo(running, own)
