"""The player on a JACK server without a card: what a recorder on its outputs hears. Real processes, real time."""

import asyncio
import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from tests.player.player_stage import CLIENT, RATE, JackServer, Require, jack_server, play, player, recording, where
from timbred import errors
from timbred.audio import Samples
from timbred.ipc.supervisor import SparePolicy
from timbred.player.client import PlayerClient
from timbred.protocol import messages as m


@pytest.fixture
def jack(require_host: Require) -> Generator[JackServer]:
    with jack_server(require_host) as server:
        yield server


def noise(frames: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-0.2, 0.2, (frames, 2)).astype(np.float32)


def tone(frames: int, cycles: int) -> Samples:
    wave = 0.3 * np.sin(2 * np.pi * cycles * np.arange(frames) / frames)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


async def taken(subject: PlayerClient, frame: int) -> None:
    """Until the device has surely taken this frame."""
    while subject.last.frame < frame + RATE // 2:
        await asyncio.sleep(0.05)


async def test_player_client_output_equals_the_files_samples(jack: JackServer, require_host: Require, tmp_path: Path):
    sound = noise(RATE)

    async def conversation() -> Samples:
        async with player() as (subject, outbox):
            device = await subject.opened()
            assert (device.rate, device.channels) == (RATE, 2)
            with recording(require_host, tmp_path) as record:
                play(subject, sound)
                began = await outbox.next()
                assert isinstance(began, m.Playing)
                ended = await outbox.next()
                assert isinstance(ended, m.Ended)
                assert (ended.voice, ended.reason) == (1, "finished")
                assert ended.frame - began.frame == RATE
                await taken(subject, ended.frame)
                return record.samples()

    captured = await conversation()
    assert where(sound, captured) >= 0
    assert np.count_nonzero(np.abs(captured).max(axis=1)) == RATE


async def test_player_client_spaces_64_scheduled_clicks_exactly(
    jack: JackServer, require_host: Require, tmp_path: Path
):
    click = np.full((32, 2), 0.25, np.float32)

    async def conversation() -> tuple[Samples, list[m.Playing]]:
        async with player("tempo=20") as (subject, outbox):
            await subject.opened()
            with recording(require_host, tmp_path) as record:
                first = int(subject.last.beat) + 80  # four minutes from now
                for number in range(64):
                    play(subject, click, voice=number % 64 + 1, at=str(first + number))
                subject.set_tempo(bpm=960)  # once the player has got them all
                reported = [await outbox.until(m.Playing) for _ in range(64)]
                await taken(subject, reported[-1].frame)
                return record.samples(), reported

    captured, reported = await conversation()
    starts = np.flatnonzero(np.diff(np.concatenate(([0.0], captured[:, 0]))) > 0.1)
    assert np.diff(starts).tolist() == [3000] * 63
    assert np.diff([event.frame for event in reported]).tolist() == [3000] * 63
    assert [event.beat - reported[0].beat for event in reported] == pytest.approx(list(range(64)), abs=1e-6)


async def test_player_client_loops_without_a_gap_and_stops_without_a_click(
    jack: JackServer, require_host: Require, tmp_path: Path
):
    sound = tone(9_600, 88)

    async def conversation() -> Samples:
        async with player() as (subject, outbox):
            await subject.opened()
            with recording(require_host, tmp_path) as record:
                play(subject, sound, loop=True)
                began = await outbox.until(m.Playing)
                await taken(subject, began.frame + RATE)
                subject.stop_voice(CLIENT, m.Stop(voice="*"))
                ended = await outbox.until(m.Ended)
                assert ended.reason == "stopped"
                await taken(subject, ended.frame)
                return record.samples()

    captured = await conversation()
    sounding = captured[np.abs(captured).max(axis=1) > 0]
    assert len(sounding) > 3 * len(sound)
    assert where(np.concatenate([sound] * 3), captured) >= 0
    assert np.abs(np.diff(captured, axis=0)).max() <= np.abs(np.diff(sound, axis=0)).max() * 1.001


async def test_player_client_replaces_a_take_on_the_bar(jack: JackServer, require_host: Require, tmp_path: Path):
    async def conversation() -> tuple[Samples, m.Playing]:
        async with player("tempo=480") as (subject, outbox):
            await subject.opened()
            with recording(require_host, tmp_path) as record:
                play(subject, tone(9_600, 88), loop=True)
                await outbox.until(m.Playing)
                play(subject, tone(9_600, 66), loop=True, at="bar")
                second = await outbox.until(m.Playing)
                ended = await outbox.until(m.Ended)
                assert ended.reason == "replaced"
                await taken(subject, ended.frame)
                return record.samples(), second

    captured, second = await conversation()
    assert second.beat % 4 == 0
    assert second.frame == second.beat * 6_000
    assert np.abs(np.diff(captured, axis=0)).max() <= 1.5 * np.abs(np.diff(tone(9_600, 88), axis=0)).max()


async def test_player_client_set_changes_a_voice_and_stop_ends_it(jack: JackServer):
    async with player() as (subject, outbox):
        await subject.opened()
        play(subject, tone(9_600, 88), loop=True)
        await outbox.until(m.Playing)
        subject.change(CLIENT, m.Set(voice=1, gain=-12.0, pan=0.5))
        assert await outbox.next() == m.Acknowledged(id="set")
        while (subject.last.positions or [None])[0] is None or subject.last.positions[0].gain != -12.0:
            await asyncio.sleep(0.05)
        assert subject.voices_playing == 1
        subject.stop_voice(CLIENT, m.Stop(voice=1, fade=0.0))
        assert (await outbox.next()).reason == "stopped"
        assert subject.voices_playing == 0
        subject.stop_voice(CLIENT, m.Stop(voice="*"))
        assert await outbox.next() == m.Acknowledged(id="stop")


async def test_player_client_answers_bad_input_and_continues_the_other_voice(
    jack: JackServer, require_host: Require, tmp_path: Path
):
    sound = noise(2 * RATE)

    async def conversation() -> Samples:
        ends: list[m.Ended] = []

        async def refused() -> str:
            """The reason of the next refusal; the sound may end before it."""
            while isinstance(event := await outbox.next(), m.Ended):
                ends.append(event)
            assert isinstance(event, m.Fail)
            return event.message

        async with player() as (subject, outbox):
            await subject.opened()
            with recording(require_host, tmp_path) as record:
                play(subject, sound)
                await outbox.until(m.Playing)
                play(subject, noise(10), voice=2, at="0")
                assert "beat 0 is past" in await refused()
                play(subject, np.zeros((100, 8), np.float32), voice=2)
                assert "8 channels" in await refused()
                play(subject, noise(10), voice=2, out=3)
                assert "out: got 3" in await refused()
                with pytest.raises(errors.BadAudio, match="empty"):
                    play(subject, noise(0), voice=2)
                with pytest.raises(errors.BadAudio, match="60 dB"):
                    play(subject, noise(10) * np.nan, voice=2)
                with pytest.raises(errors.BadRequest, match=r"player\.max_gain"):
                    play(subject, noise(10), voice=2, gain=20.0)
                with pytest.raises(errors.BadRequest, match="at: got 'soon'"):
                    play(subject, noise(10), voice=2, at="soon")
                with pytest.raises(errors.BadRequest, match="voice: 7 is silent"):
                    subject.stop_voice(CLIENT, m.Stop(voice=7))
                with pytest.raises(errors.BadRequest, match="voice: 7 is silent"):
                    subject.change(CLIENT, m.Set(voice=7, gain=0.0))
                [ended] = ends or [await outbox.until(m.Ended)]
                await taken(subject, ended.frame)
                return record.samples()

    assert where(sound, await conversation()) >= 0


async def test_player_client_reopens_a_lost_device_and_continues_the_voice(jack: JackServer):
    sound = tone(100 * RATE, 44_000)

    async def conversation() -> None:
        async with player() as (subject, outbox):
            await subject.opened()
            play(subject, sound)
            await outbox.until(m.Playing)
            await taken(subject, RATE)
            jack.end()
            while subject.device is not None:
                await asyncio.sleep(0.02)
            left_at = subject.last.positions[0].position
            with pytest.raises(errors.NoAudioDevice):
                play(subject, noise(10), voice=2)
            jack.start()
            while subject.device is None or not subject.last.positions:
                await asyncio.sleep(0.02)
            while (now := subject.last.positions[0].position) <= left_at:
                await asyncio.sleep(0.02)
            assert now - left_at < 60 * RATE
            assert outbox.events.empty(), "for the performer nothing has ended"
            subject.stop_voice(CLIENT, m.Stop(voice="*"))
            assert (await outbox.next()).reason == "stopped"

    await conversation()


async def test_player_client_restarts_a_killed_player_and_continues_the_voice(jack: JackServer):
    async def conversation() -> None:
        async with player() as (subject, outbox):
            await subject.opened()
            play(subject, tone(9_600, 88), loop=True)
            await outbox.until(m.Playing)
            first = subject.process.pid
            assert first is not None
            os.kill(first, 9)
            while subject.device is not None:
                await asyncio.sleep(0.02)
            jack.end()  # a JACK server doesn't always survive a client that was killed
            jack.start()
            while subject.device is None or not subject.last.positions:
                await asyncio.sleep(0.02)
            assert subject.process.pid != first
            assert subject.voices_playing == 1
            assert outbox.events.empty(), "for the performer nothing has ended"

    await conversation()


async def test_player_client_continues_the_voice_on_a_spare_player(jack: JackServer):
    async def conversation() -> None:
        async with player(spare=SparePolicy(lambda: True, 0, 0.0)) as (subject, outbox):
            await subject.opened()
            play(subject, tone(48_000, 88), loop=True)
            await outbox.until(m.Playing)
            while not subject.process.has_warm_spare:
                await asyncio.sleep(0.02)
            first, waiting = subject.process.pid, subject.process.spare_pid
            assert first is not None
            os.kill(first, 9)
            while subject.device is not None:
                await asyncio.sleep(0.002)
            jack.end()  # a JACK server doesn't always survive a client that was killed
            jack.start()
            while subject.device is None or not subject.last.positions:
                await asyncio.sleep(0.02)
            assert subject.process.pid == waiting
            assert subject.voices_playing == 1
            assert outbox.events.empty(), "for the performer nothing has ended"

    await conversation()


async def test_player_client_rate_follows_the_device(require_host: Require):
    async def conversation() -> None:
        async with player() as (subject, _):
            assert (await subject.opened()).rate == 44_100

    with jack_server(require_host, rate=44_100):
        await conversation()
