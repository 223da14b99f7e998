"""Rendering of described sounds: (2, samples) float32 at 44.1 kHz, peak 0.9."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from training.pocket.effects import EFFECTS, Audio
from training.pocket.midi import DRUM_CHANNEL, Score
from training.pocket.settings import SAMPLE_RATE
from training.pocket.sounds import Sound
from training.pocket.sources import path_of
from training.synthesis import recipe as synthesis
from training.synthesis.oscillators import RATE as SYNTHESIS_RATE

PEAK = 0.9
GAP_SECONDS = 0.25
LEAD_SECONDS = 0.05
SILENT_PEAK = 1e-4
FONTS = ("font", "other font")


def play(sounds: Sequence[Sound], source: str) -> list[Audio]:
    """Sounds of a font, played by fluidsynth from one MIDI file, cut apart."""
    score, starts, now = Score(), list[float](), LEAD_SECONDS
    for sound in sounds:
        channel = DRUM_CHANNEL if sound.drums else 0
        score.silence(now - 0.02, channel)
        score.program(now - 0.01, channel, sound.bank, sound.program)
        for turn in range(turns(sound)):
            for start, length, note, velocity in sound.events:
                score.note(now + turn * sound.seconds + start, length, channel, note, velocity)
        starts.append(now)
        played_seconds = turns(sound) * sound.seconds
        score.silence(now + played_seconds + 0.03, channel)
        now = round(now + played_seconds + GAP_SECONDS, 3)
    with tempfile.TemporaryDirectory() as folder:
        file, wave = Path(folder) / "score.mid", Path(folder) / "score.wav"
        score.write(file, now)
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.4", "-r", str(SAMPLE_RATE), "-O", "float"]
        command += ["-o", "synth.dynamic-sample-loading=1", "-F", str(wave), str(path_of(source)), str(file)]
        subprocess.run(command, check=True, capture_output=True)
        played, rate = _read(wave)
    if rate != SAMPLE_RATE:
        raise ValueError(f"fluidsynth rendered at {rate} Hz, not {SAMPLE_RATE}: it must take -r")
    found: list[Audio] = []
    for sound, start in zip(sounds, starts, strict=True):
        first = round(start * SAMPLE_RATE)
        found.append(_fitted(played[first:].T, turns(sound) * sound.seconds))
    return found


def turns(sound: Sound) -> int:
    """Passes to play: a loop's second pass is kept, so that what rings at its end is heard at its start."""
    return 2 if sound.form == "loop" and sound.source in FONTS else 1


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    """Samples (samples, sides) and sample rate of a file."""
    import soundfile  # not there on a machine that only trains

    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(audio, np.float32), int(rate)


def _fitted(audio: Audio, seconds: float) -> Audio:
    """Cut or padded to `seconds`."""
    samples = round(seconds * SAMPLE_RATE)
    cut = audio[:, :samples]
    return np.pad(cut, ((0, 0), (0, samples - cut.shape[1]))).astype(np.float32)


def synthesise(sound: Sound) -> Audio:
    """A sound made by code, both sides equal."""
    assert sound.recipe is not None
    fields: dict[str, Any] = sound.recipe | {"flags": tuple(sound.recipe["flags"])}
    recipe = synthesis.Recipe(**fields)
    mono = signal.resample_poly(synthesis.render(recipe), SAMPLE_RATE // 100, SYNTHESIS_RATE // 100)
    return _fitted(np.stack((mono, mono)), sound.seconds)


def read_recording(sound: Sound) -> Audio:
    """A recorded sample, for single sounds up to half a semitone higher or lower."""
    audio, rate = _read(path_of("samples") / f"{sound.recording}.flac")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{sound.recording} is at {rate} Hz, not {SAMPLE_RATE}")
    sides = np.repeat(audio.T, 2 // audio.shape[1], axis=0)
    if sound.form != "loop":
        speed = 2 ** (np.random.default_rng(sound.seed).uniform(-0.5, 0.5) / 12)
        places = np.arange(0, sides.shape[1] - 1, speed)
        sides = np.stack([np.interp(places, np.arange(sides.shape[1]), side) for side in sides])
    return _fitted(sides.astype(np.float32), sound.seconds)


def finish(audio: Audio, sound: Sound) -> Audio:
    """Effects, a short fade at a cut end, full level."""
    random = np.random.default_rng((sound.seed, 1))
    for name in sound.effects:
        audio = EFFECTS[name].apply(audio, random)
    audio = audio[:, audio.shape[1] - round(sound.seconds * SAMPLE_RATE) :]
    if sound.form != "loop":
        fade = min(audio.shape[1], int(SAMPLE_RATE * min(0.25, 0.08 * sound.seconds)))
        curve = np.ones(audio.shape[1], np.float32)
        curve[audio.shape[1] - fade :] = np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
        audio = audio * curve
    peak = float(np.max(np.abs(audio)))
    return (audio * (PEAK / peak)).astype(np.float32) if peak > SILENT_PEAK else audio.astype(np.float32)


def render(sounds: Sequence[Sound]) -> list[Audio]:
    """All sounds, in order."""
    found: list[Audio | None] = [None] * len(sounds)
    for source in FONTS:
        places = [index for index, sound in enumerate(sounds) if sound.source == source]
        if places:
            for index, audio in zip(places, play([sounds[index] for index in places], source), strict=True):
                found[index] = audio
    for index, sound in enumerate(sounds):
        if sound.source == "code":
            found[index] = synthesise(sound)
        elif sound.source == "samples":
            found[index] = read_recording(sound)
    return [finish(audio, sound) for audio, sound in zip(found, sounds, strict=True) if audio is not None]
