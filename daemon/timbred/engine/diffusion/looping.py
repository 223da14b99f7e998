"""Circles of samples, brought to exactly the length of a loop, and cut where that is heard least."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.dsp.crossfade import catmull_rom, crossfade, normalize_correlation, sliding_sum
from timbred.engine.codecs.mel import Analysis, energy
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.state import Generation

INAUDIBLE = 0.0017
"""Part of its length by which a loop may be made slower or faster: 3 cents, which nobody hears."""

TURNED = 0.02
"""Seconds by which a loop that goes on may be turned, to be cut at a calm place."""

HEARD = 0.02
"""Seconds of one spectrum."""

CHOICES = 6
"""Lengths that a loop is made in at most, for the best of them to be cut."""

CUT = 0.02
"""Seconds of crossfade where something is cut out."""


def stretched(mel: torch.Tensor, frames: int) -> torch.Tensor:
    """A circle of mel frames, (takes, frames, bands), in another number of them: slower or faster, at the same pitch.
    Catmull-Rom curves through the frames."""
    count = mel.shape[1]
    if count == frames:
        return mel
    places = torch.arange(frames, device=mel.device, dtype=torch.float64) * (count / frames)
    before = places.floor().long()
    x = (places - before).to(mel.dtype)[None, :, None]
    one, two, three, four = (mel[:, (before + offset) % count] for offset in (-1, 0, 1, 2))
    return catmull_rom(one, two, three, four, x)


def frames_of_circle(frames: int, hop: int) -> list[int]:
    """In how many mel frames of `hop` samples a loop of `frames` samples may be made: one number if the nearest is near
    enough for `fitted`, else some that are longer, of which `shortened` cuts what is too much."""
    nearest = max(1, round(frames / hop))
    if abs(nearest * hop - frames) <= INAUDIBLE * frames:
        return [nearest]
    longer, slack = -(-frames // hop), 2 * INAUDIBLE * frames
    return list(range(longer, longer + min(CHOICES, math.ceil(hop / slack))))  # enough to meet a period of a low tone


def shortened(circle: NDArray[np.float32], frames: int, rate: int) -> tuple[NDArray[np.float32], float]:
    """A circle of samples, (count,), made shorter to about `frames` by leaving some out where what comes before them is
    most like what comes after, and crossfading it with that; and how alike they are, -1 to 1. What is still too much or
    too little is `INAUDIBLE`."""
    samples, count = circle.astype(np.float64), len(circle)
    slack = int(INAUDIBLE * frames)
    least, most = max(0, count - frames - slack), count - frames + slack
    fade = max(1, min(round(CUT * rate), (count - most) // 4))
    found = max(_likest(samples, left_out, fade) for left_out in range(least, most + 1))
    likeness, place, left_out = found
    leaves, enters = samples[place : place + fade], samples[place + left_out : place + left_out + fade]
    turn = (np.arange(fade) + 0.5) / fade * (np.pi / 2)
    blend = crossfade(leaves, enters, np.cos(turn), np.sin(turn), max(0.0, likeness))
    whole = np.concatenate([samples[:place], blend, samples[place + left_out + fade :]])
    return whole.astype(np.float32), likeness


def _likest(samples: NDArray[np.float64], left_out: int, fade: int) -> tuple[float, int, int]:
    """Where `fade` samples are most like those that come `left_out` later: the correlation, and the place."""
    last = len(samples) - left_out
    before, after = samples[:last], samples[left_out:]

    energies = sliding_sum(before**2, fade) * sliding_sum(after**2, fade)
    alike = normalize_correlation(sliding_sum(before * after, fade), energies)
    place = int(alike.argmax())
    return float(alike[place]), place, left_out


def calm(circle: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """A circle of samples, (frames,), turned by at most `TURNED` to begin where its spectrum changes least: any place
    is as good as any other, and at this one the file is cut."""
    size, reach = max(8, round(HEARD * rate)), round(TURNED * rate)
    fine, coarse = max(1, size // 16), 4
    places = np.arange(-reach - coarse * fine, reach + coarse * fine + 1, fine)
    windows = (places[:, None] + np.arange(size) - size // 2) % len(circle)
    spectra = np.abs(np.fft.rfft(circle[windows] * np.hanning(size), axis=1))
    rises = np.maximum(spectra[coarse:] - spectra[:-coarse], 0).sum(axis=1)  # up to each place; and from it on:
    around = np.maximum(rises[:-coarse], rises[coarse:])
    return np.roll(circle, -int(places[coarse : coarse + len(around)][around.argmin()]))


def fitted(loops: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """Circles of samples, (takes, frames), in exactly so many frames: higher or lower by what their length differs."""
    count = loops.shape[1]
    if count == frames:
        return loops
    spectrum = np.fft.rfft(loops.astype(np.float64), axis=1)
    bins = min(spectrum.shape[1], frames // 2 + 1)
    kept = spectrum[:, :bins]
    if min(count, frames) % 2 == 0:
        kept[:, -1] = 0  # at half the rate a sine and its mirror image are one
    return (np.fft.irfft(kept, frames, axis=1) * (frames / count)).astype(np.float32)


def loops_of(circles: list[NDArray[np.float32]], frames: int, rate: int) -> NDArray[np.float32]:
    """Loops in exactly so many frames, (takes, frames), from the same circles made in each of the lengths that
    `frames_of_circle` wants, (takes, count): of several, each take's that can be shortened with the least to hear."""
    if len(circles) == 1:
        loops = fitted(circles[0], frames)
    else:
        takes = zip(*circles, strict=True)
        loops = np.concatenate([_best_shortened(lengths, frames, rate) for lengths in takes])
    return np.stack([calm(loop, rate) for loop in loops])


def _best_shortened(circles: Sequence[NDArray[np.float32]], frames: int, rate: int) -> NDArray[np.float32]:
    """Of circles of several lengths the one that can be shortened with the least to hear of it: (1, frames)."""
    made, _ = max((shortened(circle, frames, rate) for circle in circles), key=lambda found: found[1])
    return fitted(made[None], frames)


LAID_OUT = 0.15
"""Part of the steps after which it shows whether a sound has a beginning of its own."""

EDGE = 0.15
"""Seconds at both ends that are compared."""

BEGINS = 10.0
"""A beginning of so many times the power of the end (10 dB) is one."""


def begins(mel: torch.Tensor, analysis: Analysis) -> bool:
    """Whether a sound, log mel of shape (frames, bands), begins far louder than it ends."""
    levels = energy(mel, analysis)
    edge = min(len(levels) // 2, max(2, round(EDGE * analysis.rate / analysis.hop)))
    return edge > 0 and float(levels[:edge].max()) > BEGINS * float(levels[-edge:].mean())


def shows(run: Generation) -> bool:
    """Whether it is time to see which takes of a run go around: of loops, once."""
    return run.order.loop and not run.laid_out and run.sampling.step >= LAID_OUT * run.order.steps


def lay_out(run: Generation, codec: MelVaeCodec) -> None:
    """See which takes of a loop have a beginning of their own. If others haven't, the steps begin anew, for those
    to go around from the first one on."""
    frames = round(run.order.seconds * codec.grid.rate / codec.grid.hop)
    expected = codec.spectrogram(run.sampling.clean())[:, :frames]
    run.circular = tuple(not begins(mel, codec.analysis) for mel in expected)
    run.laid_out = True
    if any(run.circular):
        run.before = run.sampling.step
        run.begin_steps(run.sampling.noise)


def looped(
    latents: torch.Tensor, circular: tuple[bool, ...], seconds: float, codec: MelVaeCodec
) -> NDArray[np.float32]:
    """Loops, (takes, frames): those that go around at their exact length, and on from their start; others with what
    follows."""
    frames = max(1, round(seconds * codec.grid.rate))
    going = [index for index, goes in enumerate(circular) if goes]
    staying = [index for index, goes in enumerate(circular) if not goes]
    waveforms = np.zeros((len(latents), latents.shape[2] * codec.grid.row), dtype=np.float32)
    if staying:
        made = codec.decode(latents[staying])[:, : waveforms.shape[1]]
        waveforms[staying, : made.shape[1]] = made
    if going:
        made = _around(latents[going], frames, codec)
        waveforms[going] = made[:, np.arange(waveforms.shape[1]) % frames]
    return waveforms


def _around(latents: torch.Tensor, frames: int, codec: MelVaeCodec) -> NDArray[np.float32]:
    """Latents that go around, decoded and vocoded so: (takes, frames)."""
    mel = codec.spectrogram(latents, torch.ones(len(latents), device=codec.device))
    circles = [
        codec.vocoded(codec.vocoding(stretched(mel, count), circular=True).whole).numpy()
        for count in frames_of_circle(frames, codec.grid.hop)
    ]
    return loops_of(circles, frames, codec.grid.rate)
