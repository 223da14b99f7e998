"""A stage for the player: a JACK server without a card, a recorder on the player's outputs, and a listener."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from numpy.typing import NDArray

from tests.patience import LONG_TIMEOUT_SETTINGS, TIMEOUT_S, patient
from timbred.audio import Clip, SampleRate, Samples
from timbred.config import load
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m
from timbred.protocol.boundary import ClientId

RATE = 48_000
CLIENT = ClientId("test")
PROMISCUOUS = {"timbred-test-0": False, "timbred-test-1": True}
"""The servers of ours that there may be at a time, by name. A client listens for its server at a path made of its own
name alone, so two that open at once, each on another server, are told what is for the other, and both are turned away.
A server for all users (`JACK_PROMISCUOUS_SERVER`) has paths of its own, and that makes two in all."""
Require = Callable[[str], str]


class RecordingOutbox:
    """An Outbox that keeps what it is given."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[ClientId, m.Event]] = asyncio.Queue()

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        self.events.put_nowait((client, event))

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        raise AssertionError("the player answers with single events")

    async def next(self) -> Any:
        return (await asyncio.wait_for(self.events.get(), TIMEOUT_S))[1]

    async def until(self, kind: type[m.Event]) -> Any:
        while not isinstance(event := await self.next(), kind):
            pass
        return event


class JackServer:
    """One `jackd` of our own, on the dummy driver.

    Real-time where the system allows, so that a busy machine doesn't delay what is C code on both sides. It waits
    for its clients: where the machine stands still nothing is left out of a recording.
    """

    def __init__(self, program: str, name: str, period: int, rate: int) -> None:
        self.name = name
        # a test run that is killed leaves no server behind, which the next would take for its own
        self.command = ["setpriv", "--pdeathsig", "KILL", program, "-S", "-n", name, "-t", "2000"]
        self.command += ["-d", "dummy", "-r", str(rate), "-p", str(period)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait = subprocess.run(
            ["jack_wait", "-w", "-s", self.name, "-t", f"{TIMEOUT_S:.0f}"], capture_output=True, check=False
        )
        assert wait.returncode == 0, wait.stdout
        assert self.process.poll() is None, f"another server is called {self.name}"

    def end(self) -> None:
        """End the server; its clients see it go. Some wait long for clients that left: those are killed."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self) -> "JackServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@contextmanager
def free_name() -> Generator[str]:
    """A server's name that nobody else has now; whoever waits longest gets the next one.

    Whoever has one and wants another may wait forever.
    """
    folder = Path(tempfile.gettempdir())
    with contextlib.ExitStack() as held:
        with (folder / "timbred-test-turn.jack").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            while (name := next((one for one in PROMISCUOUS if _locks(held, folder / f"{one}.jack")), None)) is None:
                time.sleep(0.05)
        yield name


def _locks(held: contextlib.ExitStack, file: Path) -> bool:
    lock = file.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    held.enter_context(lock)
    return True


@contextmanager
def jack_server(require_host: Require, period: int = 1024, rate: int = RATE) -> Generator[JackServer]:
    """A running server that this process and its children use."""
    require_host("jack_wait")
    with free_name() as name:
        yield from _served(require_host("jackd"), name, period, rate)


def _served(program: str, name: str, period: int, rate: int) -> Generator[JackServer]:
    wanted = {"JACK_DEFAULT_SERVER": name, "JACK_NO_START_SERVER": "1"}
    wanted |= {"JACK_PROMISCUOUS_SERVER": ""} if PROMISCUOUS[name] else {}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        with JackServer(program, name, period, rate) as server:
            yield server
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


class Recording:
    """What `jack_capture` records of the player's outputs. Shape of `samples`: (frames, channels)."""

    def __init__(self, program: str, path: Path, channels: int) -> None:
        ports = [part for channel in range(channels) for part in ("-p", f"PortAudio:out_{channel}")]
        command = [program, "-b", "FLOAT", "-c", str(channels), "-B", "20", *ports, "-dc", "-hbu", str(path)]
        self._path = path
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait_until_it_runs(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not (self._path.exists() and self._path.stat().st_size > 50_000):
            assert time.monotonic() < deadline, "jack_capture records nothing"
            assert self._process.poll() is None, "jack_capture ended"
            time.sleep(0.02)

    def samples(self) -> Samples:
        """End the recording and read it."""
        self.end()
        samples, _ = soundfile.read(self._path, dtype="float32", always_2d=True)
        return np.asarray(samples, np.float32)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(TIMEOUT_S)
        if self._process.stdin is not None:
            self._process.stdin.close()


@contextmanager
def recording(require_host: Require, folder: Path, channels: int = 2) -> Generator[Recording]:
    found = Recording(require_host("jack_capture"), folder / "captured.wav", channels)
    try:
        found.wait_until_it_runs()
        yield found
    finally:
        found.end()


@asynccontextmanager
async def player(
    *settings: str, lead: float = 150.0, **keys: Any
) -> AsyncGenerator[tuple[PlayerClient, RecordingOutbox]]:
    """A player with a long lead, so that a busy machine doesn't make a test's sound stutter."""
    received = RecordingOutbox()
    subject = PlayerClient(received, load(None, {}, [*LONG_TIMEOUT_SETTINGS, f"player.lead={lead}", *settings]), **keys)
    with patient():
        subject.start()
        try:
            yield subject, received
        finally:
            await subject.stop(TIMEOUT_S)
        assert not [child for child in psutil.Process().children() if "playback" in " ".join(child.cmdline())]


def clip(samples: NDArray[Any], rate: int = RATE) -> Clip:
    return Clip(np.ascontiguousarray(samples, dtype=np.float32), SampleRate(rate))


def request(voice: int = 1, **keys: Any) -> m.Play:
    return m.Play(voice=voice, take="a.wav", **keys)


def play(subject: PlayerClient, samples: NDArray[Any], voice: int = 1, loop: bool = False, **keys: Any) -> int:
    return subject.play(CLIENT, voice, "a.wav", clip(samples), loop, request(voice, **keys))


def where(needle: Samples, hay: Samples) -> int:
    """The frame of `hay` that `needle` begins on, sample for sample; -1 if it isn't there."""
    first = int(np.argmax(np.abs(needle).max(axis=1) > 0))
    for candidate in np.flatnonzero((hay == needle[first]).all(axis=1)):
        begin = int(candidate) - first
        if begin >= 0 and np.array_equal(hay[begin : begin + len(needle)], needle):
            return begin
    return -1
