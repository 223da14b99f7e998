"""The defaults that change a sound: what each changes, measured on signals with known values.

Levels are in dB relative to the same sound without the default; noise and residues in dBFS, where -240 means
none. No model is needed.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, Decibels, SampleRate, Seconds
from timbred.audiofile.files import quantize
from timbred.dsp.pipeline import run_pipeline
from timbred.dsp.splice import EditedPart, OriginalAudio, splice
from timbred.player.mixer.master_bus import DcBlocker, Limiter
from timbred.render_settings import RenderSettings

FILE_RATE_HZ = SampleRate(48_000)
NATIVE_RATE_HZ = SampleRate(32_000)

Signal = NDArray[np.float64]


def to_db(value: float) -> float:
    """Return the level of an amplitude in dB."""
    return 20 * float(np.log10(max(value, 1e-12)))


def rms(samples: NDArray[np.floating]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def frame_times(seconds: float, rate: int = FILE_RATE_HZ) -> Signal:
    """Return the time of each frame in seconds."""
    return np.arange(round(seconds * rate)) / rate


def make_drum(phase: float, hertz: float = 1_500.0) -> Signal:
    """Return a rim shot: a tone that decays within milliseconds and begins at this phase, 0 to 1 period."""
    t = frame_times(0.5)
    return 0.8 * np.sin(2 * np.pi * (hertz * t + phase)) * np.exp(-900 * t)


def process(samples: Signal, rate: SampleRate = FILE_RATE_HZ, **keys: Any) -> Signal:
    """Return the samples of a sound's file, without level matching unless `keys` request it."""
    settings = replace(RenderSettings(peak=None, bits=32), **keys)
    return run_pipeline(Clip(samples.astype(np.float32)[:, None], rate), settings).samples[:, 0].astype(np.float64)


def measure_attack_loss(**keys: Any) -> float:
    """Return the largest loss by a fade in the first 2 ms of 64 drums with different phases, in dB."""
    losses: list[float] = []
    for phase in np.arange(64) / 64:
        drum = make_drum(float(phase))
        losses.append(to_db(np.abs(process(drum, **keys)[:96]).max()) - to_db(np.abs(drum[:96]).max()))
    return min(losses)


def measure_rows() -> list[tuple[str, str, str]]:
    """Return the default, the measured quantity, and the figure."""
    steady = 0.5 * np.cos(2 * np.pi * 100 * frame_times(1.0))
    first_level = float(np.abs(process(steady)[0]))
    reversed_drum = make_drum(0.0)[::-1]
    ending_change = to_db(np.abs(process(reversed_drum)[-480:]).max()) - to_db(np.abs(reversed_drum[-480:]).max())
    levelled = process(steady, peak=Decibels(-1.0))
    sine = 0.25 * np.sin(2 * np.pi * 997 * frame_times(4.0))
    dithered = run_pipeline(
        Clip(sine.astype(np.float32)[:, None], FILE_RATE_HZ), RenderSettings(peak=None, bits=16, fade_out=Seconds(0))
    )
    rounded = quantize(sine.astype(np.float32), 24).astype(np.float64) / 2**31
    tone = 0.5 * np.sin(2 * np.pi * 14_000 * frame_times(1.0, NATIVE_RATE_HZ))
    converted = process(tone, NATIVE_RATE_HZ)[4_800:-4_800]
    expected = 0.5 * np.sin(2 * np.pi * 14_000 * frame_times(1.0))[4_800:-4_800]
    quiet_sine = (0.5 * np.sin(2 * np.pi * 440 * frame_times(1.0)))[:, None].astype(np.float32)
    limiter, loud_sine = Limiter(FILE_RATE_HZ, 1), 4 * quiet_sine
    untouched = limiter.process(quiet_sine)[limiter.latency :]
    limited = Limiter(FILE_RATE_HZ, 1).process(loud_sine)
    remover, low_sine = (
        DcBlocker(FILE_RATE_HZ, 1),
        (0.5 * np.sin(2 * np.pi * 20 * frame_times(20.0)))[:, None].astype(np.float32),
    )
    filtered = np.concatenate([remover.process(block) for block in np.array_split(low_sine, len(low_sine) // 256)])
    original = np.stack([0.3 * np.sin(2 * np.pi * 220 * frame_times(2.0))] * 2, axis=1) * [1.0, -1.0]
    rendered = Clip(
        (0.1 * np.sin(2 * np.pi * 220 * frame_times(3.0, NATIVE_RATE_HZ)))[:, None].astype(np.float32), NATIVE_RATE_HZ
    )
    added = splice(
        rendered, OriginalAudio(Clip(original.astype(np.float32), FILE_RATE_HZ), EditedPart(2.0, 3.0)), FILE_RATE_HZ
    ).samples
    kept_frames = 2 * FILE_RATE_HZ - 4_800
    rate_error = to_db(rms(converted - expected) / rms(expected))
    change = to_db(float(np.abs(untouched - quiet_sine[: len(untouched)]).max()))
    added_level = to_db(rms(added[-24_000:-4_800]) / rms(original))
    kept_change = to_db(float(np.abs(added[:kept_frames] - original[:kept_frames].astype(np.float32)).max()))
    table = [
        ("fade_in", "largest change of a drum's attack", f"{measure_attack_loss():.1f} dB"),
        ("fade_in", "the same with @fade_in 0.002", f"{measure_attack_loss(fade_in=Seconds(0.002)):.1f} dB"),
        ("fade_in", "first frame of a tone that begins at its peak of -6 dBFS", f"{to_db(first_level):.0f} dBFS"),
        ("fade_out", "peak of a reversed drum", f"{ending_change:.1f} dB"),
        ("peak", "peak of the file", f"{to_db(np.abs(levelled).max()):.2f} dBFS, one gain for the whole"),
        ("bits 24", "quantisation error", f"{to_db(rms(rounded - sine.astype(np.float32))):.1f} dBFS"),
        ("bits 16", "noise of quantisation and dither", f"{to_db(rms(dithered.samples[:, 0] - sine)):.1f} dBFS"),
        ("rate", "error of a tone of 14 kHz from 32 to 48 kHz", f"{rate_error:.0f} dB"),
        ("player.limiter", "change of a sound of -6 dBFS", f"{change:.0f} dBFS"),
        ("player.limiter", "peak of a sound of +6 dBFS", f"{to_db(float(np.abs(limited).max())):.1f} dBFS"),
        ("offset", "level of a tone of 20 Hz in the player", f"{to_db(rms(filtered) / rms(low_sine)):+.1f} dB"),
        ("extend", "change of the preserved part", f"{kept_change:.0f} dBFS"),
        ("extend", "level of the extension of inverted channels", f"{added_level:+.1f} dB"),
    ]
    return [
        (name, measured, figure.replace("-0.0 ", "0.0 ").replace("+0.0 ", "0.0 ")) for name, measured, figure in table
    ]


def main() -> None:
    """Print the table."""
    print("defaults that change a sound")
    for name, measured, figure in measure_rows():
        print(f"  {name:<16}{measured:<58}{figure}")


if __name__ == "__main__":
    main()
