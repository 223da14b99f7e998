"""The client and a real daemon: sounds as arrays, events in order, trouble told, and everything usable again."""

import asyncio
import queue
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.free_ports import free_port
from tests.hosts import running
from tests.integration.conftest import StartDaemon, settings_for
from tests.integration.daemons import DaemonProcess
from tests.patience import TIMEOUT_S
from timbred import errors
from timbred.client import (
    AsyncTimbred,
    ClientClosed,
    DaemonAddress,
    DaemonNotFound,
    DaemonTimeout,
    Sound,
    Timbred,
    async_client,
    connection,
)
from timbred.client.connection import RequestCancelled
from timbred.protocol import messages as m

FOUND_WITHIN_S = async_client.DISCOVERY_TIMEOUT_S
"""Seconds for which a client looks for its daemon."""


@asynccontextmanager
async def connected(daemon: DaemonProcess) -> AsyncGenerator[AsyncTimbred]:
    async with asyncio.timeout(TIMEOUT_S), AsyncTimbred(requests=daemon.requests, events=daemon.events) as timbred:
        yield timbred


def plain(daemon: DaemonProcess) -> Timbred:
    return Timbred(requests=daemon.requests, events=daemon.events)


def names(events: list[m.Event | Sound]) -> list[str]:
    return [name for name, _ in groupby(type(event).__name__ for event in events)]


def test_timbred_generate_returns_the_files_samples(daemon: DaemonProcess) -> None:
    with plain(daemon) as timbred:
        sound = timbred.generate("warm pad", seconds=0.3, steps=1, seed=3, bits=32, channels=2, rate=44100)
    read, rate = soundfile.read(sound.path, dtype="float32", always_2d=True)
    assert (sound.rate, rate, sound.seed) == (44100, 44100, 3)
    assert sound.samples.dtype == np.float32
    assert sound.samples.shape == (13230, 2)
    np.testing.assert_array_equal(sound.samples, read)
    sound.samples[:10] = 0.0  # a program's own


def test_timbred_generate_without_a_file_returns_the_array_alone(daemon: DaemonProcess) -> None:
    before = set(daemon.takes.rglob("*.wav"))
    with plain(daemon) as timbred:
        sound = timbred.generate("warm pad", seconds=0.2, steps=1, to="none")
    assert (sound.path, sound.others) == ("", ())
    assert np.abs(sound.samples).max() > 0.5
    assert set(daemon.takes.rglob("*.wav")) == before


def test_timbred_generate_events_are_in_order_with_the_take_as_a_sound(daemon: DaemonProcess) -> None:
    with plain(daemon) as timbred:
        events = list(timbred.generate_events("pad", seconds=0.2, steps=3, takes=2, seed=5))
    assert names(events) == ["Queued", "Started", "Progress", "Sound", "Done"]
    fractions = [event.fraction for event in events if isinstance(event, m.Progress) and event.step]
    assert fractions == pytest.approx([1 / 3, 2 / 3, 1.0])
    first, second = [event for event in events if isinstance(event, Sound)]
    assert (first.take.index, second.take.index) == (0, 1)
    assert not np.array_equal(first.samples, second.samples)


def test_timbred_generate_returns_further_takes_and_vary_varies_one(daemon: DaemonProcess) -> None:
    with plain(daemon) as timbred:
        best = timbred.generate("pad", seconds=0.2, steps=1, takes=3, seed=10)
        assert [one.take.index for one in (best, *best.others)] == [0, 1, 2]
        varied = timbred.vary(best.take_id, seconds=0.4)
        assert (varied.seconds, varied.seed) == (pytest.approx(0.4), best.seed)


async def test_async_timbred_matches_answers_to_concurrent_requests(daemon: DaemonProcess) -> None:
    async with connected(daemon) as timbred:
        lengths = [0.1, 0.2, 0.3, 0.4]
        asked = [timbred.generate("pad", seconds=seconds, steps=1, rate=16000) for seconds in lengths]
        sounds, status = await asyncio.gather(asyncio.gather(*asked), timbred.status())
        assert [len(sound.samples) for sound in sounds] == [1600, 3200, 4800, 6400]
        assert status.models_resident >= 0


def test_timbred_is_shared_by_several_threads(daemon: DaemonProcess) -> None:
    made: dict[int, Sound] = {}
    with plain(daemon) as timbred:

        def make(seed: int) -> None:
            made[seed] = timbred.generate("pad", seconds=0.1, steps=1, seed=seed)

        threads = [threading.Thread(target=make, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert {seed: sound.seed for seed, sound in made.items()} == {seed: seed for seed in range(4)}


async def test_async_timbred_queries_have_typed_answers(daemon: DaemonProcess) -> None:
    async with connected(daemon) as timbred:
        made = await timbred.generate("a very particular bell", seconds=0.1, steps=1)
        assert isinstance(await timbred.ping(), m.Pong)
        assert (await timbred.status()).sample_rate == 48000
        assert "hollow" in [model.name for model in await timbred.models()]
        assert "kick" in [word for group in await timbred.words("pocket") for word in group.words.split(", ")]
        assert await timbred.words("hollow") == []
        assert (made.knows, (await timbred.generate("knows 0.25", seconds=0.1, steps=1)).knows) == (None, 0.25)
        assert made.take_id in [take.take_id for take in await timbred.takes(search="particular", limit=5)]
        assert await timbred.takes(search="no such words anywhere") == []
        assert (await timbred.load("hollow")).model == "hollow"
        assert await timbred.tempo(99.0) is None
        assert (await timbred.setting("tempo")).value == 99.0
        assert (await timbred.setting("tempo", 120)).value == 120.0


@pytest.mark.parametrize(
    ("keys", "kind", "reported"),
    [
        ({"seconds": -1}, errors.BadRequest, "seconds"),
        ({"steps": 0}, errors.BadRequest, "steps"),
        ({"sekonds": 1}, errors.BadRequest, "sekonds"),
        ({"model": "nothing"}, errors.UnknownModel, "nothing"),
        ({"init": "/etc/passwd"}, errors.ForbiddenPath, "/etc/passwd"),
        ({"by": "tomorrow"}, errors.BadRequest, "by"),
    ],
)
def test_timbred_raises_the_class_of_each_error_code(
    daemon: DaemonProcess, keys: dict[str, Any], kind: type[errors.TimbredError], reported: str
) -> None:
    with plain(daemon) as timbred:
        with pytest.raises(kind, match=reported) as caught:
            timbred.generate("pad", **keys)
        assert caught.value.code == kind.code
        assert isinstance(timbred.ping(), m.Pong)


def test_timbred_raises_model_errors_and_unanswerable_queries(daemon: DaemonProcess) -> None:
    with plain(daemon) as timbred:
        with pytest.raises(errors.ModelError, match="told to fail"):
            timbred.generate("fail")
        with pytest.raises(errors.BadRequest, match=r"host"):
            timbred.setting("host", "0.0.0.0")
        with pytest.raises(errors.UnknownModel):
            timbred.load("nothing")
        with pytest.raises(errors.BadRequest, match="sung"):
            next(timbred.listen("sung"))


def test_timbred_leaving_the_iterator_cancels(daemon: DaemonProcess) -> None:
    with plain(daemon) as timbred, plain(daemon) as witness:
        received = witness.listen("progress", "cancelled")
        until_it_hears(witness, received)
        wanted: m.Id | None = None
        for event in timbred.generate_events("slow", steps=3):
            if isinstance(event, m.Progress) and event.step:
                wanted = event.id
                break
        assert next(event.id for _, event in received if isinstance(event, m.Cancelled)) == wanted
        received.close()


async def test_async_timbred_cancelling_the_task_cancels(daemon: DaemonProcess) -> None:
    async with connected(daemon) as timbred, connected(daemon) as witness:
        async with aclosing(witness.listen()) as received:
            waiting = asyncio.ensure_future(anext(received))
            while not waiting.done():
                await timbred.generate("pad", seconds=0.05, steps=1)
            sound = asyncio.create_task(timbred.generate("slow", steps=3))
            async for _, event in received:
                if isinstance(event, m.Progress) and event.step and event.steps == 3:
                    sound.cancel()
                if isinstance(event, m.Cancelled):
                    break
        with pytest.raises(asyncio.CancelledError):
            await sound
        assert isinstance(await timbred.ping(), m.Pong)


def until_it_hears(timbred: Timbred, received: Any) -> None:
    """A listener hears what happens from some moment on: sounds are made until it has come."""
    first = threading.Thread(target=next, args=(received,))
    first.start()
    while first.is_alive():
        timbred.generate("pad", seconds=0.05, steps=1)
    first.join()


CTRL_C = """
import sys
from timbred.client import Timbred
from timbred.protocol.messages import Progress

with Timbred(requests=int(sys.argv[1])) as timbred:
    for event in timbred.generate_events("slow", steps=3):
        if isinstance(event, Progress) and event.step:
            print("at work", event.id, flush=True)
"""


def test_timbred_interrupt_cancels_and_ends(daemon: DaemonProcess) -> None:
    with plain(daemon) as witness:
        received = witness.listen("progress", "cancelled")
        until_it_hears(witness, received)
        with running(sys.executable, "-c", CTRL_C, str(daemon.requests)) as program:
            wanted = program.spoken.until("at work (.+)")[1]
            program.process.send_signal(signal.SIGINT)
            assert next(event.id for _, event in received if isinstance(event, m.Cancelled)) == wanted
            program.spoken.until("KeyboardInterrupt")
            assert program.process.wait(TIMEOUT_S) != 0
        received.close()


def test_timbred_cancels_what_an_exception_between_two_events_leaves(daemon: DaemonProcess) -> None:
    with plain(daemon) as witness:
        received = witness.listen("progress", "cancelled")
        until_it_hears(witness, received)
        wanted, generators = "", []
        with pytest.raises(KeyboardInterrupt), plain(daemon) as timbred:
            generators.append(timbred.generate_events("slow", steps=3))  # an exception's traceback keeps it too
            for event in generators[0]:
                if isinstance(event, m.Progress) and event.step:
                    wanted = event.id
                    raise KeyboardInterrupt
        assert next(event.id for _, event in received if isinstance(event, m.Cancelled)) == wanted
        received.close()


def test_timbred_interrupt_while_a_call_is_started_cancels_it(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes after the call has been passed to the client's thread, before the caller waits for it."""
    start = asyncio.run_coroutine_threadsafe
    main = threading.current_thread()

    def start_and_interrupt(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        start(work, loop)
        assert threading.current_thread() is main
        monkeypatch.undo()
        raise KeyboardInterrupt

    with plain(daemon) as witness:
        received = witness.listen("progress", "cancelled")
        until_it_hears(witness, received)
        wanted: m.Id | None = None
        with pytest.raises(KeyboardInterrupt), plain(daemon) as timbred:
            for event in timbred.generate_events("slow", steps=3):
                if isinstance(event, m.Progress) and event.step:
                    wanted = event.id
                    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", start_and_interrupt)
        assert wanted is not None
        assert next(event.id for _, event in received if isinstance(event, m.Cancelled)) == wanted
        received.close()


def test_timbred_close_ends_the_calls_of_other_threads(daemon: DaemonProcess, tmp_path: Path) -> None:
    """Each of them ends, and none waits for what can't come any more; the daemon goes on with the request."""
    proceed = tmp_path / "proceed"
    timbred, at_work, ended = plain(daemon), threading.Event(), queue.SimpleQueue[str]()

    def listen(received: Any) -> None:
        for _, event in received:
            if isinstance(event, m.Progress) and event.step and event.steps == 3:
                at_work.set()
        ended.put("no more events")

    def generate() -> None:
        with pytest.raises(ClientClosed) as caught:
            timbred.generate(f"wait {proceed}", steps=3, name="goes-on")
        ended.put(str(caught.value))

    with plain(daemon) as witness:
        done, progress = witness.listen("done", "take"), timbred.listen("progress")
        until_it_hears(witness, done)
        until_it_hears(witness, progress)
        threads = [threading.Thread(target=listen, args=(progress,)), threading.Thread(target=generate)]
        for thread in threads:
            thread.start()
        assert at_work.wait(TIMEOUT_S)
        timbred.close()
        assert {ended.get(timeout=TIMEOUT_S) for _ in threads} == {
            "no more events",
            "the client was closed during this request, which continues",
        }
        timbred.close()
        calls: list[Callable[[], object]] = [timbred.ping, timbred.models, lambda: next(timbred.listen())]
        for call in calls:
            with pytest.raises(ClientClosed, match="make another one"):
                call()
        proceed.touch()
        assert any("goes-on" in event.path for _, event in done if isinstance(event, m.Take))
        done.close()


async def test_async_timbred_close_ends_calls_that_wait(daemon: DaemonProcess, tmp_path: Path) -> None:
    proceed = tmp_path / "proceed"
    async with asyncio.timeout(TIMEOUT_S), connected(daemon) as witness:
        timbred = AsyncTimbred(requests=daemon.requests, events=daemon.events)
        searching = AsyncTimbred(requests=free_port())
        await timbred.connect(TIMEOUT_S)
        listening = asyncio.ensure_future(anext(timbred.listen("cancelled"), None))
        events = timbred.generate_events(f"wait {proceed}", steps=3)
        async for event in events:
            if isinstance(event, m.Progress) and event.step:
                break
        waiting, search = asyncio.ensure_future(anext(events)), asyncio.ensure_future(searching.ping())
        await witness.ping()  # meanwhile, both have begun to wait
        await searching.close()
        with pytest.raises(ClientClosed, match="while it searched"):
            await search
        await timbred.close()
        with pytest.raises(ClientClosed, match="continues"):
            await waiting
        assert await listening is None
        with pytest.raises(ClientClosed, match="make another one"):
            await timbred.ping()
        proceed.touch()
        assert (await witness.generate("pad", seconds=0.1, steps=1)).path, "the request has continued to its end"


LEFT_OPEN = """
import sys
from timbred.client import Timbred
from timbred.protocol.messages import Progress

timbred = Timbred(requests=int(sys.argv[1]))
print(timbred.ping(), flush=True)
events = timbred.generate_events("slow", steps=3)
for event in events:
    if isinstance(event, Progress) and event.step:
        print("at work", event.id, flush=True)
        break
"""


def test_timbred_program_without_close_ends_and_cancels(daemon: DaemonProcess) -> None:
    with plain(daemon) as witness:
        received = witness.listen("progress", "cancelled")
        until_it_hears(witness, received)
        with running(sys.executable, "-c", LEFT_OPEN, str(daemon.requests)) as program:
            program.spoken.until("Pong")
            wanted = program.spoken.until("at work (.+)")[1]
            assert next(event.id for _, event in received if isinstance(event, m.Cancelled)) == wanted
            assert program.process.wait(TIMEOUT_S) == 0
        received.close()


async def test_async_timbred_reports_a_cancel_by_another_client(daemon: DaemonProcess) -> None:
    async with connected(daemon) as timbred:
        events = timbred.generate_events("slow", steps=3)
        with pytest.raises(RequestCancelled):
            async for event in events:
                if isinstance(event, m.Progress) and event.step:
                    assert timbred._link is not None  # pyright: ignore[reportPrivateUsage]
                    timbred._link.send(b'{"type": "cancel", "id": "*"}')  # pyright: ignore[reportPrivateUsage]


def noted_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let clients look as long as usual; return the list of the seconds that they give a daemon to answer."""
    monkeypatch.setattr(async_client, "DISCOVERY_TIMEOUT_S", FOUND_WITHIN_S)
    waits: list[float] = []
    wait_up = connection.DaemonConnection.wait_up

    async def noted(link: connection.DaemonConnection, within: float) -> bool:
        waits.append(within)
        return await wait_up(link, within)

    monkeypatch.setattr(connection.DaemonConnection, "wait_up", noted)
    return waits


@pytest.mark.parametrize("kind", ["nothing there", "something else there"])
def test_timbred_reports_a_missing_daemon_within_two_seconds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = int(other.getsockname()[1])
        if kind == "something else there":
            other.listen()
        waits = noted_waits(monkeypatch)
        with Timbred(requests=port) as timbred, pytest.raises(DaemonNotFound, match="start it with: timbred serve"):
            timbred.generate("pad")
        assert sum(waits) <= FOUND_WITHIN_S < 2.0
        monkeypatch.setenv("TIMBRED_ZMQ_REQUESTS", str(port))
        monkeypatch.setattr(connection, "SERVICE", "_nobody._tcp.local.")
        with Timbred() as timbred, pytest.raises(DaemonNotFound):
            timbred.generate("pad")


async def test_async_timbred_reports_a_missing_daemon_once_to_concurrent_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = noted_waits(monkeypatch)
    async with AsyncTimbred(requests=free_port()) as timbred:
        asked = [timbred.generate("pad") for _ in range(20)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, DaemonNotFound) for answer in answers)
    assert waits == [FOUND_WITHIN_S], "one search for all"


def test_timbred_finds_the_daemon_by_the_settings(daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMBRED_ZMQ_REQUESTS", str(daemon.requests))
    monkeypatch.setenv("TIMBRED_ZMQ_EVENTS", str(daemon.events))
    with Timbred() as timbred:
        assert timbred.connect(TIMEOUT_S) == DaemonAddress("127.0.0.1", daemon.requests, daemon.events)


def test_timbred_finds_the_daemon_by_zeroconf(start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = start_daemon("discovery.announce=1", "discovery.name=found")
    wanted = DaemonAddress("127.0.0.1", daemon.requests, daemon.events)

    async def ours_alone() -> DaemonAddress:
        async with aclosing(connection._browse_services()) as services:  # pyright: ignore[reportPrivateUsage]
            async for place in services:
                if place == wanted:
                    return place
        raise AssertionError

    async def browse(within: float) -> list[DaemonAddress]:
        assert within > 0
        return [await asyncio.wait_for(ours_alone(), TIMEOUT_S)]

    monkeypatch.setattr(connection, "browse", browse)
    monkeypatch.setenv("TIMBRED_ZMQ_REQUESTS", "0")  # no place that is tried first
    with Timbred() as timbred:
        assert timbred.connect(TIMEOUT_S) == wanted
        assert isinstance(timbred.ping(), m.Pong)


def kept_ports() -> tuple[str, str]:
    """Settings of a daemon whose ports no other process takes when it has ended."""
    return f"zmq.requests={free_port()}", f"zmq.events={free_port()}"


def restarted(start_daemon: StartDaemon, before: DaemonProcess) -> DaemonProcess:
    return start_daemon(f"zmq.requests={before.requests}", f"zmq.events={before.events}")


def until_step(events: Any) -> None:
    for event in events:
        if isinstance(event, m.Progress) and event.step:
            return


def test_timbred_reports_a_stopping_daemon_and_finds_the_next_one(
    start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start_daemon(*kept_ports())
    with plain(first) as timbred:
        events = timbred.generate_events("slow", steps=3)
        until_step(events)
        first.signal()
        with pytest.raises(errors.ShuttingDown, match="stopping"):
            list(events)
        assert first.ended() == 0
        monkeypatch.setattr(async_client, "DISCOVERY_TIMEOUT_S", FOUND_WITHIN_S)
        with pytest.raises(DaemonNotFound):
            timbred.generate("pad")
        monkeypatch.setattr(async_client, "DISCOVERY_TIMEOUT_S", TIMEOUT_S)
        second = restarted(start_daemon, first)
        assert timbred.generate("pad", seconds=0.1, steps=1).path.startswith(str(second.takes))


def test_timbred_notices_a_killed_daemon_and_finds_the_next_one(
    start_daemon: StartDaemon, tmp_path: Path, hollow: Path
) -> None:
    (tmp_path / "first").mkdir()
    first = DaemonProcess(tmp_path / "first", *settings_for(hollow), *kept_ports())
    family = first.family()
    with plain(first) as timbred:
        events = timbred.generate_events("slow", steps=3)
        until_step(events)
        first.end_by_force(family)
        with pytest.raises(DaemonNotFound, match="exited during"):
            list(events)
        second = restarted(start_daemon, first)
        assert Path(timbred.generate("pad", seconds=0.1, steps=1).path).is_relative_to(second.takes)


def test_timbred_reports_a_daemon_that_does_not_answer(
    start_daemon: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start_daemon()
    with plain(daemon) as timbred:
        assert isinstance(timbred.ping(), m.Pong)
        monkeypatch.setattr(async_client, "ANSWER_TIMEOUT_S", 0.3)
        daemon.process.send_signal(signal.SIGSTOP)
        with pytest.raises(DaemonTimeout, match="no longer answers"):
            timbred.status()
        with pytest.raises(TimeoutError):
            timbred.models()
        daemon.process.send_signal(signal.SIGCONT)
        monkeypatch.setattr(async_client, "ANSWER_TIMEOUT_S", TIMEOUT_S)
        assert isinstance(timbred.status(), m.StatusReply)


async def test_async_timbred_waits_during_a_long_step(daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon answers for an engine that takes its time."""
    monkeypatch.setattr(async_client, "ANSWER_TIMEOUT_S", 3.0)
    pongs = 0
    hear = AsyncTimbred._on_event  # pyright: ignore[reportPrivateUsage]

    def counted(timbred: AsyncTimbred, event: m.Event, samples: list[bytes]) -> None:
        nonlocal pongs
        pongs += isinstance(event, m.Pong)
        hear(timbred, event, samples)

    monkeypatch.setattr(AsyncTimbred, "_on_event", counted)

    async with connected(daemon) as timbred:
        sound = asyncio.create_task(timbred.generate("slow", steps=3))
        while pongs < 2:
            assert not sound.done()
            await asyncio.sleep(0.05)
        sound.cancel()
        await asyncio.wait([sound])
