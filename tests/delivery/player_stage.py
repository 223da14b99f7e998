"""A stage for the player: a JACK server without a card, a recorder on the player's outputs, and a listener."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from numpy.typing import NDArray

from timbred.clip import Clip, Samples
from timbred.config import load
from timbred.delivery.player import Player
from timbred.protocol import messages as m
from timbred.protocol.exchange import ClientId
from timbred.units import SampleRate

RATE = 48_000
CLIENT = ClientId("test")
PATIENCE = 60.0
Require = Callable[[str], str]


class Heard:
    """An Outbox that keeps what it is given."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[ClientId, m.Event]] = asyncio.Queue()

    def send(self, client: ClientId, event: m.Event, clip: Clip | None = None) -> None:
        self.events.put_nowait((client, event))

    def send_list(self, client: ClientId, name: str, events: Sequence[m.Event], end: m.Event | None) -> None:
        raise AssertionError("the player answers with single events")

    async def next(self) -> Any:
        return (await asyncio.wait_for(self.events.get(), PATIENCE))[1]

    async def until(self, kind: type[m.Event]) -> Any:
        while not isinstance(event := await self.next(), kind):
            pass
        return event


class JackServer:
    """One `jackd` of our own, on the dummy driver. Real-time where the system allows, so that a busy machine doesn't
    delay what is C code on both sides."""

    def __init__(self, program: str, name: str, period: int, rate: int) -> None:
        self.name = name
        self.command = [program, "-n", name, "-t", "2000"]
        self.command += ["-d", "dummy", "-r", str(rate), "-p", str(period)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait = subprocess.run(["jack_wait", "-w", "-s", self.name, "-t", "20"], capture_output=True, check=False)
        assert wait.returncode == 0, wait.stdout

    def end(self) -> None:
        """End the server; its clients see it go. Some wait long for clients that left: those are killed."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                _clear_registry()
            self.process = None

    def __enter__(self) -> "JackServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _clear_registry() -> None:
    """A server that was killed keeps its place among the eight that JACK's registry has."""
    if any((process.info["name"] or "").startswith("jackd") for process in psutil.process_iter(["name"])):
        return
    for left in Path("/dev/shm").glob("jack*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def jack_server(require_host: Require, name: str, period: int = 1024, rate: int = RATE) -> Generator[JackServer]:
    """A running server that this process and its children use."""
    require_host("jack_wait")
    before = {key: os.environ.get(key) for key in ("JACK_DEFAULT_SERVER", "JACK_NO_START_SERVER")}
    full_name = f"timbred-{name}-{os.getpid()}"
    os.environ.update(JACK_DEFAULT_SERVER=full_name, JACK_NO_START_SERVER="1")
    try:
        with JackServer(require_host("jackd"), full_name, period, rate) as server:
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
        deadline = time.monotonic() + PATIENCE
        while not (self._path.exists() and self._path.stat().st_size > 50_000):
            assert time.monotonic() < deadline, "jack_capture records nothing"
            assert self._process.poll() is None, "jack_capture ended"
            time.sleep(0.02)

    def silent_at_the_end(self, seconds: float = 0.2) -> bool:
        """Whether the last of what is recorded is silence."""
        size = self._path.stat().st_size // 4 * 4
        with self._path.open("rb") as file:
            file.seek(max(0, size - round(seconds * RATE) * 2 * 4))
            return not any(file.read())

    def samples(self) -> Samples:
        """End the recording and read it."""
        self.end()
        samples, _ = soundfile.read(self._path, dtype="float32", always_2d=True)
        return np.asarray(samples, np.float32)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(2)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
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
async def player(*settings: str, lead: float = 150.0, **keys: Any) -> AsyncGenerator[tuple[Player, Heard]]:
    """A player with a long lead, so that a busy machine doesn't make a test's sound stutter."""
    heard = Heard()
    subject = Player(heard, load(None, {}, [f"player.lead={lead}", *settings]), **keys)
    subject.start()
    try:
        yield subject, heard
    finally:
        await subject.stop(5.0)
        assert not [child for child in psutil.Process().children() if "playback" in " ".join(child.cmdline())]


def clip(samples: NDArray[Any], rate: int = RATE) -> Clip:
    return Clip(np.ascontiguousarray(samples, dtype=np.float32), SampleRate(rate))


def request(voice: int = 1, **keys: Any) -> m.Play:
    return m.Play(voice=voice, take="a.wav", **keys)


def play(subject: Player, samples: NDArray[Any], voice: int = 1, loop: bool = False, **keys: Any) -> int:
    return subject.play(CLIENT, voice, "a.wav", clip(samples), loop, request(voice, **keys))


def where(needle: Samples, hay: Samples) -> int:
    """The frame of `hay` that `needle` begins on, sample for sample; -1 if it isn't there."""
    first = int(np.argmax(np.abs(needle).max(axis=1) > 0))
    for candidate in np.flatnonzero((hay == needle[first]).all(axis=1)):
        begin = int(candidate) - first
        if begin >= 0 and np.array_equal(hay[begin : begin + len(needle)], needle):
            return begin
    return -1
