"""Distance between a player's clicks and the beats of a Link session.

The player's own code runs on a simulated device with a counted clock. Its observations of device and session are late,
as on a busy machine.
"""

import math
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from timbred.audio import Samples
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.voice import StartVoice, VoiceSource, VoiceStarted
from timbred.player.process.devices import DeviceClock
from timbred.player.process.player_loop import PlayerLoop

RATE = 48_000
LATENCY = 0.0231
"""Seconds from the device's buffer to the ear."""

LEAD = 0.1
MOST = 0.002
"""Seconds that a beat may be missed by."""


@dataclass
class Session:
    """A Link session: straight lines of beats, one after the other, each from a moment on."""

    lines: list[tuple[float, float, float]] = field(default_factory=lambda: [(0.0, 3.3, 120.0)])
    playing: bool = False

    def beat(self, moment: float) -> float:
        since, beat, bpm = [line for line in self.lines if line[0] <= moment][-1]
        return beat + (moment - since) * bpm / 60.0

    def change(self, moment: float, bpm: float, jump: float = 0.0) -> None:
        """Another tempo from now on; joining others may also move the beat."""
        self.lines.append((moment, self.beat(moment) + jump, bpm))


@dataclass
class Device:
    """Takes a block whenever one has gone by, on time to the last nanosecond."""

    began: float
    block: int
    latency: float = LATENCY

    def taken(self, moment: float) -> int:
        return (math.floor((moment - self.began) * RATE / self.block) + 1) * self.block

    def heard_at(self, frame: int) -> float:
        return self.began + frame / RATE + self.latency


class Stage:
    """One player; `chance` says when it is woken and how late it then is."""

    def __init__(self, chance: random.Random, block: int, offset: float) -> None:
        self.chance = chance
        self.now = chance.uniform(10.0, 11.0)
        self.session = Session()
        self.device = Device(self.now, block)
        self.mixer = Mixer(RATE, 2, BeatGrid(RATE, 90.0), limit=False)
        self.times = DeviceClock(RATE)
        options = SimpleNamespace(link_offset=offset, link_start_stop=False)
        self.player: Any = SimpleNamespace(
            options=options, grid=self.mixer.grid, _device_clock=self.times, _link_played=False
        )
        self.began: list[VoiceStarted] = []

    def go_on(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            late = self.chance.choice((0.0, 0.0, 0.001, 0.004, 0.03))  # others had the processor
            self.now += 0.001 * self.chance.random() + late * self.chance.random()
            taken = self.device.taken(self.now)
            self.times.observe(taken, self.now)
            link = SimpleNamespace(now=self.reading, playing=self.session.playing)
            PlayerLoop._follow_link(self.player, cast("Any", link), cast("Any", self.device), self.mixer)  # pyright: ignore[reportPrivateUsage]
            if (missing := taken + round(LEAD * RATE) - self.mixer.frame) > 0:
                self.mixer.render(missing)
            self.began += [one for one in self.mixer.take_events() if isinstance(one, VoiceStarted)]

    def reading(self) -> tuple[float, float, float]:
        """The session as it is read: between two looks at the clock that are some microseconds apart."""
        return self.now + self.chance.uniform(-1, 1) * 2e-5, self.session.beat(self.now), self.session.lines[-1][2]

    def clicks(self, count: int, at: str) -> list[float]:
        """Seconds that each of some clicks is heard from the beat or bar it was asked for."""
        self.began.clear()
        for number in range(count):
            self.mixer.play(StartVoice(number, 1, VoiceSource(click(), RATE)), Moment(kind=cast("Any", at)))
            while len(self.began) <= number:
                self.go_on(0.05)
        unit = 1 if at == "beat" else 4
        bpm = self.session.lines[-1][2]
        beats = [self.session.beat(self.device.heard_at(one.frame)) for one in self.began]
        return [(beat - round(beat / unit) * unit) * 60.0 / bpm for beat in beats]


def click() -> Samples:
    return np.full((16, 2), 0.5, np.float32)


@pytest.mark.parametrize("block", [64, 256, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_player_loop_link_clicks_are_heard_on_the_sessions_beats(seed: int, block: int) -> None:
    stage = Stage(random.Random(seed), block, 0.0)
    stage.go_on(3.0)
    assert max(map(abs, stage.clicks(8, "beat"))) <= MOST
    assert max(map(abs, stage.clicks(3, "bar"))) <= MOST
    stage.session.change(stage.now, 173.0)
    stage.go_on(0.3)
    assert max(map(abs, stage.clicks(8, "beat"))) <= MOST
    stage.session.change(stage.now, 173.0, jump=1.37)  # it joined others, whose beat is another
    stage.go_on(0.3)
    assert max(map(abs, stage.clicks(8, "beat"))) <= MOST


@pytest.mark.parametrize("offset", [0.05, -0.05])
def test_player_loop_link_offset_delays_what_is_heard(offset: float) -> None:
    stage = Stage(random.Random(1), 256, offset)
    stage.go_on(3.0)
    assert stage.clicks(4, "beat") == pytest.approx([offset] * 4, abs=MOST)
