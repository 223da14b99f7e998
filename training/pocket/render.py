"""Rendering of described sounds: (2, samples) float32 at 44.1 kHz, peak 0.9."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from timbred.engine.families.pocket_effects import Audio, apply_effects
from timbred.models.pocket import SAMPLE_RATE
from training.pocket.midi import DRUM_CHANNEL, Score
from training.pocket.sounds import Sound
from training.pocket.sources import path_of
from training.synthesis import recipe as synthesis
from training.synthesis.oscillators import RATE as SYNTHESIS_RATE

PEAK = 0.9
GAP_SECONDS = 0.25
LEAD_SECONDS = 0.05
SILENT_PEAK = 1e-4
FONTS = ("font", "other font")


def render_soundfont(sounds: Sequence[Sound], source: str) -> list[Audio]:
    """Render sounds of a soundfont with fluidsynth from one MIDI file.

    Raises:
        ValueError: fluidsynth rendered at another sample rate.
    """
    score, starts, now = Score(), list[float](), LEAD_SECONDS
    for sound in sounds:
        channel = DRUM_CHANNEL if sound.drums else 0
        score.silence(now - 0.02, channel)
        score.program(now - 0.01, channel, sound.bank, sound.program)
        for number in range(count_passes(sound)):
            for start, length, note, velocity in sound.events:
                score.note(now + number * sound.seconds + start, length, channel, note, velocity)
        starts.append(now)
        played_seconds = count_passes(sound) * sound.seconds
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
    rendered: list[Audio] = []
    for sound, start in zip(sounds, starts, strict=True):
        first = round(start * SAMPLE_RATE)
        rendered.append(_fit_length(played[first:].T, count_passes(sound) * sound.seconds))
    return rendered


def count_passes(sound: Sound) -> int:
    """Return the number of passes: a loop uses its second pass, which begins with the decay of the first."""
    return 2 if sound.form == "loop" and sound.source in FONTS else 1


def _read(path: Path) -> tuple[NDArray[np.float32], int]:
    """Return the samples (samples, channels) and the sample rate of a file."""
    import soundfile  # not installed on a machine that only trains

    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(audio, np.float32), int(rate)


def _fit_length(audio: Audio, seconds: float) -> Audio:
    """Cut or pad audio to `seconds`."""
    samples = round(seconds * SAMPLE_RATE)
    cut = audio[:, :samples]
    return np.pad(cut, ((0, 0), (0, samples - cut.shape[1]))).astype(np.float32)


def synthesise(sound: Sound) -> Audio:
    """Render a synthesised sound with equal channels."""
    assert sound.recipe is not None
    fields: dict[str, Any] = sound.recipe | {"flags": tuple(sound.recipe["flags"])}
    recipe = synthesis.Recipe(**fields)
    mono = signal.resample_poly(synthesis.render(recipe), SAMPLE_RATE // 100, SYNTHESIS_RATE // 100)
    return _fit_length(np.stack((mono, mono)), sound.seconds)


def read_recording(sound: Sound) -> Audio:
    """Read a recorded sample; samples other than loops are transposed by up to half a semitone at random.

    Raises:
        ValueError: The file has another sample rate.
    """
    audio, rate = _read(path_of("samples") / f"{sound.recording}.flac")
    if rate != SAMPLE_RATE:
        raise ValueError(f"{sound.recording} is at {rate} Hz, not {SAMPLE_RATE}")
    sides = np.repeat(audio.T, 2 // audio.shape[1], axis=0)
    if sound.form != "loop":
        speed = 2 ** (np.random.default_rng(sound.seed).uniform(-0.5, 0.5) / 12)
        positions = np.arange(0, sides.shape[1] - 1, speed)
        sides = np.stack([np.interp(positions, np.arange(sides.shape[1]), side) for side in sides])
    return _fit_length(sides.astype(np.float32), sound.seconds)


def finish(audio: Audio, sound: Sound) -> Audio:
    """Apply effects, fade the end out, and normalise the peak."""
    audio = apply_effects(audio, sound.effects, sound.seed)
    audio = audio[:, audio.shape[1] - round(sound.seconds * SAMPLE_RATE) :]
    if sound.form != "loop":
        fade = min(audio.shape[1], int(SAMPLE_RATE * min(0.25, 0.08 * sound.seconds)))
        curve = np.ones(audio.shape[1], np.float32)
        curve[audio.shape[1] - fade :] = np.cos(np.linspace(0, np.pi / 2, fade)) ** 2
        audio = audio * curve
    peak = float(np.max(np.abs(audio)))
    return (audio * (PEAK / peak)).astype(np.float32) if peak > SILENT_PEAK else audio.astype(np.float32)


def render(sounds: Sequence[Sound]) -> list[Audio]:
    """Render sounds; return their audio in order."""
    rendered: list[Audio | None] = [None] * len(sounds)
    for source in FONTS:
        indices = [index for index, sound in enumerate(sounds) if sound.source == source]
        if indices:
            of_source = render_soundfont([sounds[index] for index in indices], source)
            for index, audio in zip(indices, of_source, strict=True):
                rendered[index] = audio
    for index, sound in enumerate(sounds):
        if sound.source == "code":
            rendered[index] = synthesise(sound)
        elif sound.source == "samples":
            rendered[index] = read_recording(sound)
    return [finish(audio, sound) for audio, sound in zip(rendered, sounds, strict=True) if audio is not None]
