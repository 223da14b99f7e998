"""Sounds that are heard while they are still made: in the mixer alone, and through the whole daemon."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.player.daemon_stage import disturbances, recorded, taken, undisturbed, until
from tests.player.player_stage import RATE, JackServer, Require
from tests.player.test_mixer import NOW, largest_step, mixer, noise, sine
from tests.test_server import TIMEOUT_S, audioldm, importable, running
from timbred.audio import Samples
from timbred.ipc.player_messages import Moment
from timbred.player.mixer.voice import RESUME_AFTER_S, STARVED_FADE_S, EndVoice, StartVoice, VoiceFinished, VoiceSource
from timbred.protocol import messages as m
from timbred.protocol.schema import name_of

__all__ = ["audioldm", "importable"]


def growing(samples: Samples) -> VoiceSource:
    return VoiceSource(np.zeros_like(samples), RATE, ready_frames=0)


@given(
    st.lists(st.integers(1_500, 9_000), min_size=1, max_size=8), st.lists(st.integers(8, 700), min_size=1, max_size=5)
)
@settings(deadline=None, max_examples=25)
def test_mixer_plays_a_growing_sound_unchanged(parts: list[int], sizes: list[int]):
    sound, subject = noise(sum(parts) + 3_000), mixer()
    there = growing(sound)
    there.add(sound[: 2_000 + max(sizes)])
    subject.play(StartVoice(1, 1, there), NOW)
    out: list[Samples] = []
    for number in range(10_000):
        if there.ready_frames is not None and there.ready_frames - subject.frame < 1_500 + max(sizes):
            there.add(sound[there.ready_frames : there.ready_frames + parts[number % len(parts)]])
        out.append(subject.render(sizes[number % len(sizes)]))
        if subject.frame > len(sound) + 100:
            break
    received = np.concatenate(out)
    assert np.array_equal(received[: len(sound)], sound)
    assert not received[len(sound) :].any()
    assert VoiceFinished(1, len(sound), "finished") in subject.take_events()


def test_mixer_fades_a_starved_sound_and_resumes_it_in_place_without_a_step():
    sound, subject = sine(48_000, hertz=440), mixer()
    there = growing(sound)
    there.add(sound[:12_000])
    subject.play(StartVoice(1, 1, there), NOW)
    before = np.concatenate([subject.render(500) for _ in range(40)])  # 8,000 frames too many
    assert not before[12_001:].any()
    assert before[:11_000].any(axis=1).mean() > 0.9
    there.add(sound[12_000 : 12_000 + round(RESUME_AFTER_S * RATE) // 2])
    waiting = subject.render(500)
    assert not waiting.any(), "too little to go on with"
    there.add(sound[there.ready_frames :])
    out = np.concatenate([before, waiting, *(subject.render(500) for _ in range(90))])
    assert largest_step(out) <= 1.2 * largest_step(sound)
    assert not subject.layers
    over = next(one for one in subject.take_events() if isinstance(one, VoiceFinished))
    silent = over.frame - len(sound)
    ebb = round(STARVED_FADE_S * RATE)
    # after the second fade in every frame is the sound's own, only later
    resumed = over.frame - (len(sound) - 12_000) + 2 * ebb
    assert np.array_equal(out[resumed : over.frame], sound[resumed - silent :])


def test_mixer_stop_ends_a_starved_sound():
    subject = mixer()
    there = growing(noise(48_000))
    there.add(noise(4_800))
    subject.play(StartVoice(1, 1, there), NOW)
    subject.render(9_600)
    subject.stop(EndVoice(5, 1), NOW)
    subject.render(2_000)
    assert not subject.layers
    assert [one.reason for one in subject.take_events() if isinstance(one, VoiceFinished)] == ["stopped"]


@pytest.mark.parametrize("waits", [False, True])
def test_mixer_ends_a_broken_sound_without_a_click(waits: bool):
    sound, subject = sine(48_000, hertz=440), mixer()
    there = growing(sound)
    there.add(sound[:24_000])
    subject.play(StartVoice(1, 1, there), Moment(kind="number", number=50.0) if waits else NOW)
    before = subject.render(5_000)
    subject.end_early(1)
    out = np.concatenate((before, subject.render(5_000)))
    assert largest_step(out) <= 1.001 * largest_step(sound)
    assert not out[-1_000:].any()
    assert [one.reason for one in subject.take_events() if isinstance(one, VoiceFinished)] == ["stopped"]
    assert not subject.waiting_commands
    assert not subject.layers


def test_mixer_at_another_speed_reads_only_existing_samples():
    sound, subject = np.ones((48_000, 2), np.float32) * 0.1, mixer()
    there = growing(sound)
    there.add(sound[:10_000])
    subject.play(StartVoice(1, 1, there, speed=1.7), NOW)
    out = subject.render(4_000)
    assert np.abs(out - 0.1).max() < 1e-6
    rest = np.concatenate([subject.render(100) for _ in range(60)])
    assert (np.diff(rest[:, 0]) <= 1e-6).all(), "it only fades"
    assert not rest[-1].any()


SETTINGS = ("player.lead=100",)


def request(identity: str, prompt: str = "a tone", **keys: Any) -> dict[str, Any]:
    words = {"type": "generate", "id": identity, "prompt": prompt, "seconds": 2.0, "steps": 2, "to": "both", "seed": 1}
    return {**words, **keys}


def aligned(captured: Samples, sound: Samples) -> Samples:
    """The part of the capture that is this sound, by its best correlation."""
    spectrum = np.fft.rfft(captured[:, 0], 1 << 20) * np.conj(np.fft.rfft(sound[:, 0], 1 << 20))
    place = int(np.argmax(np.fft.irfft(spectrum)))
    return captured[place : place + len(sound)]


async def test_mixer_growing_sound_as_heard_equals_the_file(
    jack: JackServer, require_host: Require, tmp_path: Path, audioldm: Path
):
    async def conversation() -> tuple[tuple[Samples, Path], int]:
        async with recorded(require_host, tmp_path, audioldm, *SETTINGS) as (daemon, client, record):
            client.send(**request("a"))
            received: dict[str, Any] = {}
            while {"playing", "ended", "done"} - set(received):
                event = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
                assert name_of(event) not in received or name_of(event) == "progress"
                received[name_of(event)] = event
            assert received["playing"].take == received["take"].take_id == received["ended"].take
            assert received["playing"].voice == 1, "a free one"
            assert received["ended"].frame - received["playing"].frame == 2 * RATE
            await taken(daemon, received["ended"].frame)
            return (record.samples(), Path(received["take"].path)), disturbances(daemon)

    captured, path = await undisturbed(conversation)
    sound = np.asarray(soundfile.read(path, dtype="float32", always_2d=True)[0], np.float32)
    part = aligned(captured, sound)[:, :1]
    level = float((part * sound).sum() / (sound**2).sum())
    assert level == pytest.approx(1.0, abs=0.01)
    assert np.abs(part - level * sound)[480:-480].max() < 1e-3


async def test_mixer_growing_sound_starts_before_it_is_finished_and_waits_without_a_click(
    jack: JackServer, require_host: Require, tmp_path: Path, audioldm: Path
):
    """The largest step is the sound's own: as in its file, that of a tone that begins at full level."""
    gate = tmp_path / "gate"

    async def conversation() -> tuple[tuple[Samples, Path], int]:
        async with recorded(require_host, tmp_path, audioldm, *SETTINGS) as (daemon, client, record):
            gate.unlink(missing_ok=True)
            client.send(**request("a", f"half {gate}", voice=7))
            playing = await until(client, m.Playing)
            assert playing.voice == 7
            await taken(daemon, playing.frame + RATE)  # one second is there: it is dry now
            assert daemon.player.voices_playing == 1
            gate.touch()
            take = await until(client, m.Take)
            assert take.take_id == playing.take
            ended = await until(client, m.Ended)
            assert (ended.take, ended.reason) == (take.take_id, "finished")
            await taken(daemon, ended.frame)
            return (record.samples(), Path(take.path)), disturbances(daemon)

    captured, path = await undisturbed(conversation)
    sound = soundfile.read(path, dtype="float32", always_2d=True)[0]
    own = np.abs(np.diff(sound, axis=0)).max()
    assert own < 0.1
    assert np.abs(np.diff(captured, axis=0)).max() <= 1.05 * own


async def test_mixer_growing_sound_at_another_speed_is_prepared_once_it_is_whole(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        client.send(**request("a", seconds=16.0, speed=2.0))
        playing = await until(client, m.Playing)
        orders = {daemon.player.order_of(number) for number in range(1, 3)} - {None}
        [order] = orders
        assert order is not None
        while (now := daemon.player.order_of(order.play)) is not None and now.rate == RATE:
            await asyncio.sleep(0.01)
        assert now is None or now.rate == RATE / 2
        assert (await until(client, m.Ended)).frame - playing.frame == pytest.approx(8 * RATE, abs=4)


async def test_mixer_growing_sound_that_is_cancelled_fails_or_loses_its_engine_ends_on_its_voice(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        client.send(**request("a", f"half {tmp_path / 'never'}"))
        playing = await until(client, m.Playing)
        client.send(type="cancel", id="a")
        reported = {name_of(await asyncio.wait_for(client.next_event(), TIMEOUT_S)) for _ in range(2)}
        assert reported == {"cancelled", "ended"}
        assert daemon.library.get(playing.take) is None
        client.send(**request("b", "breaks"))
        received: list[str] = []
        while {"fail", "ended"} - set(received):
            received.append(name_of(await asyncio.wait_for(client.next_event(), TIMEOUT_S)))
        assert received.count("fail") == 1
        client.send(**request("c", f"half {tmp_path / 'never'}", voice=3))
        first = await until(client, m.Playing)
        client.send(type="stop", voice=3)
        assert (await until(client, m.Ended)).take == first.take
        (tmp_path / "never").touch()
        await until(client, m.Done)
        client.send(type="status")
        assert (await until(client, m.StatusReply)).voices_playing == 0, "a stopped sound stays stopped"


async def test_mixer_growing_sound_takes_a_free_voice_and_none_is_reported(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    soundfile.write(tmp_path / "a.wav", np.full((100, 1), 0.01), RATE)

    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        await daemon.player.opened()
        for voice in (1, 2, 4):
            client.send(type="play", voice=voice, take=str(tmp_path / "a.wav"), loop=1)
            await until(client, m.Playing)
        client.send(**request("a", to="play", loop=1, seconds=0.2))
        assert (await until(client, m.Playing)).voice == 3
        for voice in range(5, 65):
            client.send(type="play", voice=voice, take=str(tmp_path / "a.wav"), loop=1)
        for _ in range(60):
            await until(client, m.Playing)
        client.send(**request("b", to="play", seconds=0.2))
        failed = await until(client, m.Fail)
        assert (failed.id, failed.code) == ("play", "busy")
        client.send(type="play", voice=65, take=str(tmp_path / "a.wav"))
        assert (await until(client, m.Fail)).code == "bad-request"
