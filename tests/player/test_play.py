"""From words to the bar: the whole daemon, an engine that renders sines, and a player on a JACK server."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.player.daemon_stage import until
from tests.player.player_stage import RATE, JackServer
from tests.test_server import TIMEOUT_S, audioldm, event_names, importable, running
from timbred.protocol import messages as m

__all__ = ["audioldm", "importable"]

SETTINGS = ("player.lead=100", "tempo=480")


def loop_on(voice: int, identity: str, **keys: Any) -> dict[str, Any]:
    words = {"type": "generate", "id": identity, "prompt": "a tone", "steps": 2, "to": "play", "loop": 1, "bars": 2}
    return {**words, "voice": voice, "at": "bar", **keys}


async def test_play_of_a_prompt_starts_a_loop_on_the_bar_and_the_next_replaces_it(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(**loop_on(1, "a"))
        take = await until(client, m.Take)
        assert take.seconds == 1.0
        first = await until(client, m.Playing)
        assert (first.voice, first.take, first.beat % 4) == (1, take.take_id, 0)
        client.send(**loop_on(1, "b", seed=5))
        second = await until(client, m.Playing)
        assert second.frame - first.frame == (second.beat - first.beat) * RATE * 60 / 480
        assert second.beat % 4 == 0
        ended = await until(client, m.Ended)
        assert (ended.take, ended.reason) == (take.take_id, "replaced")
        client.send(type="status")
        status = await until(client, m.StatusReply)
        assert (status.voices_playing, status.sample_rate) == (1, RATE)
        assert (status.late >= 0, status.lead >= 100.0) == (True, True), "as set, or more after underruns"
        client.send(type="stop", voice="*")
        assert (await until(client, m.Ended)).reason == "stopped"
        assert not list(tmp_path.glob("*.wav"))


async def test_play_of_files_and_takes_starts_stops_and_refuses(jack: JackServer, tmp_path: Path, audioldm: Path):
    soundfile.write(tmp_path / "slow.wav", np.full((22_050, 1), 0.1), 22_050)
    (tmp_path / "broken.wav").write_bytes(b"RIFF this is no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 48_000)

    async with running(tmp_path, audioldm, *SETTINGS) as daemon:
        client = daemon.transports.client()
        client.send(type="play", voice=3, take=str(tmp_path / "slow.wav"))
        playing = await until(client, m.Playing)
        ended = await until(client, m.Ended)
        assert ended.frame - playing.frame == RATE, "one second, at the device's rate"
        for take, code in (
            (str(tmp_path / "broken.wav"), "bad-audio"),
            (str(tmp_path / "empty.wav"), "bad-audio"),
            ("/etc/passwd", "forbidden-path"),
            ("0123456789", "bad-request"),
        ):
            client.send(type="play", voice=3, take=take)
            assert (await until(client, m.Fail)).code == code, take
        for request in (
            {"type": "play", "voice": 65, "take": "x"},
            {"type": "play", "voice": 1, "take": "x", "gain": float("nan")},
            {"type": "set", "voice": 9, "gain": 0},
            {"type": "stop", "voice": 9},
            {"type": "generate", "id": "v", "prompt": "a tone", "to": "play", "voice": "lead"},
        ):
            assert (await event_names(client, **request)) == ["fail"], request
        client.send(type="play", voice=3, take=str(tmp_path / "slow.wav"), loop=1)
        client.send(type="stop", voice="*")
        assert (await until(client, m.Ended)).reason == "stopped", "a stop overtakes no play"
        client.send(type="play", voice=4, take=str(tmp_path / "slow.wav"), loop=1)
        client.send(type="set", voice=4, gain=-6)
        received = {type(await asyncio.wait_for(client.next_event(), TIMEOUT_S)) for _ in range(2)}
        assert received == {m.Playing, m.Acknowledged}
        client.send(type="set", voice=4, speed=1.5)
        await until(client, m.Acknowledged)
        while daemon.player.plays_for_other_speed(4, 1.5):
            await asyncio.sleep(0.02)
        client.send(type="play", voice=5, take=str(tmp_path / "slow.wav"), speed=2)
        twice = await until(client, m.Playing)
        assert (await until(client, m.Ended)).frame - twice.frame == RATE // 2
        assert await event_names(client, type="tempo", bpm=90) == ["done"]
        assert daemon.handlers.settings.session.tempo == 90


async def test_play_settings_changed_without_a_device_apply_when_it_returns(
    jack: JackServer, tmp_path: Path, audioldm: Path
):
    soundfile.write(tmp_path / "a.wav", np.full((RATE, 1), 0.1), RATE)

    async def conversation() -> None:
        async with running(tmp_path, audioldm, *SETTINGS) as daemon:
            client = daemon.transports.client()
            client.send(type="play", voice=1, take=str(tmp_path / "a.wav"), loop=1)
            await until(client, m.Playing)
            jack.end()
            while daemon.player.device is not None:
                await asyncio.sleep(0.02)
            assert await event_names(client, type="set", voice=1, gain=-20, pan=0.5) == ["done"]
            jack.start()
            while not any((at.gain, at.pan) == (-20, 0.5) for at in daemon.player.last.positions):
                await asyncio.sleep(0.02)
            jack.end()  # the one that was started in here

    await conversation()
    jack.start()


async def test_play_without_a_device_is_refused_and_the_daemon_runs(tmp_path: Path, audioldm: Path):
    soundfile.write(tmp_path / "a.wav", np.full((100, 1), 0.1), 48_000)

    async with running(tmp_path, audioldm, "player.device=no such card") as daemon:
        client = daemon.transports.client()
        client.send(type="play", voice=1, take=str(tmp_path / "a.wav"))
        assert (await until(client, m.Fail)).code == "no-audio-device"
        assert await event_names(client, **loop_on(1, "a")) == ["fail"]
        assert (await event_names(client, type="generate", id="b", prompt="a tone", seconds=0.1, steps=2))[-1] == "done"
