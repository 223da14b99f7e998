"""Joins of extended sounds of one model, the embedded one or a tiny one (`--model`), from 2.5 s on.

The embedded model's are extended to its longest sound, the others' to 12.5 s. There are two kinds: the end of the init
audio, and the boundaries of windows. Measured at each, and every 50 ms at positions of the same sounds that are far
from any join:

- dip: how far the level within 0.4 s falls below that of 0.4 to 1 s before and after, in decibels.
- step: difference between the mean levels of 0.2 to 1 s before and after, in decibels.
- colour: difference between the mean spectral centroids of 0.3 s before and after, in octaves.
- change: mean difference between the third-octave spectra 40 ms before and after, in decibels.

Each is printed as mean at the joins / mean elsewhere, and the probability that the figure of a join exceeds that of
another position: 0.5 for inaudible joins, 1 for joins that always stand out. Of
stereo sounds the left channel is measured.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks.loaded import MODEL_NAMES, POCKET, LoadedModel, loaded_model
from benchmarks.machine import machine
from timbred.audio import Clip, SampleRate
from timbred.dsp.splice import EditedPart, OriginalAudio, splice
from timbred.engine.diffusion.init_audio import plan_windows
from timbred.ipc.engine_messages import InitAudio

PROMPTS = ("warm pad", "drone low dark", "organ a3", "brass c3 long", "rain", "wind")

INIT_S, TOTAL_S, WINDOW_S = 2.5, 12.5, 5.0
"""Seconds of init audio, of the whole sound, and of a window: at most the longest sound of each model."""

INIT_COUNT, TAKE_COUNT = 2, 2
"""Sounds that are extended for each prompt, and extensions of each."""

TOO_SHORT = "stable-audio-tiny"
"""A model whose longest sound is shorter than the figures' reach."""

ENDING_S = 0.8
"""Seconds before the end of the sound that are not measured, because it may decay there."""

FIGURE_NAMES = ("dip", "step", "colour", "change")

SPECTRUM_S, HOP_S = 0.08, 0.02
"""Seconds of one spectrum, and between two spectra."""

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class ContinuedSound:
    """A sound, (frames,), and the times of its joins in seconds; the first is the end of the init audio."""

    samples: NDArray[np.float32]
    rate: int
    joins: list[float]


def extension_of(loaded: LoadedModel) -> tuple[float, float]:
    """Return the seconds of the whole sound and of a window; the embedded model extends within its longest sound."""
    if loaded.name == POCKET:
        return loaded.max_seconds, loaded.max_seconds
    return TOTAL_S, WINDOW_S


def continue_sound(
    loaded: LoadedModel, prompt: str, init: NDArray[np.float32], seeds: tuple[int, ...]
) -> list[ContinuedSound]:
    """Return init audio, (frames, channels) at the model's rate, extended once for each seed."""
    model = loaded.model
    rate, row_samples = model.latent_layout.rate, model.latent_layout.samples_per_row
    sound = InitAudio(samples=init.astype("<f4").tobytes(), channels=init.shape[1], strength=1.0)
    total_s, window_s = extension_of(loaded)
    order = replace(loaded.order(prompt, total_s, 0), seeds=seeds, init_audio=sound, window=window_s)
    sounds = model.render(order, lambda _: None, lambda: False)
    added_rows = -(-(round(total_s * rate) - len(init)) // row_samples)
    plan = plan_windows(len(init) // row_samples, added_rows, int(window_s * rate) // row_samples)
    new_rows = [
        sum(window.new for window in plan[:count]) for count in range(len(plan) if loaded.name != POCKET else 1)
    ]
    joins = [(len(init) + row_samples * rows) / rate for rows in new_rows]
    part = OriginalAudio(_clip(init, rate), EditedPart(len(init) / rate, total_s))
    wholes = [
        splice(_clip(rendered, rate), part, SampleRate(rate), sounds.first_frame) for rendered in sounds.waveforms
    ]
    return [ContinuedSound(whole.samples[:, 0], rate, joins) for whole in wholes]


def _clip(samples: NDArray[np.float32], rate: int) -> Clip:
    return Clip(np.ascontiguousarray(samples, dtype=np.float32), SampleRate(rate))


class SoundFigures:
    """Levels, third-octave spectra and centroids of a sound over time."""

    def __init__(self, sound: ContinuedSound) -> None:
        size, hop = round(SPECTRUM_S * sound.rate), round(HOP_S * sound.rate)
        starts = np.arange(0, len(sound.samples) - size, hop)
        pieces = sound.samples[starts[:, None] + np.arange(size)] * np.hanning(size)
        powers = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
        edges = 50.0 * 2.0 ** (np.arange(26) / 3)
        band_starts = np.searchsorted(np.fft.rfftfreq(size, 1 / sound.rate), edges)
        bands = np.stack([powers[:, a : max(a + 1, b)].sum(axis=1) for a, b in pairwise(band_starts)], axis=1)
        total_power = bands.sum(axis=1) + 1e-12
        self.levels = 10 * np.log10(total_power)
        self.bands = 10 * np.log10(bands + 1e-7 * total_power[:, None] + 1e-12)
        self.centroids = (bands * np.log2(edges[:-1])).sum(axis=1) / total_power
        self.count = len(starts)

    def at(self, moments: Iterable[float]) -> Curve:
        """Return the figures at these moments, (moments, figures), without those less than a second from an end."""
        one_second, dip_reach, colour_reach, step_gap = (round(part / HOP_S) for part in (1.0, 0.4, 0.3, 0.2))
        hops = [round((moment - SPECTRUM_S / 2) / HOP_S) for moment in moments]
        rows: list[tuple[float, ...]] = []
        for hop in (hop for hop in hops if one_second <= hop <= self.count - one_second):
            levels, centroids = self.levels, self.centroids
            start, end = hop - one_second, hop + one_second
            surroundings = np.r_[levels[start : hop - dip_reach], levels[hop + dip_reach : end]]
            dip = surroundings.mean() - levels[hop - dip_reach : hop + dip_reach].min()
            step = abs(levels[hop + step_gap : end].mean() - levels[start : hop - step_gap].mean())
            colour = abs(centroids[hop : hop + colour_reach].mean() - centroids[hop - colour_reach : hop].mean())
            change = np.abs(self.bands[hop + 2] - self.bands[hop - 2]).mean()
            rows.append((float(dip), float(step), float(colour), float(change)))
        return np.array(rows).reshape(-1, len(FIGURE_NAMES))


def figures_of(sounds: list[ContinuedSound]) -> tuple[Curve, Curve, Curve]:
    """Return the figures at the ends of the init audio, at boundaries of windows, and elsewhere."""
    ends, meetings, elsewhere = list[Curve](), list[Curve](), list[Curve]()
    for sound in sounds:
        figures, last = SoundFigures(sound), len(sound.samples) / sound.rate - ENDING_S - 1.0
        moments = np.arange(sound.joins[0] + 0.9, last, 0.05)
        ends.append(figures.at(sound.joins[:1]))
        meetings.append(figures.at(join for join in sound.joins[1:] if join < last))
        elsewhere.append(figures.at(each for each in moments if min(abs(each - join) for join in sound.joins) > 0.6))
    return np.concatenate(ends), np.concatenate(meetings), np.concatenate(elsewhere)


def exceedance(joins: Curve, elsewhere: Curve) -> float:
    """Return the probability that the figure of a join exceeds that of another position, 0 to 1."""
    return float((joins[:, None] > elsewhere).mean() + 0.5 * (joins[:, None] == elsewhere).mean())


def main() -> None:
    """Print the table of a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[name for name in MODEL_NAMES if name != TOO_SHORT], default=POCKET)
    with loaded_model(parser.parse_args().model) as loaded:
        print_joins(loaded)


def print_joins(loaded: LoadedModel) -> None:
    """Render and extend the sounds, and print the figures of their joins."""
    rate = loaded.model.latent_layout.rate
    print(f"joins of sounds extended from {INIT_S:g} to {extension_of(loaded)[0]:g} s, {loaded.name}; {machine()}")
    print(f"  {'prompt':<16}{'join':<8}" + "".join(f"{name:>18}" for name in FIGURE_NAMES))
    chances: dict[str, list[list[float]]] = {"init": [], "windows": []}
    for prompt in PROMPTS:
        sounds = list[ContinuedSound]()
        for seed in range(INIT_COUNT):
            order = loaded.order(prompt, WINDOW_S, seed)
            rendered = loaded.model.render(order, lambda _: None, lambda: False).waveforms[0]
            init = rendered[: round(INIT_S * rate)]
            init = 0.5 * init / max(float(np.abs(init).max()), 1e-9)
            seeds = tuple(100 * take + seed for take in range(1, TAKE_COUNT + 1))
            sounds += continue_sound(loaded, prompt, init, seeds)
        ends, meetings, elsewhere = figures_of(sounds)
        for name, joins in (("init", ends), ("windows", meetings)):
            if not len(joins):
                continue
            row = [exceedance(joins[:, index], elsewhere[:, index]) for index in range(len(FIGURE_NAMES))]
            chances[name].append(row)
            pairs = zip(joins.mean(axis=0), elsewhere.mean(axis=0), row, strict=True)
            cells = "".join(f"{at:>6.2f} /{away:>5.2f}{chance:>5.2f}" for at, away, chance in pairs)
            print(f"  {prompt:<16}{name:<8}{cells}", flush=True)
    for name, rows in ((name, rows) for name, rows in chances.items() if rows):
        means = "".join(f"{mean:>18.2f}" for mean in np.mean(rows, axis=0))
        print(f"  {'all':<16}{name:<8}{means}")


if __name__ == "__main__":
    main()
