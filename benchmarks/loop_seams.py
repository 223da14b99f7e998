"""Seams of loops: 20 loops of one model, the embedded one or a tiny one (`--model`), each as its file at 48 kHz.

Figures of each, from the frames of the file:

- step: the difference between the last frame and the first / the 99th percentile of the steps inside. At most 1.
- flux: the largest rise of the spectrum (windows of 1024 frames, 256 apart, circular) among the windows that contain
  the seam / the median of the same figure at all positions inside. At most 1.5. A loop that begins with an attack (a
  kick, on the beat) has that attack at its seam: there it is this rise / that of the same attack after silence, at most
  1.1.
- plain: the rise up to the window whose middle is the seam / the median of all windows. With an attack it measures the
  attack rather than the seam.
- rank: the fraction of positions inside whose rise is smaller than that at the seam. Its mean over many loops is 0.5 if
  no seam can be heard, 1 if each can.
- frames: those of the file / the requested ones. Exactly 1.

A loop in stereo has the figures of its worse channel. Lengths beyond the model's longest are halved until they fit.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.loaded import MODEL_NAMES, POCKET, LoadedModel, loaded_model
from benchmarks.machine import machine
from timbred.audio import Clip, SampleRate, Seconds, bars_to_seconds, frames_in
from timbred.dsp.pipeline import run_pipeline
from timbred.engine.diffusion.looping import ATTACK_POWER_RATIO, COMPARED_EDGE_S
from timbred.render_settings import RenderSettings

MAX_STEP_RATIO, MAX_FLUX_RATIO, MAX_ATTACK_RATIO = 1.0, 1.5, 1.1
"""Largest allowed ratios."""

WINDOW_FRAMES, HOP_FRAMES = 1024, 256
"""Frames of one spectrum, and between two spectra."""

RATE_HZ = SampleRate(48_000)

LOOPS: tuple[tuple[str, float], ...] = (
    ("warm pad", 2.0),
    ("kick", bars_to_seconds(1, 120, 4)),
    ("snare reverberant", bars_to_seconds(0.5, 100, 4)),
    ("closed hi-hat short", bars_to_seconds(0.125, 128, 4)),
    ("rain", 3.0),
    ("wind dark", 4.7),
    ("bass c2", bars_to_seconds(1, 174, 4)),
    ("organ a3", bars_to_seconds(2, 140, 4)),
    ("drone low dark", 5.0),
    ("bright bell", 1.0),
    ("riser", bars_to_seconds(2, 128, 4)),
    ("siren", 2.5),
    ("crackle", 0.7),
    ("lead e4 detuned", bars_to_seconds(1, 96, 3)),
    ("brass c3", 1.234567),
    ("cymbal", 2.0),
    ("noise airy", 0.5),
    ("pluck g3", bars_to_seconds(0.25, 90, 4)),
    ("shaker", bars_to_seconds(1, 133.7, 4)),
    ("pad bright slow attack", 3.3),
)
"""Prompts and lengths in seconds, many of which are bars at a tempo."""


@dataclass(frozen=True)
class Seam:
    """Measured ratios at a loop's seam, as defined in the module's docstring."""

    step: float
    flux: float
    plain: float
    rank: float
    has_attack: bool

    @property
    def is_good(self) -> bool:
        """True if step and flux at the seam are within the limits."""
        return self.step <= MAX_STEP_RATIO and self.flux <= (MAX_ATTACK_RATIO if self.has_attack else MAX_FLUX_RATIO)


def measure_seam(samples: NDArray[np.float32], has_attack: bool) -> Seam:
    """Measure the seam of a loop of shape (frames,)."""
    steps = np.abs(np.diff(samples))
    usual_step = max(float(np.percentile(steps, 99)), 1e-9)
    step = abs(float(samples[0] - samples[-1])) / usual_step
    rises = measure_rises(samples)
    plain = float(rises[-1] / max(float(np.median(rises)), 1e-9))  # from the last window to the one on the seam
    nearby_rises = measure_nearby_rises(samples)
    rank = float(np.mean(nearby_rises[0] > nearby_rises[1:]))
    if has_attack:
        after_silence = np.concatenate(
            [samples[: len(samples) // 2], np.zeros(len(samples) // 2 + WINDOW_FRAMES, dtype=np.float32)]
        )
        return Seam(step, nearby_rises[0] / max(measure_nearby_rises(after_silence)[0], 1e-9), plain, rank, has_attack)
    return Seam(step, float(nearby_rises[0] / max(float(np.median(nearby_rises)), 1e-9)), plain, rank, has_attack)


def begins_with_attack(samples: NDArray[np.float32]) -> bool:
    """Tell if a loop, (frames, channels), begins far louder than it ends: its seam is an attack."""
    edge = max(1, min(len(samples) // 2, round(COMPARED_EDGE_S * RATE_HZ)) // WINDOW_FRAMES)
    powers = [float(np.mean(part**2)) for part in np.array_split(samples, len(samples) // WINDOW_FRAMES)]
    return max(powers[:edge]) > ATTACK_POWER_RATIO * float(np.mean(powers[-edge:]))


def measure_rises(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the rise of the spectrum from each window to the next around the circle; the first is at the seam."""
    count = max(4, len(samples) // HOP_FRAMES)
    middles = np.arange(count) * (len(samples) / count)
    spectra = np.array([_spectrum(samples, round(middle)) for middle in middles])
    return np.maximum(np.roll(spectra, -1, axis=0) - spectra, 0).sum(axis=1)


def measure_nearby_rises(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the largest rise between two windows around each position, every `HOP_FRAMES` frames, from the seam on."""
    rises = measure_rises(samples)
    reach = WINDOW_FRAMES // HOP_FRAMES // 2
    return np.max([np.roll(rises, offset) for offset in range(-reach + 1, reach + 1)], axis=0)


def _spectrum(samples: NDArray[np.float32], middle: int) -> NDArray[np.float64]:
    frames = np.arange(middle - WINDOW_FRAMES // 2, middle + WINDOW_FRAMES // 2) % len(samples)
    return np.abs(np.fft.rfft(samples[frames] * np.hanning(WINDOW_FRAMES)))


def render_loop(loaded: LoadedModel, prompt: str, seconds: float, seed: int) -> tuple[NDArray[np.float32], bool]:
    """Return a loop's samples from its file, (frames, channels), and True if it was rendered as a circle."""
    sounds = loaded.model.render(loaded.order(prompt, seconds, seed, loop=True), lambda _: None, lambda: False)
    waveform, is_circular = sounds.waveforms[0], sounds.looped[0]
    rendered = waveform[: frames_in(seconds, sounds.rate)] if is_circular else waveform
    clip = Clip(np.ascontiguousarray(rendered), SampleRate(sounds.rate), loop=is_circular)
    settings = RenderSettings(seconds=Seconds(seconds), rate=RATE_HZ, loop=True, bits=32)
    return run_pipeline(clip, settings).samples, is_circular


def main() -> None:
    """Print the table of a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODEL_NAMES, default=POCKET)
    with loaded_model(parser.parse_args().model) as loaded:
        print_seams(loaded)


def print_seams(loaded: LoadedModel) -> None:
    """Render the loops and print their figures."""
    print(f"seams of {len(LOOPS)} loops, {loaded.name}, files at {RATE_HZ} Hz; {machine()}")
    print(f"  {'prompt':<24}{'seconds':>8}{'kind':>9}{'step':>7}{'flux':>8}{'plain':>8}{'rank':>7}{'frames':>9}")
    good_count, plain_results, ranks = 0, list[tuple[bool, bool]](), list[float]()
    for seed, (prompt, length) in enumerate(LOOPS):
        seconds = length
        while seconds > loaded.max_seconds:
            seconds /= 2
        samples, is_circular = render_loop(loaded, prompt, seconds, seed)
        with_attack = not is_circular or begins_with_attack(samples)
        seams = [measure_seam(channel, with_attack) for channel in samples.T]
        seam = max(seams, key=lambda seam: (not seam.is_good, seam.flux))
        exact = len(samples) / frames_in(seconds, RATE_HZ)
        within = seam.is_good and exact == 1
        good_count += within
        if not seam.has_attack:
            ranks += [seam.rank for seam in seams]
        plain_results.append((seam.has_attack, seam.plain <= MAX_FLUX_RATIO))
        kind = "attack" if seam.has_attack else "steady"
        mark = "" if within else "  over"
        figures = f"{seam.step:>7.2f}{seam.flux:>8.2f}{seam.plain:>8.2f}{seam.rank:>7.2f}{exact:>9g}"
        print(f"  {prompt:<24}{seconds:>8.3f}{kind:>9}{figures}{mark}", flush=True)
    print(
        f"  {good_count} of {len(LOOPS)} within: step {MAX_STEP_RATIO:g}, flux {MAX_FLUX_RATIO:g} "
        f"or, with an attack, {MAX_ATTACK_RATIO:g}; frames 1"
    )
    if ranks:
        print(f"  mean rank of the steady loops: {np.mean(ranks):.2f}")
    sustained = [within for has_attack, within in plain_results if not has_attack]
    attacked = [within for has_attack, within in plain_results if has_attack]
    print(f"  plain flux at most {MAX_FLUX_RATIO:g}: {sum(sustained)} of the {len(sustained)} steady loops,", end=" ")
    print(f"{sum(attacked)} of the {len(attacked)} loops with an attack")


if __name__ == "__main__":
    main()
