"""A sound made ready for a speed: nothing above what the device can say folds back, each frame goes out as it is."""

import math
from typing import Any

import numpy as np
import pytest

from timbred.audio import Clip, SampleRate, Samples
from timbred.ipc.player_messages import Moment
from timbred.player.beat_grid import BeatGrid
from timbred.player.mixer.mixer import Mixer
from timbred.player.mixer.voice import StartVoice, VoiceSource
from timbred.requests.playback import MIN_RESAMPLED_SPEED, prepare_speed

RATE = 48_000


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE) -> Clip:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return Clip(wave[:, None].astype(np.float32), SampleRate(rate))


def received(clip: Clip, speed: float, loop: bool = False, frames: int = 24_000) -> Samples:
    """What the mixer makes of it."""
    ready = prepare_speed(clip, RATE, loop, speed)
    subject = Mixer(RATE, 2, BeatGrid(RATE, 120), limit=False)
    subject.play(StartVoice(1, 1, VoiceSource(ready.samples, ready.rate, loop), speed=speed), Moment())
    return subject.render(frames)


def level(samples: Samples, hertz: float) -> float:
    """Of a tone, in dBFS."""
    spectrum = np.abs(np.fft.rfft(samples[:, 0] * np.hanning(len(samples))))
    return 20 * math.log10(spectrum[round(hertz * len(samples) / RATE)] / (0.25 * len(samples)) + 1e-12)


@pytest.mark.parametrize("speed", [1.3, 2.0, 3.7])
def test_prepare_speed_removes_what_is_too_high_at_the_speed(speed: float):
    high = 0.9 * RATE / 2
    out = received(tone(high, seconds=4.0), speed)[2_000:20_000]
    assert high * speed > RATE / 2
    assert np.abs(out).max() < 1e-3, "folded back it would be as loud as it was"
    low = received(tone(1_000.0, seconds=4.0), speed)[2_000:20_000]
    assert np.abs(low).max() == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("speed", [0.1, 0.5, 0.8, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_prepare_speed_keeps_the_pitch_of_the_speed(speed: float, rate: int):
    out = received(tone(1_000.0, seconds=2.0, rate=rate), speed)[1_000:20_200]
    assert level(out, 1_000 * speed) == pytest.approx(20 * np.log10(0.5), abs=0.5)


@pytest.mark.parametrize("speed", [1.0, 1.37, 0.77, 2.0])
def test_prepare_speed_keeps_the_length_of_a_loop(speed: float):
    """Over many rounds, a loop of any speed comes to its beginning when it should."""
    clip = tone(441.0, seconds=0.1)
    out = received(clip, speed, loop=True, frames=480_000)
    ready = prepare_speed(clip, RATE, True, speed)
    rounds = 480_000 * speed * ready.rate / RATE / len(ready.samples)
    assert rounds == pytest.approx(480_000 * speed / clip.frames, rel=1e-9)
    assert np.abs(out).max() <= 0.51


@pytest.mark.parametrize("speed", [1.5, 2.0, 20.0])
def test_prepare_speed_plays_each_frame_unchanged(speed: float):
    rng: Any = np.random.default_rng(0)
    clip = Clip(rng.uniform(-0.3, 0.3, (48_000, 2)).astype(np.float32), SampleRate(RATE))
    ready = prepare_speed(clip, RATE, False, speed)
    out = received(clip, speed, frames=len(ready.samples))
    assert np.array_equal(out, ready.samples)


def test_prepare_speed_bounds_memory_of_a_very_slow_sound():
    assert prepare_speed(tone(100.0), RATE, False, 0.05).samples.shape[0] == RATE / MIN_RESAMPLED_SPEED
