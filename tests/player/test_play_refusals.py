"""Everything that can't be played is answered by its code, and what sounds meanwhile is captured without a break."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.player.daemon_stage import disturbances, until
from tests.player.player_stage import RATE, JackServer, Require, recording
from tests.player.test_player_loop_soak import loop_of_noise
from tests.player.unbroken import gaps
from tests.test_server import TIMEOUT_S, audioldm, importable, running
from timbred.audio import Samples
from timbred.protocol import messages as m

__all__ = ["audioldm", "importable"]


def bad_plays(folder: Path) -> list[tuple[dict[str, Any], str, str]]:
    """A request, the code that answers it, and what its message names."""
    soundfile.write(folder / "loop.wav", loop_of_noise(), RATE, subtype="FLOAT")
    soundfile.write(folder / "eight.wav", np.full((RATE, 8), 0.1), RATE)
    soundfile.write(folder / "empty.wav", np.zeros((0, 1)), RATE)
    soundfile.write(folder / "no numbers.wav", np.full((100, 1), np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "far too loud.wav", np.full((100, 1), 1e6), RATE, subtype="FLOAT")
    (folder / "broken.wav").write_bytes(b"RIFF this is no sound")
    (folder / "cut.flac").write_bytes(b"fLaC\x00\x00")
    good = str(folder / "loop.wav")

    def play(code: str, words: str, take: str = good, **keys: Any) -> tuple[dict[str, Any], str, str]:
        return {"type": "play", "voice": 2, "take": take, **keys}, code, words

    return [
        play("bad-request", "voice", voice=65),
        play("bad-request", "voice", voice=0),
        play("bad-request", "voice", voice="lead"),
        play("bad-request", "no take has the id", take="0123456789"),
        play("forbidden-path", "passwd", take="/etc/passwd"),
        play("forbidden-path", "..", take=str(folder / ".." / "a.wav")),
        play("bad-audio", "gone.wav", take=str(folder / "gone.wav")),
        play("bad-audio", "broken.wav", take=str(folder / "broken.wav")),
        play("bad-audio", "cut.flac", take=str(folder / "cut.flac")),
        play("bad-audio", "empty", take=str(folder / "empty.wav")),
        play("bad-audio", "numbers", take=str(folder / "no numbers.wav")),
        play("bad-audio", "60 dB", take=str(folder / "far too loud.wav")),
        play("bad-request", "8 channels", take=str(folder / "eight.wav")),
        play("bad-request", "gain", gain=float("nan")),
        play("bad-request", "gain", gain=float("inf")),
        play("bad-request", "player.max_gain", gain=20),
        play("bad-request", "pan", pan=2),
        play("bad-request", "speed", speed=0),
        play("bad-request", "out: got 3", out=3),
        play("bad-request", "fade", fade=-1),
        play("bad-request", "beat 0 is past", at="0"),
        play("bad-request", "at: got", at="soon"),
        play("bad-request", "at: got", at="nan"),
        ({"type": "set", "voice": 9, "gain": 0}, "bad-request", "silent"),
        ({"type": "set", "voice": 1}, "bad-request", "nothing to change"),
        ({"type": "set", "voice": 1, "speed": float("nan")}, "bad-request", "speed"),
        ({"type": "stop", "voice": 9}, "bad-request", "silent"),
        ({"type": "stop", "voice": 1, "at": "0"}, "bad-request", "beat 0 is past"),
        ({"type": "tempo", "bpm": float("nan")}, "bad-request", "bpm"),
        ({"type": "generate", "id": "a", "prompt": "a", "to": "play", "voice": 70}, "bad-request", "voice"),
        ({"type": "flow", "voice": 70, "prompt": "a"}, "bad-request", "voice"),
    ]


async def test_play_refusals_are_answered_and_leave_another_voice_untouched(
    jack: JackServer, require_host: Require, tmp_path: Path, audioldm: Path
):
    asked = bad_plays(tmp_path)

    async def conversation() -> tuple[Samples, int]:
        async with running(tmp_path, audioldm, "player.lead=150") as daemon:
            client = daemon.transports.client()
            await daemon.player.opened()
            with recording(require_host, tmp_path) as record:
                client.send(type="play", voice=1, take=str(tmp_path / "loop.wav"), loop=1)
                playing = await until(client, m.Playing)
                for request, code, words in asked:
                    client.send(**request)
                    failed = await asyncio.wait_for(client.next_event(), TIMEOUT_S)
                    assert isinstance(failed, m.Fail), (request, failed)
                    assert failed.id == request.get("id", request["type"])
                    assert failed.code == code, (request, failed)
                    assert words in failed.message, (request, failed)
                assert daemon.player.voices_playing == 1
                while daemon.player.last.frame < playing.frame + RATE:
                    await asyncio.sleep(0.05)
                client.send(type="stop", voice=1, fade=0.002)
                ended = await until(client, m.Ended)
                while daemon.player.last.frame < ended.frame + RATE:
                    await asyncio.sleep(0.05)
                return record.samples(), disturbances(daemon)

    captured, disturbed = await conversation()
    last = int(np.flatnonzero(np.abs(captured).max(axis=1) > 0)[-1])
    assert last > RATE // 2
    assert len(gaps(captured[: last - round(0.002 * RATE)], loop_of_noise())) <= disturbed
