"""Endless sounds through the whole daemon: an engine that renders sines, a player on a JACK server, a recorder."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from tests.player.daemon_stage import no_more, recorded, resting, taken, until
from tests.player.player_stage import RATE, JackServer, Require
from tests.test_server import TIMEOUT_S, audioldm, importable, running
from timbred.audio import Samples
from timbred.protocol import messages as m
from timbred.server import Daemon
from timbred.storage.library import StoredTake
from timbred.transports.base import InProcessClient

__all__ = ["audioldm", "importable"]

SETTINGS = ("player.lead=100", "tempo=480")
PIECE = 1.0
CROSSFADE = 0.25
LONG_PIECE = 20.0
SLOW_SPEED = 0.05
"""Speed at which a long piece sounds for almost seven minutes."""

SPACING = 36_000
"""Frames from the beginning of a piece to the next one's."""


def flow(voice: int = 1, prompt: str = "a tone", **keys: Any) -> dict[str, Any]:
    words = {"type": "flow", "voice": voice, "prompt": prompt, "seconds": PIECE, "fade": CROSSFADE, "steps": 2}
    return {**words, **keys}


def stored(daemon: Daemon, take: str) -> StoredTake:
    found = daemon.library.get(take)
    assert found is not None
    return found


async def heard_until_ended(client: InProcessClient) -> list[m.Event]:
    events: list[m.Event] = []
    while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Ended):
        events.append(event)
    return [*events, event]


def quietest(captured: Samples) -> float:
    """The level of the quietest hundredth of a second, after the first piece's fade in and before the stop's."""
    sounding = np.flatnonzero(np.abs(captured).max(axis=1) > 0)
    inside = captured[sounding[0] + round(CROSSFADE * RATE) : sounding[-1] - 480, 0]
    blocks = inside[: len(inside) // 480 * 480].reshape(-1, 480)
    return float(np.sqrt(np.mean(blocks**2, axis=1)).min())


async def test_flow_continues_segment_after_segment_until_it_is_stopped(
    jack: JackServer, require_host: Require, tmp_path: Path, audioldm: Path
):
    async def conversation() -> Samples:
        async with recorded(require_host, tmp_path, audioldm, *SETTINGS) as (daemon, client, record):
            client.send(**flow(seed=1))
            pieces: list[m.Flowing] = []
            while len(pieces) < 5 or len([piece for piece in pieces if not piece.late]) < 2:
                piece = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
                assert isinstance(piece, m.Flowing)
                pieces.append(piece)
            assert np.diff([piece.frame for piece in pieces]).tolist() == [SPACING] * (len(pieces) - 1)
            fresh = [piece.take for piece in pieces if not piece.late]
            assert len(set(fresh)) == len(fresh)
            client.send(type="stop", voice=1)
            *flowing, ended = await heard_until_ended(client)
            assert all(isinstance(event, m.Flowing) for event in flowing)
            assert isinstance(ended, m.Ended)
            assert (ended.voice, ended.reason) == (1, "stopped")
            await resting(daemon)
            await no_more(client)
            await taken(daemon, ended.frame)
            # a piece that was liked can be made again, as a file
            again = await asyncio.wait_for(client.request(type="vary", id="again", take=fresh[0], to="file"), TIMEOUT_S)
            assert isinstance(again[-1], m.Done)
            assert soundfile.info(again[-1].path).frames == RATE
            return record.samples()

    captured = await conversation()
    assert quietest(captured) > 0.1
    assert [path.name for path in tmp_path.glob("*.wav") if path.name != "captured.wav"] == ["a-tone-0001.wav"]


async def test_flow_repeats_and_marks_the_last_segment_when_the_engine_is_late(
    jack: JackServer, require_host: Require, tmp_path: Path, audioldm: Path
):
    gate = tmp_path / "gate"

    async def conversation() -> Samples:
        async with recorded(require_host, tmp_path, audioldm, *SETTINGS) as (daemon, client, record):
            client.send(**flow())
            first = await until(client, m.Flowing)
            client.send(**flow(prompt=f"wait {gate}"))  # this piece doesn't come
            repeats: list[m.Flowing] = []
            while len(repeats) < 4 or len([piece for piece in repeats if piece.late]) < 2:
                repeats.append(await until(client, m.Flowing))
            frames = [first.frame, *(piece.frame for piece in repeats)]
            assert np.diff(frames).tolist() == [SPACING] * len(repeats)
            gate.touch()
            while (piece := await until(client, m.Flowing)).late:
                pass
            assert piece.take not in {first.take, *(one.take for one in repeats)}
            client.send(type="stop", voice="*")
            ended = await until(client, m.Ended)
            await taken(daemon, ended.frame)
            return record.samples()

    assert quietest(await conversation()) > 0.1


async def test_flow_continues_inaudibly_when_the_engine_dies(jack: JackServer, tmp_path: Path, audioldm: Path):
    others = set(psutil.Process().children(recursive=True))

    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow())
        first = await until(client, m.Flowing)
        children = set(psutil.Process().children(recursive=True)) - others
        [engine] = [child for child in children if "fake_engine" in " ".join(child.cmdline())]
        engine.kill()
        seen = [first]
        while len({piece.take for piece in seen}) < 5:
            seen.append(await until(client, m.Flowing))
        assert np.diff([piece.frame for piece in seen]).tolist() == [SPACING] * (len(seen) - 1)
        client.send(type="stop", voice=1)
        assert (await until(client, m.Ended)).reason == "stopped"


async def test_flow_keeps_sounding_with_a_failing_engine_and_reports_a_failed_plan(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow(voice=2, prompt="fail now"))
        failed = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
        assert (getattr(failed, "id", ""), getattr(failed, "code", "")) == ("flow", "model-error")
        await no_more(client)
        client.send(**flow())
        received = {(await until(client, m.Flowing)).take}
        client.send(**flow(prompt="fail now"))
        while not isinstance(event := await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Fail):
            assert isinstance(event, m.Flowing)
            received.add(event.take)
        assert event.code == "model-error"
        takes: set[str] = set()
        while len(takes) < 2:  # the course before goes on
            takes.add((await until(client, m.Flowing)).take)
        seeds = {stored(daemon, take).seed for take in takes | received}
        assert len(seeds) == len(takes | received), "and doesn't begin anew"
        client.send(type="stop", voice=1)
        assert (await until(client, m.Ended)).reason == "stopped"
        await no_more(client)


async def test_flow_applies_a_new_prompt_within_one_segment(jack: JackServer, tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow(seconds=LONG_PIECE, speed=SLOW_SPEED))
        first = await until(client, m.Flowing)
        client.send(**flow(prompt="another tone", seconds=LONG_PIECE, speed=SLOW_SPEED))
        second = await until(client, m.Flowing)
        assert not second.late
        assert second.frame - first.frame < LONG_PIECE / SLOW_SPEED * RATE
        assert stored(daemon, second.take).prompt == "another tone"
        client.send(**flow(prompt="another tone", seconds=LONG_PIECE, speed=SLOW_SPEED))  # the same again is the same
        assert await until(client, m.Flowing) == second
        client.send(type="stop", voice=1)
        assert (await until(client, m.Ended)).take == second.take
        await no_more(client)


async def test_flow_change_drops_prepared_segments_and_a_late_one_starts_once_ready(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    gate = tmp_path / "gate"

    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow(seconds=LONG_PIECE, speed=SLOW_SPEED))
        first = await until(client, m.Flowing)
        await resting(daemon)  # the next piece is with the player now
        client.send(**flow(prompt=f"wait {gate}", seconds=LONG_PIECE))
        client.send(type="set", voice=1, speed=20)  # the rest of the first goes by fast
        assert isinstance(await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Acknowledged)
        received = [await asyncio.wait_for(client.next_event(), TIMEOUT_S) for _ in range(3)]
        repeats = [piece for piece in received if isinstance(piece, m.Flowing)]
        reported = [(piece.take, piece.late) for piece in repeats]
        assert reported == [(first.take, True)] * 3, "not the piece that was made ahead"
        client.send(type="set", voice=1, speed=SLOW_SPEED)
        gate.touch()
        before = repeats[-1]
        while (piece := await until(client, m.Flowing)).late:
            before = piece
        waited = (piece.frame - before.frame) / RATE
        assert waited < LONG_PIECE / SLOW_SPEED, "it doesn't wait for the end of what sounds"
        assert stored(daemon, piece.take).prompt == f"wait {gate}"
        client.send(type="stop", voice=1)
        assert (await until(client, m.Ended)).take == piece.take
        await resting(daemon)
        await no_more(client)


async def test_flow_with_another_prompt_before_its_first_beat_starts_in_its_place(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, "player.lead=100", "tempo=20") as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        client.send(**flow(at="80"))  # four minutes from the player's start
        while not daemon.player.has(1):
            await asyncio.sleep(0.01)
        client.send(**flow(prompt="fail now"))
        assert (await until(client, m.Fail)).code == "model-error"
        client.send(**flow(prompt="another tone"))
        await resting(daemon)
        assert daemon.player.beat_now() < 80
        client.send(type="tempo", bpm=999)
        assert isinstance(await asyncio.wait_for(client.next_event(), TIMEOUT_S), m.Acknowledged)
        begun = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
        assert isinstance(begun, m.Flowing)
        assert stored(daemon, begun.take).prompt == "another tone"
        while daemon.player.last.frame <= begun.frame:  # what was said before the tempo changed says nothing
            await asyncio.sleep(0.05)
        assert daemon.player.last.beat >= 80
        client.send(type="stop", voice=1)
        assert (await until(client, m.Ended)).reason == "stopped"
        await resting(daemon)
        await no_more(client)


async def test_flow_of_bars_stays_on_the_grid(jack: JackServer, tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow(seconds=None, bars=2, at="bar"))
        pieces = [await until(client, m.Flowing) for _ in range(4)]
        assert [piece.frame % 24_000 for piece in pieces] == [0] * 4
        assert np.diff([piece.frame for piece in pieces]).tolist() == [48_000] * 3
        assert stored(daemon, pieces[0].take).seconds == 1.0 + CROSSFADE
        client.send(**flow(prompt="another tone", seconds=None, bars=2))
        while stored(daemon, (piece := await until(client, m.Flowing)).take).prompt != "another tone":
            pieces.append(piece)
        assert piece.frame % 24_000 == 0, "a change without a moment stays on the grid"
        assert piece.frame - pieces[-1].frame in (24_000, 48_000)
        assert (await until(client, m.Flowing)).frame == piece.frame + 48_000
        at_once: list[int] = []
        for prompt in ("a third tone", "a fourth tone", "a fifth tone"):
            client.send(**flow(prompt=prompt, seconds=None, bars=2, at="now"))
            while stored(daemon, (piece := await until(client, m.Flowing)).take).prompt != prompt:
                pass
            at_once.append(piece.frame)
        assert any(frame % 24_000 != 0 for frame in at_once), "unless it is to begin at once"
        client.send(type="stop", voice=1, at="bar")
        ended = await until(client, m.Ended)
        assert (ended.frame - 480) % 24_000 == 0, "the usual fade out is 10 ms long"


async def test_flow_moves_mix_within_the_given_seconds(jack: JackServer, tmp_path: Path, audioldm: Path):
    now = 0.0

    async with running(tmp_path, audioldm, *SETTINGS, clock=lambda: now) as daemon:
        client = daemon.transports.client()
        client.send(**flow(fade=None))
        await until(client, m.Flowing)
        client.send(**flow(prompt2="a bell", mix=1, fade=3.0))
        mixes: list[float] = []
        while not mixes or mixes[-1] < 1.0:
            piece = await until(client, m.Flowing)
            now += 0.0 if piece.late else PIECE - CROSSFADE  # the flow's time passes as pieces do, none of them late
            take = daemon.library.get(piece.take)
            assert take is not None
            mixes.append(take.recipe["parameters"].get("mix") or 0.0)
        assert mixes == sorted(mixes)
        assert len([mix for mix in set(mixes) if 0.0 < mix < 1.0]) >= 2, mixes
        client.send(type="stop", voice=1)
        await until(client, m.Ended)


async def test_flow_shares_voices_with_other_flows_and_a_play(jack: JackServer, tmp_path: Path, audioldm: Path):
    soundfile.write(tmp_path / "a.wav", np.full((RATE, 1), 0.1), RATE)

    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        for voice in (1, 2, 3):
            client.send(**flow(voice=voice))
        received: list[int] = []
        while min(map(received.count, (1, 2, 3))) < 2:
            received.append((await until(client, m.Flowing)).voice)
        assert set(received) == {1, 2, 3}
        client.send(type="play", voice=2, take=str(tmp_path / "a.wav"), loop=1)
        ended = await until(client, m.Ended)
        assert (ended.voice, ended.reason) == (2, "replaced")
        client.send(**flow(voice=2))  # and back
        ended = await until(client, m.Ended)
        assert (ended.voice, ended.take, ended.reason) == (2, str(tmp_path / "a.wav"), "replaced")
        client.send(type="stop", voice="*")
        stopped = [await until(client, m.Ended) for _ in range(3)]
        assert {(event.voice, event.reason) for event in stopped} == {(voice, "stopped") for voice in (1, 2, 3)}
        await resting(daemon)
        await no_more(client)


async def test_flow_is_stopped_before_its_first_segment_and_by_another_client(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client, other = daemon.transports.client(), daemon.transports.client()
        client.send(**flow(prompt="slow pad"))
        client.send(type="stop", voice=1)
        ended = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
        assert ended == m.Ended(voice=1, take="", frame=ended.frame, reason="stopped")  # type: ignore[attr-defined]
        await resting(daemon)
        await no_more(client)
        client.send(**flow())
        await until(client, m.Flowing)
        other.send(type="stop", voice="*")
        assert (await until(other, m.Ended)).reason == "stopped"
        assert (await until(client, m.Ended)).reason == "stopped"
        await no_more(client)
        client.send(type="stop", voice=1)
        assert (await until(client, m.Fail)).code == "bad-request"


async def test_flow_refusal_leaves_another_flow(jack: JackServer, tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow(voice=9))
        await until(client, m.Flowing)
        for keys, words in (
            ({"takes": 2}, "takes"),
            ({"loop": 1}, "loop"),
            ({"noise": "x"}, "noise"),
            ({"to": "file"}, "to"),
            ({"seconds": 600.0}, "seconds"),
            ({"seconds": None, "bars": 200}, "bars"),
            ({"gain": 20.0}, "player.max_gain"),
            ({"at": "soon"}, "at"),
            ({"model": "no such"}, "no such"),
            ({"voice": "lead"}, "voice"),
            ({"steps": 0}, "steps"),
            ({"transcription": "hello"}, "transcription"),
        ):
            client.send(**{**flow(voice=3), **keys})
            failed = await until(client, m.Fail)
            assert failed.id == "flow"
            assert words in failed.message, failed.message
        client.send(**flow(voice=3, out=3))
        assert "out: got 3" in (await until(client, m.Fail)).message
        client.send(**flow(voice=3, at="0"))
        assert "beat 0 is past" in (await until(client, m.Fail)).message
        client.send(type="stop", voice="*")
        assert (await until(client, m.Ended)).voice == 9


async def test_flow_is_reported_once_when_the_daemon_stops(jack: JackServer, tmp_path: Path, audioldm: Path):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**flow(voice=1))
        await until(client, m.Flowing)
        client.send(**flow(voice=2, prompt="slow pad"))
    left: list[m.Event] = []
    while not client.empty():
        left.append(await client.next_event())
    ends = [event for event in left if not isinstance(event, m.Flowing)]
    assert [(type(event), getattr(event, "code", "")) for event in ends] == [
        (m.Fail, "shutting-down"),
        (m.Ended, ""),
    ]


async def test_flow_continues_when_the_device_returns(jack: JackServer, tmp_path: Path, audioldm: Path):
    async def conversation() -> None:
        async with running(tmp_path, audioldm, *SETTINGS) as daemon:
            client = daemon.transports.client()
            client.send(**flow())
            first = await until(client, m.Flowing)
            jack.end()
            while daemon.player.device is not None:
                await asyncio.sleep(0.02)
            jack.start()
            seen = {first.take}
            while len(seen) < 4:
                seen.add((await until(client, m.Flowing)).take)
            client.send(type="stop", voice=1)
            assert (await until(client, m.Ended)).reason == "stopped"
            jack.end()  # the one that was started in here

    await conversation()
    jack.start()
