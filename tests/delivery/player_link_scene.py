"""Two Link peers on one JACK server: this process, and a player. Prints how far the player's clicks are from our beats.

Run in a network of its own, as `python -m tests.delivery.player_link_scene`; prints one JSON object: errors in
milliseconds, before and after we change the tempo.
"""

import asyncio
import json
import shutil
import statistics
import sys
import time
from typing import Any

import aalink
import numpy as np
import sounddevice

from tests.delivery.player_stage import RATE, jack_server, play, player
from timbred.delivery.playback.devices import let_go, look_again
from timbred.delivery.player import Player
from timbred.protocol import messages as m

CLICKS = 8


class Recorder:
    """Records the player's output, and when each block of it passed."""

    def __init__(self) -> None:
        look_again()  # the player came after this process
        names = [device["name"] for device in sounddevice.query_devices()]
        source = next(number for number, name in enumerate(names) if "PortAudio" in name)
        self.blocks: list[Any] = []
        self.passed: list[tuple[int, float]] = []
        self.frames = 0
        self.stream = sounddevice.InputStream(device=source, channels=1, samplerate=RATE, callback=self._take)

    def _take(self, block: Any, frames: int, _time: object, _flags: object) -> None:
        self.passed.append((self.frames, time.monotonic()))
        self.blocks.append(block.copy())
        self.frames += frames

    def moments_of_clicks(self) -> list[float]:
        """When each click was in the device's buffer, in seconds of the monotonic clock."""
        sound = np.concatenate(self.blocks)[:, 0]
        starts = np.flatnonzero((sound[1:] > 0.1) & (sound[:-1] == 0.0)) + 1
        return [self._moment(int(start)) for start in starts]

    def _moment(self, frame: int) -> float:
        # a callback is late at times, never early: the earliest of those around tells when the blocks truly began
        near = [moment - first / RATE for first, moment in self.passed if abs(first - frame) < RATE // 2]
        return min(near) + frame / RATE


async def clicks(subject: Player, heard: Any) -> None:
    for _ in range(CLICKS):
        play(subject, np.full((16, 2), 0.5, np.float32), at="beat")
        await heard.until(m.Playing)


def errors_in_ms(moments: list[float], link: aalink.Link, latency: float) -> list[float]:
    """How far each moment, when it is heard, is from the nearest beat of ours."""
    now, beat, bpm = time.monotonic(), float(link.beat), float(link.tempo)
    beats = [beat + (moment + latency - now) * bpm / 60.0 for moment in moments]
    return [(one - round(one)) * 60_000.0 / bpm for one in beats]


async def scene() -> dict[str, list[float]]:
    link = aalink.Link(240)
    link.quantum = 4
    link.enabled = True
    async with player("link=1", "tempo=100", lead=20.0) as (subject, heard):
        device = await subject.opened()
        while subject.last.peers == 0 or abs(subject.last.bpm - link.tempo) > 0.01:
            await asyncio.sleep(0.05)
        found: dict[str, list[float]] = {}
        for name, bpm in (("first", 240.0), ("changed", 200.0)):
            link.tempo = bpm
            while abs(subject.last.bpm - bpm) > 0.01:
                await asyncio.sleep(0.05)
            recorder = Recorder()
            with recorder.stream:
                await clicks(subject, heard)
                await asyncio.sleep(0.5)
            found[name] = errors_in_ms(recorder.moments_of_clicks(), link, device.latency)
        return found


def main() -> None:
    def require(name: str) -> str:
        return shutil.which(name) or name

    with jack_server(require, "link", period=256):
        errors = asyncio.run(asyncio.wait_for(scene(), 60))
        let_go()
    medians = {f"median_{name}": statistics.median(values) for name, values in errors.items()}
    print(json.dumps({**errors, **medians}))


if __name__ == "__main__":
    sys.exit(main())
