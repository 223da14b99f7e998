"""Loops: circular audio fitted to an exact length, and cut at the least audible point."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.dsp.crossfade import catmull_rom, crossfade, normalize_correlation, sliding_sum
from timbred.engine.codecs.mel import Analysis, frame_power
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.state import Generation

INAUDIBLE = 0.0017
"""Largest relative change of a loop's length by resampling: 3 cents, which is inaudible."""

TURNED = 0.02
"""Maximum rotation of a loop in seconds, to cut it where its spectrum changes little."""

HEARD = 0.02
"""Window length of a spectrum in seconds."""

MAX_RENDERED_LENGTHS = 6
"""Maximum number of lengths that a loop is rendered in, to choose the one that is cut least audibly."""

CUT_CROSSFADE_S = 0.02
"""Crossfade at a cut in seconds."""


def stretch_mel(mel: torch.Tensor, frames: int) -> torch.Tensor:
    """Resample a circle of mel frames, (takes, frames, bands), to another number of frames, at the same pitch.

    Catmull-Rom interpolation.
    """
    count = mel.shape[1]
    if count == frames:
        return mel
    places = torch.arange(frames, device=mel.device, dtype=torch.float64) * (count / frames)
    before = places.floor().long()
    x = (places - before).to(mel.dtype)[None, :, None]
    one, two, three, four = (mel[:, (before + offset) % count] for offset in (-1, 0, 1, 2))
    return catmull_rom(one, two, three, four, x)


def plan_circle_lengths(frames: int, hop: int) -> list[int]:
    """Return the numbers of mel frames in which to render a loop of `frames` samples.

    One number if the nearest multiple of `hop` is close enough for `resample_circle`, else several longer ones, which
    `shorten_circle` cuts to length.
    """
    nearest = max(1, round(frames / hop))
    if abs(nearest * hop - frames) <= INAUDIBLE * frames:
        return [nearest]
    longer, slack = -(-frames // hop), 2 * INAUDIBLE * frames
    return list(
        range(longer, longer + min(MAX_RENDERED_LENGTHS, math.ceil(hop / slack)))
    )  # long enough for a period of a low tone


def shorten_circle(circle: NDArray[np.float32], frames: int, rate: int) -> tuple[NDArray[np.float32], float]:
    """Shorten a circle of samples, (count,), to about `frames` by a crossfaded cut between two similar passages.

    The remaining difference in length is at most `INAUDIBLE`. Also returns the similarity at the cut, -1 to 1.
    """
    samples, count = circle.astype(np.float64), len(circle)
    slack = int(INAUDIBLE * frames)
    least, most = max(0, count - frames - slack), count - frames + slack
    fade = max(1, min(round(CUT_CROSSFADE_S * rate), (count - most) // 4))
    found = max(_best_cut(samples, left_out, fade) for left_out in range(least, most + 1))
    likeness, place, left_out = found
    leaves, enters = samples[place : place + fade], samples[place + left_out : place + left_out + fade]
    turn = (np.arange(fade) + 0.5) / fade * (np.pi / 2)
    blend = crossfade(leaves, enters, np.cos(turn), np.sin(turn), max(0.0, likeness))
    whole = np.concatenate([samples[:place], blend, samples[place + left_out + fade :]])
    return whole.astype(np.float32), likeness


def _best_cut(samples: NDArray[np.float64], left_out: int, fade: int) -> tuple[float, int, int]:
    """Return the highest correlation of `fade` samples with those `left_out` later, and its position."""
    last = len(samples) - left_out
    before, after = samples[:last], samples[left_out:]

    energies = sliding_sum(before**2, fade) * sliding_sum(after**2, fade)
    alike = normalize_correlation(sliding_sum(before * after, fade), energies)
    place = int(alike.argmax())
    return float(alike[place]), place, left_out


def rotate_to_calm(circle: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Rotate a circle of samples, (frames,), by at most `TURNED` to start where its spectrum changes least."""
    size, reach = max(8, round(HEARD * rate)), round(TURNED * rate)
    fine, coarse = max(1, size // 16), 4
    places = np.arange(-reach - coarse * fine, reach + coarse * fine + 1, fine)
    windows = (places[:, None] + np.arange(size) - size // 2) % len(circle)
    spectra = np.abs(np.fft.rfft(circle[windows] * np.hanning(size), axis=1))
    rises = np.maximum(spectra[coarse:] - spectra[:-coarse], 0).sum(axis=1)  # power up to each frame, then from it on
    around = np.maximum(rises[:-coarse], rises[coarse:])
    return np.roll(circle, -int(places[coarse : coarse + len(around)][around.argmin()]))


def resample_circle(loops: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """Resample circles of samples, (takes, frames), to an exact number of frames; their pitch changes slightly."""
    count = loops.shape[1]
    if count == frames:
        return loops
    spectrum = np.fft.rfft(loops.astype(np.float64), axis=1)
    bins = min(spectrum.shape[1], frames // 2 + 1)
    kept = spectrum[:, :bins]
    if min(count, frames) % 2 == 0:
        kept[:, -1] = 0  # at half the rate a sine and its mirror image are one
    return (np.fft.irfft(kept, frames, axis=1) * (frames / count)).astype(np.float32)


def fit_loops(circles: list[NDArray[np.float32]], frames: int, rate: int) -> NDArray[np.float32]:
    """Return loops of an exact number of frames, (takes, frames), from the same circles rendered in several lengths.

    For each take the length is used that `shorten_circle` cuts with the least audible difference.
    """
    if len(circles) == 1:
        loops = resample_circle(circles[0], frames)
    else:
        takes = zip(*circles, strict=True)
        loops = np.concatenate([_best_shortened(lengths, frames, rate) for lengths in takes])
    return np.stack([rotate_to_calm(loop, rate) for loop in loops])


def _best_shortened(circles: Sequence[NDArray[np.float32]], frames: int, rate: int) -> NDArray[np.float32]:
    """Return the circle, of several lengths, that can be shortened least audibly: (1, frames)."""
    made, _ = max((shorten_circle(circle, frames, rate) for circle in circles), key=lambda found: found[1])
    return resample_circle(made[None], frames)


LAID_OUT = 0.15
"""Fraction of the steps after which the loop kind is determined."""

COMPARED_EDGE_S = 0.15
"""Seconds at both ends that are compared."""

BEGINS = 10.0
"""Ratio of power between start and end (10 dB) from which a sound has an attack of its own."""


def has_attack(mel: torch.Tensor, analysis: Analysis) -> bool:
    """Tell if a log-mel spectrogram, (frames, bands), begins far louder than it ends."""
    levels = frame_power(mel, analysis)
    edge = min(len(levels) // 2, max(2, round(COMPARED_EDGE_S * analysis.rate / analysis.hop)))
    return edge > 0 and float(levels[:edge].max()) > BEGINS * float(levels[-edge:].mean())


def is_loop_kind_due(run: Generation) -> bool:
    """Tell if it is time to determine the loop kinds of a generation; true once for a loop."""
    return run.order.loop and not run.laid_out and run.sampling.step >= LAID_OUT * run.order.steps


def determine_loop_kinds(run: Generation, codec: MelVaeCodec) -> None:
    """Determine which takes of a loop have an attack of their own; the steps restart if any take is circular."""
    frames = round(run.order.seconds * codec.grid.rate / codec.grid.hop)
    expected = codec.spectrogram(run.sampling.predict_x0())[:, :frames]
    run.circular = tuple(not has_attack(mel, codec.analysis) for mel in expected)
    run.laid_out = True
    if any(run.circular):
        run.before = run.sampling.step
        run.begin_steps(run.sampling.noise)


def decode_loops(
    latents: torch.Tensor, circular: tuple[bool, ...], seconds: float, codec: MelVaeCodec
) -> NDArray[np.float32]:
    """Decode loops, (takes, frames): circular ones at their exact length, others with their tail."""
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
    """Decode circular latents, (takes, frames)."""
    mel = codec.spectrogram(latents, torch.ones(len(latents), device=codec.device))
    circles = [
        codec.vocoded(codec.vocoding(stretch_mel(mel, count), circular=True).whole).numpy()
        for count in plan_circle_lengths(frames, codec.grid.hop)
    ]
    return fit_loops(circles, frames, codec.grid.rate)
