"""Loops: circular audio fitted to an exact length, and cut at the least audible point."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.dsp.fades import catmull_rom, crossfade, normalize_correlation, sliding_sum
from timbred.engine.codecs.mel import Analysis, frame_power
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.generation import Generation

MAX_RESAMPLED_FRACTION = 0.0017
"""Largest relative change of a loop's length by resampling: 3 cents, which is inaudible."""

MAX_ROTATION_S = 0.02
"""Maximum rotation of a loop in seconds, to cut it where its spectrum changes little."""

SPECTRUM_WINDOW_S = 0.02
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
    positions = torch.arange(frames, device=mel.device, dtype=torch.float64) * (count / frames)
    lower = positions.floor().long()
    fraction = (positions - lower).to(mel.dtype)[None, :, None]
    frame_0, frame_1, frame_2, frame_3 = (mel[:, (lower + offset) % count] for offset in (-1, 0, 1, 2))
    return catmull_rom(frame_0, frame_1, frame_2, frame_3, fraction)


def plan_circle_lengths(frames: int, hop: int) -> list[int]:
    """Return the numbers of mel frames in which to render a loop of `frames` samples.

    One number if the nearest multiple of `hop` is close enough for `resample_circle`, else several longer ones, which
    `shorten_circle` cuts to length.
    """
    nearest = max(1, round(frames / hop))
    if abs(nearest * hop - frames) <= MAX_RESAMPLED_FRACTION * frames:
        return [nearest]
    shortest, slack = -(-frames // hop), 2 * MAX_RESAMPLED_FRACTION * frames
    return list(
        range(shortest, shortest + min(MAX_RENDERED_LENGTHS, math.ceil(hop / slack)))
    )  # long enough for a period of a low tone


def shorten_circle(circle: NDArray[np.float32], frames: int, rate: int) -> tuple[NDArray[np.float32], float]:
    """Shorten a circle of samples, (count,), to about `frames` by a crossfaded cut between two similar passages.

    The remaining difference in length is at most `MAX_RESAMPLED_FRACTION`.

    Returns:
        The shortened circle, and the similarity at the cut, -1 to 1.
    """
    samples, count = circle.astype(np.float64), len(circle)
    slack = int(MAX_RESAMPLED_FRACTION * frames)
    min_removed, max_removed = max(0, count - frames - slack), count - frames + slack
    fade = max(1, min(round(CUT_CROSSFADE_S * rate), (count - max_removed) // 4))
    best_cut = max(_best_cut(samples, removed_count, fade) for removed_count in range(min_removed, max_removed + 1))
    similarity, cut, removed = best_cut
    return _remove_passage(samples, cut, removed, fade, similarity), similarity


def _remove_passage(
    samples: NDArray[np.float64], cut: int, removed: int, fade: int, similarity: float
) -> NDArray[np.float32]:
    """Remove `removed` samples at a cut, with a crossfade of two passages that are so similar."""
    fading_out, fading_in = samples[cut : cut + fade], samples[cut + removed : cut + removed + fade]
    angle = (np.arange(fade) + 0.5) / fade * (np.pi / 2)
    blend = crossfade(fading_out, fading_in, np.cos(angle), np.sin(angle), max(0.0, similarity))
    return np.concatenate([samples[:cut], blend, samples[cut + removed + fade :]]).astype(np.float32)


def fit_channels(circle: NDArray[np.float32], frames: int, rate: int) -> NDArray[np.float32]:
    """Shorten a circle of samples, (count, channels), to an exact number of frames, at one place for all channels.

    A small difference is resampled. A larger one is cut out between the two passages that are most similar.
    """
    removed = len(circle) - frames
    if removed > MAX_RESAMPLED_FRACTION * frames:
        fade = max(1, min(round(CUT_CROSSFADE_S * rate), frames // 4))
        similarity, cut, _ = _best_cut(circle.mean(axis=1, dtype=np.float64), removed, fade)
        channels = [_remove_passage(channel, cut, removed, fade, similarity) for channel in circle.T.astype(np.float64)]
        circle = np.stack(channels, axis=1)
    return np.ascontiguousarray(resample_circle(circle.T, frames).T)


def _best_cut(samples: NDArray[np.float64], removed: int, fade: int) -> tuple[float, int, int]:
    """Return the highest correlation of `fade` samples with those `removed` later, and its position."""
    last = len(samples) - removed
    earlier, later = samples[:last], samples[removed:]

    energies = sliding_sum(earlier**2, fade) * sliding_sum(later**2, fade)
    correlations = normalize_correlation(sliding_sum(earlier * later, fade), energies)
    cut = int(correlations.argmax())
    return float(correlations[cut]), cut, removed


def rotate_to_calm(circle: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Rotate a circle of samples, (frames,), by at most `MAX_ROTATION_S` to start where its spectrum changes least."""
    size, max_shift = max(8, round(SPECTRUM_WINDOW_S * rate)), round(MAX_ROTATION_S * rate)
    step, compared_steps = max(1, size // 16), 4
    positions = np.arange(-max_shift - compared_steps * step, max_shift + compared_steps * step + 1, step)
    windows = (positions[:, None] + np.arange(size) - size // 2) % len(circle)
    spectra = np.abs(np.fft.rfft(circle[windows] * np.hanning(size), axis=1))
    rises = np.maximum(spectra[compared_steps:] - spectra[:-compared_steps], 0).sum(
        axis=1
    )  # power up to each frame, then from it on
    changes = np.maximum(rises[:-compared_steps], rises[compared_steps:])
    return np.roll(circle, -int(positions[compared_steps : compared_steps + len(changes)][changes.argmin()]))


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
    shortened, _ = max((shorten_circle(circle, frames, rate) for circle in circles), key=lambda result: result[1])
    return resample_circle(shortened[None], frames)


LOOP_KIND_STEP_FRACTION = 0.15
"""Fraction of the steps after which the loop kind is determined."""

COMPARED_EDGE_S = 0.15
"""Seconds at both ends that are compared."""

ATTACK_POWER_RATIO = 10.0
"""Ratio of power between start and end (10 dB) from which a sound has an attack of its own."""


def has_attack(mel: torch.Tensor, analysis: Analysis) -> bool:
    """Tell if a log-mel spectrogram, (frames, bands), begins far louder than it ends."""
    levels = frame_power(mel)
    edge = min(len(levels) // 2, max(2, round(COMPARED_EDGE_S * analysis.rate / analysis.hop)))
    return edge > 0 and float(levels[:edge].max()) > ATTACK_POWER_RATIO * float(levels[-edge:].mean())


def is_loop_kind_due(generation: Generation) -> bool:
    """Tell if it is time to determine the loop kinds of a generation; true once for a loop."""
    return (
        generation.order.loop
        and not generation.loop_kinds_known
        and generation.sampler.step >= LOOP_KIND_STEP_FRACTION * generation.order.steps
    )


def determine_loop_kinds(generation: Generation, codec: MelVaeCodec) -> None:
    """Determine which takes of a loop have an attack of their own; the steps restart if any take is circular."""
    frames = round(generation.order.seconds * codec.latent_layout.rate / codec.latent_layout.hop)
    expected = codec.decode_mel(generation.sampler.predict_x0())[:, :frames]
    generation.circular = tuple(not has_attack(mel, codec.analysis) for mel in expected)
    generation.loop_kinds_known = True
    if any(generation.circular):
        generation.earlier_steps = generation.sampler.step
        generation.restart_sampler(generation.sampler.noise)


def decode_loops(
    latents: torch.Tensor, circular: tuple[bool, ...], seconds: float, codec: MelVaeCodec
) -> NDArray[np.float32]:
    """Decode loops, (takes, frames): circular ones at their exact length, others with their tail."""
    frames = max(1, round(seconds * codec.latent_layout.rate))
    circular_takes = [index for index, is_circular in enumerate(circular) if is_circular]
    open_takes = [index for index, is_circular in enumerate(circular) if not is_circular]
    waveforms = np.zeros((len(latents), latents.shape[2] * codec.latent_layout.samples_per_row), dtype=np.float32)
    if open_takes:
        decoded = codec.decode(latents[open_takes])[:, : waveforms.shape[1]]
        waveforms[open_takes, : decoded.shape[1]] = decoded
    if circular_takes:
        decoded = _decode_circles(latents[circular_takes], frames, codec)
        waveforms[circular_takes] = decoded[:, np.arange(waveforms.shape[1]) % frames]
    return waveforms


def _decode_circles(latents: torch.Tensor, frames: int, codec: MelVaeCodec) -> NDArray[np.float32]:
    """Decode circular latents, (takes, frames)."""
    mel = codec.decode_mel(latents, torch.ones(len(latents), device=codec.device))
    circles = [
        codec.run_vocoder(codec.chunked_vocoder(stretch_mel(mel, count), circular=True).vocode).numpy()
        for count in plan_circle_lengths(frames, codec.latent_layout.hop)
    ]
    return fit_loops(circles, frames, codec.latent_layout.rate)
