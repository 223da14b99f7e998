"""The whole daemon in this process, with an engine process that can be told to misbehave."""

import asyncio
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.forked_programs import ENGINE, forked_command
from tests.patience import LONG_TIMEOUT_SETTINGS, TIMEOUT_S, patient
from tests.processes import none_left, python_path
from timbred.config import load
from timbred.ipc.devices import EnginePlace
from timbred.models.long_texts import Windows
from timbred.models.tokenizer_files import TokenizerFiles
from timbred.protocol import messages as m
from timbred.protocol.json import as_object, encode_event, read_event
from timbred.protocol.osc import arguments_of
from timbred.protocol.schema import is_terminal, name_of
from timbred.requests.job import KEEP_ENDED_S, JobStore
from timbred.server import ENGINE_QUIT_TIMEOUT_S, PLAYER_QUIT_TIMEOUT_S, STOP_PATIENCE_S, Daemon, engine_command
from timbred.transports.base import LAST_ANSWERS_TIMEOUT_S, InProcessClient
from timbred.transports.osc import LAST_REQUESTS_TIMEOUT_S

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "tests.fake_engine")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT))


def test_engine_command_starts_a_relay_for_an_engine_on_a_cluster():
    assert engine_command(EnginePlace(number=2, device="cuda:1"), PROGRAM) == PROGRAM
    relay = engine_command(EnginePlace(number=3, address="ray://rack:10001", index=1), PROGRAM)
    assert relay == (sys.executable, "-P", "-m", "timbred.cluster", "ray://rack:10001", "1")


@asynccontextmanager
async def running(
    folder: Path,
    audioldm: Path,
    *settings: str,
    program: tuple[str, ...] = PROGRAM,
    stop_patience_s: float = STOP_PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncGenerator[Daemon]:
    ports = [f"{name}=0" for name in ("osc.port", "zmq.requests", "zmq.events", "http.port")]
    model = ["models.tiny.source=" + str(audioldm), "models.default=tiny"]
    flags = [*ports, *model, f"takes.folder={folder}", *LONG_TIMEOUT_SETTINGS, *settings]
    daemon = Daemon(load(None, {}, flags), program, clock)
    with patient(), none_left():
        await daemon.start()
        try:
            yield daemon
        finally:
            await daemon.stop(stop_patience_s)


@pytest.fixture(scope="session")
def audioldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests import checkpoints

    return checkpoints.audioldm(tmp_path_factory.mktemp("model"))


async def event_names(client: InProcessClient, **request: Any) -> list[str]:
    events = await asyncio.wait_for(client.request(**request), TIMEOUT_S)
    return [name_of(event) for event in events]


def generate(identity: object, prompt: str = "a tone", **keys: Any) -> dict[str, Any]:
    return {"type": "generate", "id": identity, "prompt": prompt, "seconds": 0.1, "steps": 2, **keys}


async def test_daemon_runs_one_request_from_end_to_end(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        events = await asyncio.wait_for(client.request(**generate("a", takes=2, seed=5)), TIMEOUT_S)
        names = [name for name in map(name_of, events) if name != "progress"]
        assert names == ["queued", "started", "take", "take", "done"]
        takes = [event for event in events if isinstance(event, m.Take)]
        assert [(take.index, take.seed) for take in takes] == [(0, 5), (1, 6)]
        assert all(Path(take.path).is_file() for take in takes)
        end = events[-1]
        assert isinstance(end, m.Done)
        assert (end.takes, end.path) == (2, takes[0].path)


async def test_daemon_does_not_run_a_resent_request_again(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        first = await asyncio.wait_for(client.request(**generate(7)), TIMEOUT_S)
        repeated = await asyncio.wait_for(client.request(**generate(7)), TIMEOUT_S)
        assert repeated == first[-2:]
        assert len(list(tmp_path.glob("*.wav"))) == 1


async def test_daemon_runs_a_resent_request_again_once_its_id_is_forgotten(
    tmp_path: Path, audioldm: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr("timbred.requests.scheduler.JobStore", lambda: JobStore(clock=lambda: now[0]))
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        first = await asyncio.wait_for(client.request(**generate(7)), TIMEOUT_S)
        now[0] += KEEP_ENDED_S - 1
        assert await asyncio.wait_for(client.request(**generate(7)), TIMEOUT_S) == first[-2:]
        now[0] += 1
        assert "started" in await event_names(client, **generate(7))
    assert KEEP_ENDED_S == 600, "as the protocol says"
    assert len(list(tmp_path.glob("*.wav"))) == 2


@pytest.mark.parametrize("seed", range(4))
async def test_daemon_ends_every_request_exactly_once_in_any_case(tmp_path: Path, audioldm: Path, seed: int):
    """Random requests, cancellations, faults and a stop in the middle."""
    chance = random.Random(seed)
    prompts = ["a tone", "a tone", "slow pad", "fail now", "nan", "die once", "die"]

    async def conversation() -> None:
        received: list[m.Event] = []
        sent: set[object] = set()
        async with running(tmp_path, audioldm, "queue.length=6", stop_patience_s=0) as daemon:
            client = daemon.transports.client()
            for number in range(14):
                client.send(**generate(number, chance.choice(prompts), priority=chance.choice(["live", "normal"])))
                sent.add(number)
                for _ in range(chance.randrange(4)):
                    client.send(type="status")  # so that there is an event in any case
                    received.append(await asyncio.wait_for(client.next_event(), TIMEOUT_S))
                if chance.random() < 0.4:
                    client.send(type="cancel", id=chance.randrange(number + 1))
        while not client.empty():
            received.append(await client.next_event())
        ends = Counter(getattr(event, "id", None) for event in received if is_terminal(event))
        ends = {identity: count for identity, count in ends.items() if identity in sent}
        assert ends == dict.fromkeys(sent, 1)
        for event in received:
            if isinstance(event, m.Take):
                assert Path(event.path).is_file()

    await conversation()
    assert {path.suffix for path in tmp_path.iterdir() if not path.name.startswith(".timbred")} <= {".wav"}


async def test_daemon_makes_a_take_the_beginning_of_another(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        first = await asyncio.wait_for(client.request(**generate(1)), TIMEOUT_S)
        take = next(event for event in first if isinstance(event, m.Take))
        for number, source in ((2, take.take_id), (3, take.path)):
            request = {**generate(number, init=source, strength=0.3), "seconds": None}
            events = await asyncio.wait_for(client.request(**request), TIMEOUT_S)
            assert name_of(events[-1]) == "done", events[-1]
        (tmp_path / "noise.wav").write_bytes(b"no sound")
        (tmp_path / "head.wav").write_bytes(Path(take.path).read_bytes()[:400])
        for number, source, code in ((4, "noise.wav", "bad-audio"), (5, "/etc/passwd", "forbidden-path")):
            end = (await asyncio.wait_for(client.request(**generate(number, init=source)), TIMEOUT_S))[-1]
            assert isinstance(end, m.Fail)
            assert end.code == code


async def test_daemon_sends_previews_before_the_take_and_removes_them_at_its_end(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        events = await asyncio.wait_for(client.request(**generate(1, preview=1)), TIMEOUT_S)
        names = [name_of(event) for event in events if name_of(event) != "progress"]
        assert names == ["queued", "started", "preview", "take", "done"]
        preview = next(event for event in events if isinstance(event, m.Preview))
        assert Path(preview.path).is_file()
    assert not Path(preview.path).exists()


async def test_daemon_keeps_other_jobs_when_one_ends_the_engine(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, "engine.jobs=8") as daemon:
        client = daemon.transports.client()
        prompts = ["a tone", "die", "a tone", "a tone"]
        asked = [client.request(**generate(number, prompt)) for number, prompt in enumerate(prompts)]
        ends = [events[-1] for events in await asyncio.wait_for(asyncio.gather(*asked), TIMEOUT_S)]
        assert [name_of(end) for end in ends] == ["done", "fail", "done", "done"]
        assert isinstance(ends[1], m.Fail)
        assert ends[1].code == "worker-lost"


async def test_daemon_fails_waiting_jobs_when_it_stops(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, stop_patience_s=0.1) as daemon:
        client = daemon.transports.client()
        for number in range(3):
            client.send(**generate(number, "slow pad"))
    received: list[m.Event] = []
    while not client.empty():
        received.append(await client.next_event())
    fails = [event for event in received if isinstance(event, m.Fail)]
    assert {(event.id, event.code) for event in fails} == {(number, "shutting-down") for number in range(3)}


async def test_daemon_reports_texts_longer_than_the_models_window(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        for _ in range(2):  # the second is the same request again
            events = await asyncio.wait_for(client.request(**generate("a", "lengthy words")), TIMEOUT_S)
            warnings = [event for event in events if isinstance(event, m.Warned)]
            assert [(event.key, event.characters, event.heard, event.parts) for event in warnings] == [
                ("prompt", 900, 900, 4),
                ("transcription", 90, 60, 1),
            ]
            assert warnings[0].message == "900 characters are more than tiny reads at once: they are read in 4 parts"
            assert "tiny reads the first 60 of 90 characters" in warnings[1].message
            assert is_terminal(events[-1])


LONG = "a soft and warm pad that opens slowly over distant bells " * 8


def heard_texts(event: m.Event) -> list[tuple[str, int, int, int]]:
    assert isinstance(event, m.Queued | m.Started)
    return [(text.key, text.characters, text.heard, text.parts) for text in event.texts or ()]


async def test_daemon_reports_long_texts_before_the_start_as_the_engine_does(tmp_path: Path, audioldm: Path):
    """With the engine itself."""
    async with running(tmp_path, audioldm, "device=cpu", "engine.spare=off", program=forked_command(ENGINE)) as daemon:
        client = daemon.transports.client()
        for model in ("pocket", "tiny"):
            request = generate(model, LONG, model=model, negative=LONG[:300])
            events = await asyncio.wait_for(client.request(**request), TIMEOUT_S)
            assert isinstance(events[-1], m.Done)
            queued, started = events[:2]
            warned = [
                (event.key, event.characters, event.heard, event.parts)
                for event in events
                if isinstance(event, m.Warned)
            ]
            assert [key for key, *_ in warned] == ["prompt", "negative"]
            assert heard_texts(queued) == warned
            assert heard_texts(started) == warned


async def test_daemon_reports_long_texts_in_json_only(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        long = await asyncio.wait_for(client.request(**generate("long", LONG, negative="")), TIMEOUT_S)
        short = await asyncio.wait_for(client.request(**generate("short", "a tone", negative="")), TIMEOUT_S)
    for event, names in zip(long[:2], ("position eta_s", "model"), strict=True):
        found = as_object(event)
        (text,) = heard_texts(event)
        assert text[:3] == ("prompt", len(LONG.strip()), len(LONG.strip()))
        assert set(found) == {"type", "id", "texts", *names.split()}
        assert read_event(json.loads(encode_event(event))) == event
        assert arguments_of(event) == [found[name] for name in ("id", *names.split())]
    for event in short[:2]:
        assert "texts" not in as_object(event)


@pytest.fixture
def held_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Counts of texts that wait: set once one has begun, and to be set for them to go on."""
    counting, may_go_on = threading.Event(), threading.Event()
    windows = TokenizerFiles.windows

    def held(self: TokenizerFiles, folder: Path, name: str) -> Windows:
        counting.set()
        assert may_go_on.wait(TIMEOUT_S)
        return windows(self, folder, name)

    monkeypatch.setattr(TokenizerFiles, "windows", held)
    yield counting, may_go_on
    may_go_on.set()


async def test_daemon_cancels_and_repeats_requests_while_their_texts_are_counted(
    tmp_path: Path, audioldm: Path, held_counts: tuple[threading.Event, threading.Event]
):
    counting, may_go_on = held_counts

    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        client.send(**generate("cancelled", LONG))
        client.send(**generate("again", LONG))
        client.send(**generate("again", LONG))
        assert await asyncio.to_thread(counting.wait, TIMEOUT_S)
        client.send(type="cancel", id="cancelled")
        assert await heard_until_end(client) == [("cancelled", "cancelled")]
        client.send(**generate("short", "a tone"))
        assert await heard_until_end(client) == told_of("short"), "others pass meanwhile"
        may_go_on.set()
        assert await heard_until_end(client) == told_of("again")
        assert client.empty()


async def test_daemon_stop_does_not_wait_for_a_count(
    tmp_path: Path, audioldm: Path, held_counts: tuple[threading.Event, threading.Event]
):
    counting, may_go_on = held_counts

    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        client.send(**generate("a", LONG))
        client.send(**generate("b", LONG))
        assert await asyncio.to_thread(counting.wait, TIMEOUT_S)
    assert not may_go_on.is_set()
    for identity in "ab":
        end = await client.next_event()
        assert isinstance(end, m.Fail)
        assert (end.id, end.code) == (identity, "shutting-down")
    assert client.empty()


def told_of(identity: str) -> list[tuple[object, str]]:
    """All events of a request but its progress."""
    return [(identity, name) for name in ("queued", "started", "take", "done")]


async def heard_until_end(client: InProcessClient) -> list[tuple[object, str]]:
    """The ids and names of the client's next events but progress, to the first that ends a request."""
    received: list[tuple[object, str]] = []
    while True:
        event = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
        if not isinstance(event, m.Progress):
            received.append((getattr(event, "id", None), name_of(event)))
        if is_terminal(event):
            return received


MAX_STOP_S = 5.0
"""Seconds within which a daemon that is asked to stop has ended."""


def test_server_stop_timeouts_stay_within_five_seconds() -> None:
    # the second time for the last answers is that of the ZeroMQ sockets, which close after the others
    transports_s = LAST_REQUESTS_TIMEOUT_S + 2 * LAST_ANSWERS_TIMEOUT_S
    assert STOP_PATIENCE_S + max(transports_s, ENGINE_QUIT_TIMEOUT_S, PLAYER_QUIT_TIMEOUT_S) < MAX_STOP_S
