"""The defaults that change a sound: what each changes, measured on signals with known values.

Levels are in dB relative to the same sound without the default; noise and remains in dBFS, where -240 stands for none
at all. No model is needed.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timbred.audio import Clip, Decibels, SampleRate, Seconds
from timbred.audiofile.writer import quantize
from timbred.dsp.pipeline import run_pipeline
from timbred.dsp.splice import EditedPart, OriginalAudio, splice
from timbred.player.mixer.master_bus import DcBlocker, Limiter
from timbred.render_settings import RenderSettings

FILE_RATE_HZ = SampleRate(48_000)
NATIVE_RATE_HZ = SampleRate(32_000)

Signal = NDArray[np.float64]


def db(value: float) -> float:
    """The level of an amplitude, in dB."""
    return 20 * float(np.log10(max(value, 1e-12)))


def rms(samples: NDArray[np.floating]) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def moments(seconds: float, rate: int = FILE_RATE_HZ) -> Signal:
    """The moment of each frame, in seconds."""
    return np.arange(round(seconds * rate)) / rate


def drum(begins: float, hertz: float = 1_500.0) -> Signal:
    """A rim shot: a tone that decays within milliseconds, and begins at a part of its period, 0 to 1."""
    t = moments(0.5)
    return 0.8 * np.sin(2 * np.pi * (hertz * t + begins)) * np.exp(-900 * t)


def finished(samples: Signal, rate: SampleRate = FILE_RATE_HZ, **keys: Any) -> Signal:
    """A sound as its file has it, without a level of its own, unless it is asked for."""
    settings = replace(RenderSettings(peak=None, bits=32), **keys)
    return run_pipeline(Clip(samples.astype(np.float32)[:, None], rate), settings).samples[:, 0].astype(np.float64)


def attack_loss(**keys: Any) -> float:
    """The most that a fade takes off the first 2 ms of 64 drums that begin at different places of a period, in dB."""
    losses: list[float] = []
    for begins in np.arange(64) / 64:
        hit = drum(float(begins))
        losses.append(db(np.abs(finished(hit, **keys)[:96]).max()) - db(np.abs(hit[:96]).max()))
    return min(losses)


def rows() -> list[tuple[str, str, str]]:
    """The default, what was measured, and the figure."""
    steady = 0.5 * np.cos(2 * np.pi * 100 * moments(1.0))
    click = float(np.abs(finished(steady)[0]))
    reversed_drum = drum(0.0)[::-1]
    end = db(np.abs(finished(reversed_drum)[-480:]).max()) - db(np.abs(reversed_drum[-480:]).max())
    levelled = finished(steady, peak=Decibels(-1.0))
    sine = 0.25 * np.sin(2 * np.pi * 997 * moments(4.0))
    dithered = run_pipeline(
        Clip(sine.astype(np.float32)[:, None], FILE_RATE_HZ), RenderSettings(peak=None, bits=16, fade_out=Seconds(0))
    )
    rounded = quantize(sine.astype(np.float32), 24).astype(np.float64) / 2**31
    tone = 0.5 * np.sin(2 * np.pi * 14_000 * moments(1.0, NATIVE_RATE_HZ))
    converted = finished(tone, NATIVE_RATE_HZ)[4_800:-4_800]
    expected = 0.5 * np.sin(2 * np.pi * 14_000 * moments(1.0))[4_800:-4_800]
    quiet = (0.5 * np.sin(2 * np.pi * 440 * moments(1.0)))[:, None].astype(np.float32)
    limiter, loud = Limiter(FILE_RATE_HZ, 1), 4 * quiet
    untouched = limiter.process(quiet)[limiter.latency :]
    held = Limiter(FILE_RATE_HZ, 1).process(loud)
    remover, low = (
        DcBlocker(FILE_RATE_HZ, 1),
        (0.5 * np.sin(2 * np.pi * 20 * moments(20.0)))[:, None].astype(np.float32),
    )
    heard = np.concatenate([remover.process(block) for block in np.array_split(low, len(low) // 256)])
    there = np.stack([0.3 * np.sin(2 * np.pi * 220 * moments(2.0))] * 2, axis=1) * [1.0, -1.0]
    made = Clip(
        (0.1 * np.sin(2 * np.pi * 220 * moments(3.0, NATIVE_RATE_HZ)))[:, None].astype(np.float32), NATIVE_RATE_HZ
    )
    added = splice(
        made, OriginalAudio(Clip(there.astype(np.float32), FILE_RATE_HZ), EditedPart(2.0, 3.0)), FILE_RATE_HZ
    ).samples
    kept_frames = 2 * FILE_RATE_HZ - 4_800
    rate_error = db(rms(converted - expected) / rms(expected))
    change = db(float(np.abs(untouched - quiet[: len(untouched)]).max()))
    added_level = db(rms(added[-24_000:-4_800]) / rms(there))
    kept_change = db(float(np.abs(added[:kept_frames] - there[:kept_frames].astype(np.float32)).max()))
    table = [
        ("fade_in", "largest change of a drum's attack", f"{attack_loss():.1f} dB"),
        ("fade_in", "the same with @fade_in 0.002", f"{attack_loss(fade_in=Seconds(0.002)):.1f} dB"),
        ("fade_in", "first frame of a tone that begins at its peak of -6 dBFS", f"{db(click):.0f} dBFS"),
        ("fade_out", "peak of a reversed drum", f"{end:.1f} dB"),
        ("peak", "peak of the file", f"{db(np.abs(levelled).max()):.2f} dBFS, one gain for the whole"),
        ("bits 24", "quantisation error", f"{db(rms(rounded - sine.astype(np.float32))):.1f} dBFS"),
        ("bits 16", "noise of quantisation and dither", f"{db(rms(dithered.samples[:, 0] - sine)):.1f} dBFS"),
        ("rate", "error of a tone of 14 kHz from 32 to 48 kHz", f"{rate_error:.0f} dB"),
        ("player.limiter", "change of a sound of -6 dBFS", f"{change:.0f} dBFS"),
        ("player.limiter", "peak of a sound of +6 dBFS", f"{db(float(np.abs(held).max())):.1f} dBFS"),
        ("offset", "level of a tone of 20 Hz in the player", f"{db(rms(heard) / rms(low)):+.1f} dB"),
        ("extend", "change of the preserved part", f"{kept_change:.0f} dBFS"),
        ("extend", "level of the extension of inverted channels", f"{added_level:+.1f} dB"),
    ]
    return [
        (name, measured, figure.replace("-0.0 ", "0.0 ").replace("+0.0 ", "0.0 ")) for name, measured, figure in table
    ]


def main() -> None:
    """Print the table."""
    print("defaults that change a sound")
    for name, measured, figure in rows():
        print(f"  {name:<16}{measured:<58}{figure}")


if __name__ == "__main__":
    main()
