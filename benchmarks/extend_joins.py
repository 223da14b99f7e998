"""Joins of continued sounds: some of the embedded model, continued from 2.5 s to 12.5, and what is heard at the joins.

There are two kinds: where the given sound ends, and where one window follows another. At each, and at places of the
same sounds that are far from any, every 50 ms:

- dip: by how many decibels the level within 0.4 s goes below what it is 0.4 to 1 s before and after.
- step: between the mean levels of 0.2 to 1 s before and after, in decibels.
- colour: between the mean spectral centroids of 0.3 s before and after, in octaves.
- change: between the spectra 40 ms before and after, in thirds of octaves, the mean difference in decibels.

Each is given as mean at the joins / mean at the other places, and then the chance that a join stands out more than
another place: 0.5 is what a join has that nobody can tell from any other place, 1 what always tells it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks import pocket
from benchmarks.machine import machine
from timbred.audio import Clip, SampleRate
from timbred.dsp.splice import EditedPart, OriginalAudio, splice
from timbred.engine.diffusion.outpainting import plan_windows
from timbred.engine.families.base import LatentDiffusion
from timbred.ipc.engine_messages import InitAudio

PROMPTS = ("warm pad", "drone low dark", "organ a3", "brass c3 long", "rain", "wind")

INIT_S, TOTAL_S, WINDOW_S = 2.5, 12.5, pocket.POCKET_CARD.max_seconds
"""Seconds that are given, that there are in the end, and of a window."""

INIT_COUNT, TAKE_COUNT = 2, 2
"""Sounds that are continued, for each prompt; and how often each."""

ENDING_S = 0.8
"""Seconds before the whole's end that don't count: there it may die away."""

FIGURE_NAMES = ("dip", "step", "colour", "change")

WINDOW_SAMPLES, HOP_SAMPLES = 0.08, 0.02
"""Seconds of a spectrum, and between two of them."""

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Continued:
    """A sound, (frames,), and the seconds at which it has joins, the first of them where the given sound ends."""

    samples: NDArray[np.float32]
    rate: int
    joins: list[float]


def continued(
    model: LatentDiffusion, prompt: str, given: NDArray[np.float32], seeds: tuple[int, ...]
) -> list[Continued]:
    """A sound, (frames,) at the model's rate, continued once for each seed, as it is heard."""
    rate, row = model.latent_layout.rate, model.latent_layout.samples_per_row
    sound = InitAudio(samples=given.astype("<f4").tobytes(), strength=1.0)
    order = replace(pocket.order(prompt, TOTAL_S, 0), seeds=seeds, given=sound, window=WINDOW_S)
    sounds = model.render(order, lambda _: None, lambda: False)
    plan = plan_windows(len(given) // row, -(-(round(TOTAL_S * rate) - len(given)) // row), int(WINDOW_S * rate) // row)
    joins = [(len(given) + row * sum(window.new for window in plan[:count])) / rate for count in range(len(plan))]
    part = OriginalAudio(_clip(given, rate), EditedPart(len(given) / rate, TOTAL_S))
    wholes = [splice(_clip(made, rate), part, SampleRate(rate), sounds.first_frame) for made in sounds.mono]
    return [Continued(whole.samples[:, 0], rate, joins) for whole in wholes]


def _clip(samples: NDArray[np.float32], rate: int) -> Clip:
    return Clip(np.ascontiguousarray(samples[:, None], dtype=np.float32), SampleRate(rate))


class Heard:
    """What is heard of a sound from moment to moment."""

    def __init__(self, sound: Continued) -> None:
        size, hop = round(WINDOW_SAMPLES * sound.rate), round(HOP_SAMPLES * sound.rate)
        starts = np.arange(0, len(sound.samples) - size, hop)
        pieces = sound.samples[starts[:, None] + np.arange(size)] * np.hanning(size)
        powers = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
        edges = 50.0 * 2.0 ** (np.arange(26) / 3)
        first = np.searchsorted(np.fft.rfftfreq(size, 1 / sound.rate), edges)
        bands = np.stack([powers[:, a : max(a + 1, b)].sum(axis=1) for a, b in pairwise(first)], axis=1)
        whole = bands.sum(axis=1) + 1e-12
        self.levels = 10 * np.log10(whole)
        self.bands = 10 * np.log10(bands + 1e-7 * whole[:, None] + 1e-12)
        self.centroids = (bands * np.log2(edges[:-1])).sum(axis=1) / whole
        self.count = len(starts)

    def at(self, moments: Iterable[float]) -> Curve:
        """The figures at these moments, (moments, figures), without those that have no second on both sides."""
        second, near, beside, off = (round(part / HOP_SAMPLES) for part in (1.0, 0.4, 0.3, 0.2))
        places = [round((moment - WINDOW_SAMPLES / 2) / HOP_SAMPLES) for moment in moments]
        found: list[tuple[float, ...]] = []
        for place in (place for place in places if second <= place <= self.count - second):
            levels, centroids = self.levels, self.centroids
            around = np.r_[levels[place - second : place - near], levels[place + near : place + second]]
            dip = around.mean() - levels[place - near : place + near].min()
            step = abs(levels[place + off : place + second].mean() - levels[place - second : place - off].mean())
            colour = abs(centroids[place : place + beside].mean() - centroids[place - beside : place].mean())
            change = np.abs(self.bands[place + 2] - self.bands[place - 2]).mean()
            found.append((float(dip), float(step), float(colour), float(change)))
        return np.array(found).reshape(-1, len(FIGURE_NAMES))


def figures_of(sounds: list[Continued]) -> tuple[Curve, Curve, Curve]:
    """The figures where the given sound ends, where windows meet, and elsewhere in what was made."""
    ends, meetings, elsewhere = list[Curve](), list[Curve](), list[Curve]()
    for sound in sounds:
        heard, last = Heard(sound), len(sound.samples) / sound.rate - ENDING_S - 1.0
        places = np.arange(sound.joins[0] + 0.9, last, 0.05)
        ends.append(heard.at(sound.joins[:1]))
        meetings.append(heard.at(join for join in sound.joins[1:] if join < last))
        elsewhere.append(heard.at(place for place in places if min(abs(place - join) for join in sound.joins) > 0.6))
    return np.concatenate(ends), np.concatenate(meetings), np.concatenate(elsewhere)


def standing_out(joins: Curve, elsewhere: Curve) -> float:
    """Return the probability that the figure of a join exceeds that of another position, 0 to 1."""
    return float((joins[:, None] > elsewhere).mean() + 0.5 * (joins[:, None] == elsewhere).mean())


def main() -> None:
    """Print the table."""
    model = pocket.resident()
    rate = model.latent_layout.rate
    print(f"joins of sounds that are continued from {INIT_S:g} to {TOTAL_S:g} s, pocket; {machine()}")
    print(f"  {'prompt':<16}{'join':<8}" + "".join(f"{name:>18}" for name in FIGURE_NAMES))
    chances: dict[str, list[list[float]]] = {"given": [], "windows": []}
    for prompt in PROMPTS:
        sounds = list[Continued]()
        for seed in range(INIT_COUNT):
            first = model.render(pocket.order(prompt, WINDOW_S, seed), lambda _: None, lambda: False).mono[0]
            given = first[: round(INIT_S * rate)]
            given = 0.5 * given / max(float(np.abs(given).max()), 1e-9)
            seeds = tuple(100 * take + seed for take in range(1, TAKE_COUNT + 1))
            sounds += continued(model, prompt, given, seeds)
        ends, meetings, elsewhere = figures_of(sounds)
        for name, joins in (("given", ends), ("windows", meetings)):
            row = [standing_out(joins[:, index], elsewhere[:, index]) for index in range(len(FIGURE_NAMES))]
            chances[name].append(row)
            pairs = zip(joins.mean(axis=0), elsewhere.mean(axis=0), row, strict=True)
            cells = "".join(f"{at:>6.2f} /{away:>5.2f}{chance:>5.2f}" for at, away, chance in pairs)
            print(f"  {prompt:<16}{name:<8}{cells}", flush=True)
    for name, rows in chances.items():
        means = "".join(f"{mean:>18.2f}" for mean in np.mean(rows, axis=0))
        print(f"  {'all':<16}{name:<8}{means}")


if __name__ == "__main__":
    main()
