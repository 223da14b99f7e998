"""`by` through the whole daemon: steps are chosen from what steps took, and the sound is on its bar."""

import asyncio
from pathlib import Path
from typing import Any

from tests.player.daemon_stage import until
from tests.player.player_stage import RATE, JackServer
from tests.test_server import TIMEOUT_S, audioldm, importable, running
from timbred.protocol import messages as m
from timbred.protocol.schema import is_terminal, name_of

__all__ = ["audioldm", "importable"]


def request(identity: str, by: object, **keys: Any) -> dict[str, Any]:
    return {"type": "generate", "id": identity, "prompt": "paced tone", "seconds": 0.2, "by": str(by), **keys}


def new_choice(event: m.Event, choices: list[int]) -> bool:
    """Whether a step tells of another number of steps than the last one, which is then among the choices."""
    new = isinstance(event, m.Progress) and event.step > 0 and event.steps not in choices[-1:]
    if isinstance(event, m.Progress) and new:
        choices.append(event.steps)
    return new


def chosen(events: list[m.Event]) -> list[int]:
    """The numbers of steps that were chosen one after the other: a machine that slows down has a sound begun anew."""
    choices: list[int] = []
    for event in events:
        new_choice(event, choices)
    return choices


async def test_deadline_play_chooses_steps_that_finish_in_time(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, "player.device=no such card") as daemon:
        client = daemon.transports.client()
        # nothing was timed yet: it is, first, and that makes no take
        events = await asyncio.wait_for(client.request(**request("a", 60)), TIMEOUT_S)
        assert [name_of(event) for event in events if name_of(event) != "progress"] == [
            "queued", "started", "take", "done",
        ]  # fmt: skip
        assert chosen(events) == [20], "there is time for as many as the model usually makes"
        events = await asyncio.wait_for(client.request(**request("b", 3, steps=900)), TIMEOUT_S)
        choices = chosen(events)
        assert choices == sorted(choices, reverse=True)
        assert 5 <= choices[-1] <= choices[0] <= 150, "20 ms and more for each"
        take = next(event for event in events if isinstance(event, m.Take))
        stored = daemon.library.get(take.take_id)
        assert stored is not None
        assert stored.recipe["parameters"]["steps"] == choices[-1]
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
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, "player.lead=100", "tempo=240") as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        await asyncio.wait_for(client.request(**request("timed", 60)), TIMEOUT_S)
        bar = int(daemon.player.beat_now() / 4) + 9
        client.send(**request("a", f"bar {bar}", to="play", voice=1))
        playing = await until(client, m.Playing)
        assert playing.beat == (bar - 1) * 4
        assert playing.frame == playing.beat * RATE / 4
        client.send(**request("b", "bar 1", to="play", voice=1))
        failed = await until(client, m.Fail)
        assert failed.id == "b"
        assert "bar 1 is past" in failed.message
        could = int(failed.message.rpartition("bar ")[2])
        assert could > daemon.player.beat_now() / 4


async def test_deadline_play_restarts_a_slow_job_with_fewer_steps(tmp_path: Path, audioldm: Path):
    slow = tmp_path / "slow"

    async with running(tmp_path, audioldm, "player.device=no such card") as daemon:
        client = daemon.transports.client()
        client.send(**request("a", 12, prompt=f"paced {slow}", steps=900))
        chosen: list[int] = []
        events: list[m.Event] = []
        while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Done):
            events.append(event)
            if new_choice(event, chosen):
                slow.touch() if len(chosen) == 1 else slow.unlink(missing_ok=True)
        assert len(chosen) >= 2, chosen
        assert chosen == sorted(chosen, reverse=True)
        reported = [name_of(one) for one in events if name_of(one) != "progress"]
        assert reported == ["queued", "started", "take"], "one request, one take"
        take = next(one for one in events if isinstance(one, m.Take))
        stored = daemon.library.get(take.take_id)
        assert stored is not None
        assert stored.recipe["parameters"]["steps"] == chosen[-1], "as it was made, and can be made again"


async def test_deadline_play_meets_an_earlier_bar_with_fewer_steps(jack: JackServer, tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, "player.lead=100", "tempo=60") as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        await asyncio.wait_for(daemon.transports.client().request(**request("timed", 60)), TIMEOUT_S)
        bar = int(daemon.player.beat_now() / 4) + 5
        client.send(**request("a", f"bar {bar}", steps=900, to="play", voice=1))
        choices: list[int] = []
        while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Playing):
            if new_choice(event, choices) and len(choices) == 1:
                client.send(type="tempo", bpm=120)
        assert len(choices) >= 2, choices
        assert choices == sorted(choices, reverse=True)
        assert event.beat >= (bar - 1) * 4
        assert event.beat % 4 == 0


async def test_deadline_play_reports_an_engine_that_dies_while_it_is_timed(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm) as daemon:
        client = daemon.transports.client()
        failed = await asyncio.wait_for(client.request(**request("a", 60, prompt="die")), TIMEOUT_S)
        assert isinstance(failed[-1], m.Fail)
        assert failed[-1].code == "worker-lost"
        client.send(**request("b", 60, prompt="slow pad"))
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
    async with running(tmp_path / "takes", audioldm, "player.device=no such card") as daemon:
        client = daemon.transports.client()
        asking = asyncio.create_task(client.request(**request("a", 60, prompt=f"wait {go_on}")))
        while not daemon.scheduler.calibration.uses("tiny"):
            await asyncio.sleep(0)
        client.send(type="cancel", id="a")
        assert [name_of(event) for event in await asyncio.wait_for(asking, TIMEOUT_S)] == ["cancelled"]
        client.send(type="cancel", id="a")
        go_on.touch()
        events = await asyncio.wait_for(client.request(**request("b", 60)), TIMEOUT_S)
        assert name_of(events[-1]) == "done"
        reported: list[tuple[str, object]] = []
        while not client.empty():
            event = await client.next_event()
            if is_terminal(event):
                reported.append((name_of(event), getattr(event, "id", None)))
        assert reported == [("cancelled", "a"), ("fail", "cancel"), ("done", "b")]


async def test_deadline_play_fails_when_the_engine_is_lost_while_a_model_is_timed(tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, "player.device=no such card") as daemon:
        client = daemon.transports.client()
        events = await asyncio.wait_for(client.request(**request("a", 60, prompt="die")), TIMEOUT_S)
        assert [name_of(event) for event in events] == ["fail"]
        assert isinstance(events[0], m.Fail)
        assert events[0].code == "worker-lost"
