"""`by` through the whole daemon: steps are chosen from what steps took, and the sound is on its bar.

The seconds in which the daemon measures steps and keeps deadlines are those that the engine says its steps take.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.player.daemon_stage import until
from tests.player.player_stage import RATE, JackServer
from tests.test_server import TIMEOUT_S, audioldm, importable, running
from timbred.ipc import engine_messages
from timbred.protocol import messages as m
from timbred.protocol.schema import is_terminal, name_of
from timbred.requests.scheduler import JobScheduler
from timbred.server import Daemon

__all__ = ["audioldm", "importable"]

NO_DEVICE = "player.device=no such card"
AMPLE_S = 3000
"""Seconds from now of a deadline that leaves time for everything."""

FASTEST_BPM = 999
ONE_FRAME_BEATS = FASTEST_BPM / 60 / RATE


class StepClock:
    """Seconds that go by with each step that the engine reports, as many as it says, and at no other time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._step_s = 0.0

    def __call__(self) -> float:
        return self.now

    def add_step(self, step: engine_messages.StepDone) -> None:
        if step.step < step.steps:  # the last one takes as long as the one before
            self._step_s = step.remaining / (step.steps - step.step)
        self.now += self._step_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StepClock:
    """The clock of a daemon."""
    clock, receive = StepClock(), JobScheduler.engine_message_received

    def timed(
        scheduler: JobScheduler, engine: int, message: engine_messages.FromEngine, payload: Sequence[memoryview]
    ) -> None:
        if isinstance(message, engine_messages.StepDone):
            clock.add_step(message)
        receive(scheduler, engine, message, payload)

    monkeypatch.setattr(JobScheduler, "engine_message_received", timed)
    return clock


def request(identity: str, by: object, pace: str = "0.02", **keys: Any) -> dict[str, Any]:
    return {"type": "generate", "id": identity, "prompt": f"paced {pace}", "seconds": 0.2, "by": str(by), **keys}


def new_choice(event: m.Event, choices: list[int]) -> bool:
    """Whether a step tells of another number of steps than the last one, which is then among the choices."""
    new = isinstance(event, m.Progress) and event.step > 0 and event.steps not in choices[-1:]
    if isinstance(event, m.Progress) and new:
        choices.append(event.steps)
    return new


def chosen(events: list[m.Event]) -> list[int]:
    """The numbers of steps that were chosen one after the other: a job that is late is begun anew with fewer."""
    choices: list[int] = []
    for event in events:
        new_choice(event, choices)
    return choices


async def sped_up(daemon: Daemon) -> None:
    """Go on to any later beat fast, and wait until the player does."""
    daemon.transports.client().send(type="tempo", bpm=FASTEST_BPM)
    while daemon.player.last.bpm != FASTEST_BPM:
        await asyncio.sleep(0.01)


async def test_deadline_play_chooses_steps_that_finish_in_time(tmp_path: Path, audioldm: Path, clock: StepClock):
    async with running(tmp_path, audioldm, NO_DEVICE, clock=clock) as daemon:
        client = daemon.transports.client()
        # nothing was timed yet: it is, first, and that makes no take
        events = await asyncio.wait_for(client.request(**request("a", AMPLE_S)), TIMEOUT_S)
        assert [name_of(event) for event in events if name_of(event) != "progress"] == [
            "queued", "started", "take", "done",
        ]  # fmt: skip
        assert chosen(events) == [20], "there is time for as many as the model usually makes"
        events = await asyncio.wait_for(client.request(**request("b", 3, steps=900)), TIMEOUT_S)
        assert chosen(events) == [121], "20 ms for each, in 0.85 of the 2.85 s that there are for rendering"
        take = next(event for event in events if isinstance(event, m.Take))
        stored = daemon.library.get(take.take_id)
        assert stored is not None
        assert stored.recipe["parameters"]["steps"] == 121
        assert len(daemon.library.search("", 10)) == 2
        for by, words in (
            ("0.01", "could be ready by "),
            ("soon", "by: got 'soon'"),
            ("bar 0", "by: got 'bar 0'"),
        ):
            failed = (await asyncio.wait_for(client.request(**request(f"c{by}", by)), TIMEOUT_S))[-1]
            assert isinstance(failed, m.Fail)
            assert failed.code == "bad-request"
            assert words in failed.message
        failed = (await asyncio.wait_for(client.request(**request("d", "bar 9")), TIMEOUT_S))[-1]
        assert isinstance(failed, m.Fail)
        assert failed.code == "no-audio-device", "without a device nothing counts bars"


async def test_deadline_play_starts_on_its_bar_and_refuses_an_impossible_one_at_once(
    jack: JackServer, tmp_path: Path, audioldm: Path, clock: StepClock
):
    async with running(tmp_path, audioldm, "player.lead=100", "tempo=20", clock=clock) as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        await asyncio.wait_for(client.request(**request("timed", AMPLE_S)), TIMEOUT_S)
        bar = int(daemon.player.beat_now() / 4) + 21  # at least four minutes from now
        client.send(**request("a", f"bar {bar}", to="play", voice=1))
        await until(client, m.Done)
        await sped_up(daemon)
        playing = await until(client, m.Playing)
        assert playing.beat == pytest.approx((bar - 1) * 4, abs=ONE_FRAME_BEATS)
        now = daemon.player.last
        assert playing.frame == pytest.approx(now.frame + (playing.beat - now.beat) * RATE * 60 / FASTEST_BPM, abs=1)
        before = daemon.player.beat_now()
        client.send(**request("b", "bar 1", to="play", voice=1))
        failed = await until(client, m.Fail)
        assert failed.id == "b"
        assert "bar 1 is past" in failed.message
        could = int(failed.message.rpartition("bar ")[2])
        assert could > before / 4


async def test_deadline_play_restarts_a_slow_job_with_fewer_steps(tmp_path: Path, audioldm: Path, clock: StepClock):
    slow = tmp_path / "slow"

    async with running(tmp_path, audioldm, NO_DEVICE, clock=clock) as daemon:
        client = daemon.transports.client()
        await asyncio.wait_for(daemon.transports.client().request(**request("timed", AMPLE_S)), TIMEOUT_S)
        client.send(**request("a", 12, f"0.02 0.1 {slow}", steps=900))
        choices: list[int] = []
        events: list[m.Event] = []
        while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Done):
            events.append(event)
            if new_choice(event, choices):
                slow.touch()
        first, second = choices
        assert first > 5 * 12, "so many don't fit if each takes 0.1 s"
        assert 5 <= second < 12 / 0.1
        reported = [name_of(one) for one in events if name_of(one) != "progress"]
        assert reported == ["queued", "started", "take"], "one request, one take"
        take = next(one for one in events if isinstance(one, m.Take))
        stored = daemon.library.get(take.take_id)
        assert stored is not None
        assert stored.recipe["parameters"]["steps"] == second, "as it was made, and can be made again"


async def test_deadline_play_meets_an_earlier_bar_with_fewer_steps(
    jack: JackServer, tmp_path: Path, audioldm: Path, clock: StepClock
):
    go_on = tmp_path / "go"

    async with running(tmp_path, audioldm, "player.lead=100", "tempo=20", clock=clock) as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        timed = request("timed", AMPLE_S, "2")
        await asyncio.wait_for(daemon.transports.client().request(**timed), TIMEOUT_S)
        bar = int(daemon.player.beat_now() / 4) + 21  # at least four minutes from now
        client.send(**request("a", f"bar {bar}", f"2 2 {go_on}", steps=900, to="play", voice=1))
        choices: list[int] = []
        while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Done):
            if new_choice(event, choices) and len(choices) == 1:
                client.send(type="tempo", bpm=40)  # twice as early
                go_on.touch()
            assert not isinstance(event, m.Fail), event
        first, second = choices
        assert 5 <= second < first / 1.8, "so many fit into half of the time"
        await sped_up(daemon)
        playing = await until(client, m.Playing)
        assert playing.beat == pytest.approx((bar - 1) * 4, abs=ONE_FRAME_BEATS)


async def test_deadline_play_reports_an_engine_that_dies_while_it_is_timed(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        failed = await asyncio.wait_for(client.request(**request("a", AMPLE_S, prompt="die")), TIMEOUT_S)
        assert isinstance(failed[-1], m.Fail)
        assert failed[-1].code == "worker-lost"
        client.send(**request("b", AMPLE_S, prompt="slow pad"))
        await asyncio.sleep(0)
    left: list[m.Event] = []
    while not client.empty():
        left.append(await client.next_event())
    assert [(getattr(event, "id", ""), getattr(event, "code", "")) for event in left] == [
        ("a", "worker-lost"),
        ("b", "shutting-down"),
    ]


async def test_deadline_play_is_cancelled_while_its_model_is_timed(tmp_path: Path, audioldm: Path):
    go_on = tmp_path / "go"
    async with running(tmp_path / "takes", audioldm, NO_DEVICE) as daemon:
        client = daemon.transports.client()
        asking = asyncio.create_task(client.request(**request("a", AMPLE_S, prompt=f"wait {go_on}")))
        while not daemon.scheduler.calibration.uses("tiny"):
            await asyncio.sleep(0)
        client.send(type="cancel", id="a")
        assert [name_of(event) for event in await asyncio.wait_for(asking, TIMEOUT_S)] == ["cancelled"]
        client.send(type="cancel", id="a")
        go_on.touch()
        events = await asyncio.wait_for(client.request(**request("b", AMPLE_S)), TIMEOUT_S)
        assert name_of(events[-1]) == "done"
        reported: list[tuple[str, object]] = []
        while not client.empty():
            event = await client.next_event()
            if is_terminal(event):
                reported.append((name_of(event), getattr(event, "id", None)))
        assert reported == [("cancelled", "a"), ("fail", "cancel"), ("done", "b")]


async def test_deadline_play_fails_when_the_engine_is_lost_while_a_model_is_timed(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, NO_DEVICE) as daemon:
        client = daemon.transports.client()
        events = await asyncio.wait_for(client.request(**request("a", AMPLE_S, prompt="die")), TIMEOUT_S)
        assert [name_of(event) for event in events] == ["fail"]
        assert isinstance(events[0], m.Fail)
        assert events[0].code == "worker-lost"
