"""Init audio: encoded to latents, regenerated in part (inpainting), and extended past its end (outpainting).

Init audio is brought to the level that the model was trained on. A mask says what is preserved of it.

Outpainting takes overlapping windows, with matched levels. A model tends to its own loudness: after softer audio it
becomes louder within a third of a second, and a window that had to fit existing audio is often a little softer. Both
are audible joins in steady sounds. So a new window is brought to the level of the preceding audio, as far as the
difference exceeds the sound's own fluctuation: rhythms and decays stay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from timbred.engine.codecs.chunked import MAX_PIECE_FRAMES
from timbred.engine.codecs.mel import (
    Analysis,
    amplify_mel,
    bands_between,
    frame_power,
    log_mel,
    match_mel_level,
    region_weights,
)
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.sampler import InitLatents, draw_noise
from timbred.ipc.engine_messages import InitAudio, RenderOrder, Repaint

SILENT_PEAK = 1e-5
"""Peak of init audio below which it is not amplified, because only its noise would be audible."""


def match_init_level(order: RenderOrder, rate: int, trained_peak: float) -> tuple[RenderOrder, float]:
    """Bring the init audio of an order to the peak of the training; returns the order and the factor.

    For outpainting only the end that fits into a window determines the factor. `rate` is in Hz.
    """
    if order.init_audio is None:
        return order, 1.0
    samples = np.frombuffer(order.init_audio.samples, dtype="<f4")
    measured = samples[-int(order.window * rate) * order.init_audio.channels :] if order.window else samples
    peak = float(np.abs(measured).max(initial=0.0))
    gain = trained_peak / peak if peak > SILENT_PEAK else 1.0
    amplified = (samples * np.float32(gain)).astype("<f4").tobytes()
    return replace(order, init_audio=replace(order.init_audio, samples=amplified)), gain


def init_samples(init_audio: InitAudio) -> torch.Tensor:
    """Return the samples of init audio, (frames,), float32."""
    return torch.frombuffer(bytearray(init_audio.samples), dtype=torch.float32)


def init_channels(init_audio: InitAudio) -> torch.Tensor:
    """Return the samples of init audio, (channels, frames), float32."""
    return init_samples(init_audio).reshape(-1, init_audio.channels).T.contiguous()


def encode_init_audio(order: RenderOrder, codec: MelVaeCodec) -> InitLatents | None:
    """Return the init latents of an order, the same for each take, with the mask of what is preserved."""
    if order.init_audio is None:
        return None
    latents = encode_samples(init_samples(order.init_audio), order.seconds, codec).float()
    preserved = _preserved_mask(order.init_audio.repaint, latents, codec) if order.init_audio.repaint else None
    return InitLatents(latents.expand(len(order.seeds), *latents.shape[1:]), order.init_audio.strength, preserved)


@torch.inference_mode()
def encode_samples(samples: torch.Tensor, seconds: float, codec: MelVaeCodec) -> torch.Tensor:
    """Encode samples, (frames,) at the native rate, to latents, (1, channels, time, bands)."""
    return codec.encode(
        _fit_frames(samples, codec.latent_layout.shape(seconds)[1] * codec.latent_layout.samples_per_row)
    )


def _fit_frames(samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Pad samples with silence, or truncate them."""
    return torch.nn.functional.pad(samples, (0, max(0, frames - len(samples))))[:frames]


def _preserved_mask(regions: Sequence[Repaint], latents: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """Return a mask: 1 where the init audio is preserved, 0 in the regions that are regenerated."""
    layout = codec.latent_layout
    rows_per_second = layout.rate / layout.hop / layout.frames_per_row
    preserved = torch.ones_like(latents[:1, :1])
    for region in regions:
        first, last = (band / layout.frames_per_row for band in bands_between(codec.analysis, region.low, region.high))
        start, end = math.floor(region.start * rows_per_second), math.ceil(region.end * rows_per_second)
        preserved[:, :, start:end, math.floor(first) : math.ceil(last)] = 0
    return preserved


def keep_outside_region(order: RenderOrder, mel: torch.Tensor, codec: MelVaeCodec) -> torch.Tensor:
    """Return a mel spectrogram with the init audio outside the regenerated regions.

    The decoder's receptive field covers the whole clip, so it would change the audio there too.
    """
    if order.init_audio is None or not order.init_audio.repaint:
        return mel
    layout = codec.latent_layout
    samples = _fit_frames(init_samples(order.init_audio), mel.shape[1] * layout.hop)
    init_mel = log_mel(samples, codec.analysis).to(mel.device, mel.dtype)
    frames_per_second = layout.rate / layout.hop
    weight = torch.zeros(mel.shape[1:])
    for region in order.init_audio.repaint:
        frame_weights = region_weights(
            mel.shape[1], math.floor(region.start * frames_per_second), math.ceil(region.end * frames_per_second)
        )
        band_weights = region_weights(mel.shape[2], *bands_between(codec.analysis, region.low, region.high))
        weight = torch.maximum(weight, frame_weights[:, None] * band_weights)
    return init_mel + (mel - init_mel) * weight.to(mel.device, mel.dtype)


CORRECTED_BEFORE_S, CORRECTED_AFTER_S = 0.35, 0.5
"""Seconds around the end of the known part in which a window's level is corrected frame by frame."""

CORRECTION_FADE_S = 0.5
"""Seconds after that over which the correction becomes a constant gain."""

COMPARED_S, FLUCTUATION_S = 1.0, 1.5
"""Seconds before and after whose levels are compared, and seconds in which fluctuation is measured."""

MIN_MEASURED_S = 0.2
"""Minimum seconds on both sides to measure a level."""

LEVEL_AVERAGING_S = 0.3
"""Averaging time of levels in seconds; faster changes are part of the sound."""

MAX_CORRECTION_DB = 12.0
"""Maximum level correction in dB."""

PEAK_TO_RMS_RATIO = 1.5
"""Largest deviation of moments, in multiples of the RMS deviation: a slow sine reaches 1.41."""

FULL_CORRECTION_DB, NO_CORRECTION_DB = 15.0, 25.0
"""Level differences in dB from which the continuation is less and less likely the same sound, up to no correction."""


def level_curve(known_power: torch.Tensor, window_power: torch.Tensor, frames_per_second: float) -> torch.Tensor:
    """Return the level correction of a window in dB, (takes, frames), at most `MAX_CORRECTION_DB` either way.

    It is 0 where too few frames can be compared.

    Args:
        known_power: Powers of the known part, (takes, known).
        window_power: Powers of the whole window, (takes, frames), known part first.
        frames_per_second: Frames in a second.
    """
    known, end = known_power.shape[1], window_power.shape[1]
    frames_before, frames_after, fade_frames, compared_frames, fluctuation_frames = (
        round(duration_s * frames_per_second)
        for duration_s in (CORRECTED_BEFORE_S, CORRECTED_AFTER_S, CORRECTION_FADE_S, COMPARED_S, FLUCTUATION_S)
    )
    first, last = known - frames_before, known + frames_after
    if min(first, end - last) < round(MIN_MEASURED_S * frames_per_second):
        return torch.zeros_like(window_power)
    power_before, power_after = (
        known_power[:, max(0, first - compared_frames) : first],
        window_power[:, last : last + compared_frames],
    )
    level, difference = (
        _decibels(power_before.mean(dim=1, keepdim=True)),
        _decibels(power_after.mean(dim=1, keepdim=True)),
    )
    difference = difference - level
    known_levels = _decibels(
        _smooth(
            known_power[:, max(0, first - fluctuation_frames) : first], round(LEVEL_AVERAGING_S * frames_per_second)
        )
    )
    levels = _decibels(_smooth(window_power, round(LEVEL_AVERAGING_S * frames_per_second)))
    slope, fluctuation = _trend_and_fluctuation(known_levels)
    fluctuation = torch.maximum(fluctuation, _trend_and_fluctuation(levels[:, last : last + fluctuation_frames])[1])

    positions = torch.arange(end, device=window_power.device)
    trend = slope * (positions - first + power_before.shape[1] / 2)
    trend_after = slope * (last + power_after.shape[1] / 2 - first + power_before.shape[1] / 2)
    fade_in = ((positions - first + 1) / frames_before).clamp(0, 1)
    fade_to_constant = ((positions - last) / fade_frames).clamp(0, 1)
    deviations = _unexplained(levels - level, trend, PEAK_TO_RMS_RATIO * fluctuation) * fade_in
    gain = -(deviations + (_unexplained(difference, trend_after, fluctuation) - deviations) * fade_to_constant).clamp(
        -MAX_CORRECTION_DB, MAX_CORRECTION_DB
    )
    return gain * ((NO_CORRECTION_DB - difference.abs()) / (NO_CORRECTION_DB - FULL_CORRECTION_DB)).clamp(0, 1)


def _trend_and_fluctuation(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the significant slope of a level in dB a frame, and the RMS deviation from that line: both (takes, 1)."""
    positions = torch.arange(levels.shape[1], device=levels.device, dtype=levels.dtype)
    positions = positions - positions.mean()
    length = positions.square().sum().clamp(min=1.0)
    centred = levels - levels.mean(dim=1, keepdim=True)
    slope = (centred * positions).sum(dim=1, keepdim=True) / length
    fluctuation = (centred - slope * positions).square().mean(dim=1, keepdim=True).sqrt()
    random_slope = fluctuation / (length / len(positions)).sqrt()  # the slope that such fluctuation can have by chance
    return _shrink(slope, random_slope), fluctuation


def _unexplained(difference: torch.Tensor, explained: torch.Tensor, fluctuation: torch.Tensor) -> torch.Tensor:
    """Return the part of a level difference explained neither by the slope nor by the sound's own fluctuation."""
    explained = torch.minimum(explained.abs(), difference.abs()) * (explained * difference > 0)
    return _shrink(difference.sign() * (difference.abs() - explained), fluctuation)


def _shrink(value: torch.Tensor, random_size: torch.Tensor) -> torch.Tensor:
    """Shrink a value towards 0 by its expected random size (James and Stein 1961)."""
    return value * (1.0 - random_size.square() / value.square().clamp(min=1e-12)).clamp(min=0.0)


def _decibels(powers: torch.Tensor) -> torch.Tensor:
    return 10.0 * powers.clamp(min=1e-8).log10()


def _smooth(powers: torch.Tensor, frames: int) -> torch.Tensor:
    """Return Hann-weighted moving means of (takes, frames)."""
    reach = frames // 2
    window = torch.hann_window(2 * reach + 3, periodic=False, device=powers.device)[1:-1][None, None]
    both = torch.stack([powers, torch.ones_like(powers)]).flatten(0, 1)[:, None]
    sums, weights = torch.nn.functional.conv1d(both, window, padding=reach)[:, 0].chunk(2)
    return sums / weights


WINDOW_CROSSFADE_S = 0.1
"""Crossfade between windows in seconds, at the end of their overlap."""

RETURNED_OVERLAP_S = 1.5
"""Seconds of the init audio's end that are returned with the new audio, as far as it is so long.

Enough to measure how much the codec changes its level; the last third of a second is corrected and does not show it.
"""

RELEASE_RAMP_S = 0.3
"""Seconds before the new part in which latents are released one after the other, the last ones first, so that both fit.
"""

DISCARDED_FRACTION = 0.12
"""Fraction of a window that is discarded if another follows, because models let sounds decay at the end."""


@dataclass(frozen=True)
class OutpaintWindow:
    """Rows of latents in a window: known at its start, new, and surplus rows that are discarded."""

    known: int
    new: int
    surplus: int = 0

    @property
    def rows(self) -> int:
        """Total number of rows."""
        return self.known + self.new + self.surplus


def plan_windows(known_rows: int, new_rows: int, max_rows: int) -> list[OutpaintWindow]:
    """Plan the windows that add `new_rows` to `known_rows` (at least 1).

    Each window has at most `max_rows`, half of them new.
    """
    windows: list[OutpaintWindow] = []
    half, discarded = max(1, max_rows // 2), round(DISCARDED_FRACTION * max_rows)
    while new_rows > 0:
        new, surplus = (new_rows, 0) if new_rows <= half else (max(1, half - discarded), min(discarded, half - 1))
        known = min(known_rows, max(1, max_rows - new - surplus))
        windows.append(OutpaintWindow(known, new, surplus))
        known_rows, new_rows = known + new, new_rows - new
    return windows


@dataclass
class Outpainting:
    """State of an extension.

    Attributes:
        latents: Latents of the audio so far, (takes, channels, rows, bands), at least as many rows as the next
            window knows.
        remaining_windows: Windows not rendered yet.
        init_samples: Samples of the init audio.
        total_samples: Samples of the whole result.
        frames_per_row: Mel frames of a row of latents.
        analysis: Mel analysis of the model.
        rendered_windows: Number of rendered windows.
        mel: Log-mel spectrogram from the first window's start, (takes, frames, bands).
        end_gain_db: Level correction at the end of `mel` in dB, (takes, 1).
    """

    latents: torch.Tensor
    remaining_windows: list[OutpaintWindow]
    init_samples: int
    total_samples: int
    frames_per_row: int
    analysis: Analysis
    rendered_windows: int = 0
    mel: torch.Tensor | None = None
    end_gain_db: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self._first_known = self.remaining_windows[0].known * self.frames_per_row * self.analysis.hop

    @property
    def window_count(self) -> int:
        """Total number of windows."""
        return self.rendered_windows + len(self.remaining_windows)

    @property
    def init_latents(self) -> torch.Tensor:
        """Init latents of the next window: the known rows followed by their mirror image.

        After silence the model would generate the end of a sound.
        """
        window = self.remaining_windows[0]
        known = self.latents[:, :, self.latents.shape[2] - window.known :]
        mirrored = torch.cat([known, known.flip(2)], dim=2)
        return mirrored[:, :, torch.arange(window.rows, device=known.device) % mirrored.shape[2]]

    @property
    def preserved_steps(self) -> torch.Tensor:
        """Fraction of the steps for which each row of the next window is preserved, (1, 1, rows, 1)."""
        window = self.remaining_windows[0]
        ramp_rows = min(round(RELEASE_RAMP_S * self._frames_per_second / self.frames_per_row), window.known // 2)
        fractions = torch.zeros(window.rows)
        fractions[: window.known] = 1
        fractions[window.known - ramp_rows : window.known] = torch.linspace(1, 0, ramp_rows + 2)[1:-1]
        return fractions[None, None, :, None]

    def join_mel(self, mel: torch.Tensor) -> torch.Tensor:
        """Return the log-mel spectrogram so far joined with that of the next window, without its surplus rows."""
        return self._join_window(mel)[0]

    def add_window(self, latents: torch.Tensor, mel: torch.Tensor) -> None:
        """Add the latents and the log-mel spectrogram of a finished window."""
        self.mel, self.end_gain_db = self._join_window(mel)
        window = self.remaining_windows.pop(0)
        self.rendered_windows += 1
        self.latents = latents[:, :, : window.known + window.new]

    @property
    def _frames_per_second(self) -> float:
        """Mel frames in a second."""
        return self.analysis.rate / self.analysis.hop

    def _join_window(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the spectrogram joined with the next window, and the level correction at its end in dB."""
        window = self.remaining_windows[0]
        known, end = window.known * self.frames_per_row, (window.known + window.new) * self.frames_per_row
        mel, takes = mel[:, :end], len(mel)
        previous_gain_db = (
            torch.zeros(takes, 1, device=mel.device) if self.end_gain_db is None else self.end_gain_db[:takes]
        )
        known_mel = mel[:, :known] if self.mel is None else self.mel[:takes]
        powers = frame_power(mel) * 10.0 ** (previous_gain_db / 10.0)
        gain = previous_gain_db + level_curve(frame_power(known_mel[:, -known:]), powers, self._frames_per_second)
        gain = gain.clamp(-MAX_CORRECTION_DB, MAX_CORRECTION_DB)
        corrected = amplify_mel(mel, gain[:, :, None])
        if self.mel is None:
            return corrected, gain[:, -1:]
        length = min(round(WINDOW_CROSSFADE_S * self._frames_per_second), known)
        fade = ((torch.arange(length, device=mel.device) + 0.5) / length).to(mel.dtype)[:, None]
        fading_out, fading_in = known_mel[:, known_mel.shape[1] - length :], corrected[:, known - length : known]
        blend = fading_out + (fading_in - fading_out) * fade
        return torch.cat([known_mel[:, : known_mel.shape[1] - length], blend, corrected[:, known:]], dim=1), gain[
            :, -1:
        ]

    @property
    def first_sample(self) -> int:
        """Sample of the whole at which the returned audio begins."""
        return self.init_samples - min(
            self.init_samples, self._first_known, round(RETURNED_OVERLAP_S * self.analysis.rate)
        )

    @property
    def first_mel_sample(self) -> int:
        """The same sample counted from the start of `mel`."""
        return self._first_known - (self.init_samples - self.first_sample)


def plan_outpainting(order: RenderOrder, codec: MelVaeCodec) -> Outpainting | None:
    """Plan the outpainting of an order; None if it has none."""
    if not order.window or order.init_audio is None:
        return None
    layout = codec.latent_layout
    samples = init_samples(order.init_audio)
    init_length, total_length = len(samples), round(order.seconds * layout.rate)
    rows = math.ceil((total_length - init_length) / layout.samples_per_row)
    plan = plan_windows(
        max(1, init_length // layout.samples_per_row), rows, int(order.window * layout.rate) // layout.samples_per_row
    )
    known = codec.encode(
        _mirror(samples, plan[0].known * layout.samples_per_row, plan[0].rows * layout.samples_per_row)
    )
    known = known[:, :, : plan[0].known]
    latents = known.float().expand(len(order.seeds), *known.shape[1:])
    return Outpainting(latents, plan, init_length, total_length, layout.frames_per_row, codec.analysis)


def _mirror(samples: torch.Tensor, known: int, frames: int) -> torch.Tensor:
    """Return the last `known` samples alternating with their mirror image, `frames` in all.

    The mirror image comes first where fewer than `known` samples exist.
    """
    end = samples[-known:]
    circle = torch.cat([end, end.flip(0)])
    return circle[torch.arange(len(end) - known, frames - known + len(end)) % len(circle)]


def next_window(
    outpainting: Outpainting, generators: list[torch.Generator], device: torch.device
) -> tuple[torch.Tensor, InitLatents]:
    """Return the noise of the next window, and its init latents with their mask."""
    latents = outpainting.init_latents
    _, channels, rows, bands = latents.shape
    noise = draw_noise((channels, rows, bands), generators).to(device)
    preserved = outpainting.preserved_steps.expand(1, 1, *latents.shape[2:]).to(device)
    return noise, InitLatents(latents, 1.0, preserved)


def decode_outpainting(outpainting: Outpainting, mel: torch.Tensor, codec: MelVaeCodec) -> NDArray[np.float32]:
    """Decode the waveforms rendered so far, (takes, frames), from shortly before the end of the init audio."""
    chunked_vocoder = codec.chunked_vocoder(mel)
    first_frame, end_frame = outpainting.first_mel_sample // codec.latent_layout.hop, mel.shape[1]
    edges = [*range(first_frame, end_frame, MAX_PIECE_FRAMES), end_frame]
    pieces = [codec.run_vocoder(partial(chunked_vocoder.vocode_piece, start, end)) for start, end in pairwise(edges)]
    matched = match_mel_level(mel[:, first_frame:], torch.cat(pieces, dim=1), codec.analysis)
    waveforms = matched.numpy()[:, outpainting.first_mel_sample - first_frame * codec.latent_layout.hop :]
    return waveforms[:, : outpainting.total_samples - outpainting.first_sample]
