"""Outpainting: audio extended past its end in overlapping windows, with matched levels.

A model tends to its own loudness: after softer audio it becomes louder within a third of a second, and a window that
had to fit existing audio is often a little softer. Both are audible joins in steady sounds. So a new window is brought
to the level of the preceding audio, as far as the difference exceeds the sound's own fluctuation: rhythms and decays
stay.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.codecs.chunked import LONGEST_PIECE
from timbred.engine.codecs.mel import Analysis, amplify_mel, frame_power, match_mel_level
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.inpainting import init_samples
from timbred.engine.diffusion.sampler import InitLatents, draw_noise
from timbred.ipc.engine_messages import RenderOrder

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

PEAKS = 1.5
"""Largest deviation of moments, in multiples of the RMS deviation: a slow sine reaches 1.41."""

OTHER, SURELY_OTHER = 15.0, 25.0
"""Level differences in dB from which the continuation is less and less likely the same sound, up to no correction."""


def level_curve(there: torch.Tensor, window: torch.Tensor, second: float) -> torch.Tensor:
    """Return the level correction of a window in dB, (takes, frames), at most `MAX_CORRECTION_DB` either way.

    It is 0 where too few frames can be compared. `there` are the powers of the known part, (takes, known); `window`
    those of the whole window, (takes, frames), known part first; `second` is the number of frames in a second.
    """
    known, end = there.shape[1], window.shape[1]
    before, after, fading, compared, looked_at = (
        round(part * second)
        for part in (CORRECTED_BEFORE_S, CORRECTED_AFTER_S, CORRECTION_FADE_S, COMPARED_S, FLUCTUATION_S)
    )
    first, last = known - before, known + after
    if min(first, end - last) < round(MIN_MEASURED_S * second):
        return torch.zeros_like(window)
    earlier, then = there[:, max(0, first - compared) : first], window[:, last : last + compared]
    level, difference = _decibels(earlier.mean(dim=1, keepdim=True)), _decibels(then.mean(dim=1, keepdim=True))
    difference = difference - level
    levels_there = _decibels(_smooth(there[:, max(0, first - looked_at) : first], round(LEVEL_AVERAGING_S * second)))
    levels = _decibels(_smooth(window, round(LEVEL_AVERAGING_S * second)))
    slope, swelling = _moving(levels_there)
    swelling = torch.maximum(swelling, _moving(levels[:, last : last + looked_at])[1])

    places = torch.arange(end, device=window.device)
    ahead = slope * (places - first + earlier.shape[1] / 2)
    rest = slope * (last + then.shape[1] / 2 - first + earlier.shape[1] / 2)
    entering = ((places - first + 1) / before).clamp(0, 1)
    leaving = ((places - last) / fading).clamp(0, 1)
    moments = _beyond(levels - level, ahead, PEAKS * swelling) * entering
    gain = -(moments + (_beyond(difference, rest, swelling) - moments) * leaving).clamp(
        -MAX_CORRECTION_DB, MAX_CORRECTION_DB
    )
    return gain * ((SURELY_OTHER - difference.abs()) / (SURELY_OTHER - OTHER)).clamp(0, 1)


def _moving(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the significant slope of a level in dB a frame, and the RMS deviation from that line: both (takes, 1)."""
    places = torch.arange(levels.shape[1], device=levels.device, dtype=levels.dtype)
    places = places - places.mean()
    length = places.square().sum().clamp(min=1.0)
    centred = levels - levels.mean(dim=1, keepdim=True)
    slope = (centred * places).sum(dim=1, keepdim=True) / length
    swelling = (centred - slope * places).square().mean(dim=1, keepdim=True).sqrt()
    unsure = swelling / (length / len(places)).sqrt()  # the slope that such fluctuation can have by chance
    return _more_than(slope, unsure), swelling


def _beyond(difference: torch.Tensor, explained: torch.Tensor, swelling: torch.Tensor) -> torch.Tensor:
    """Return the part of a level difference explained neither by the slope nor by the sound's own fluctuation."""
    explained = torch.minimum(explained.abs(), difference.abs()) * (explained * difference > 0)
    return _more_than(difference.sign() * (difference.abs() - explained), swelling)


def _more_than(value: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """Shrink a value towards 0 by its expected random size (James and Stein 1961)."""
    return value * (1.0 - chance.square() / value.square().clamp(min=1e-12)).clamp(min=0.0)


def _decibels(powers: torch.Tensor) -> torch.Tensor:
    return 10.0 * powers.clamp(min=1e-8).log10()


def _smooth(powers: torch.Tensor, frames: int) -> torch.Tensor:
    """Return Hann-weighted moving means of (takes, frames)."""
    reach = frames // 2
    window = torch.hann_window(2 * reach + 3, periodic=False, device=powers.device)[1:-1][None, None]
    both = torch.stack([powers, torch.ones_like(powers)]).flatten(0, 1)[:, None]
    sums, weights = torch.nn.functional.conv1d(both, window, padding=reach)[:, 0].chunk(2)
    return sums / weights


JOIN = 0.1
"""Crossfade between windows in seconds, at the end of their overlap."""

OVERLAP = 1.5
"""Seconds of the init audio's end that are returned with the new audio, as far as it is so long.

Enough to measure how much the codec changes its level; the last third of a second is corrected and does not show it.
"""

YIELDING = 0.3
"""Seconds before the new part in which latents are released one after the other, the last ones first, so that both fit.
"""

DISCARDED_FRACTION = 0.12
"""Fraction of a window that is discarded if another follows, because models let sounds decay at the end."""


@dataclass(frozen=True)
class OutpaintWindow:
    """Rows of latents in a window: known at its start, new, and surplus rows that are discarded."""

    known: int
    new: int
    spare: int = 0

    @property
    def rows(self) -> int:
        """Total number of rows."""
        return self.known + self.new + self.spare


def plan_windows(there: int, more: int, longest: int) -> list[OutpaintWindow]:
    """Plan how `there` rows (at least 1) get `more` rows in windows of at most `longest`, half of each window new."""
    found: list[OutpaintWindow] = []
    made, spare = max(1, longest // 2), round(DISCARDED_FRACTION * longest)
    while more > 0:
        new, after = (more, 0) if more <= made else (max(1, made - spare), min(spare, made - 1))
        known = min(there, max(1, longest - new - after))
        found.append(OutpaintWindow(known, new, after))
        there, more = known + new, more - new
    return found


@dataclass
class Outpainting:
    """State of an extension.

    Attributes:
        latents: Latents of the audio so far, (takes, channels, rows, bands), at least as many rows as the next
            window knows.
        left: Windows not rendered yet.
        given: Samples of the init audio.
        wanted: Samples of the whole result.
        factor: Mel frames of a row of latents.
        analysis: Mel analysis of the model.
        done: Number of rendered windows.
        mel: Log-mel spectrogram from the first window's start, (takes, frames, bands).
        evened: Level correction at the end of `mel` in dB, (takes, 1).
    """

    latents: torch.Tensor
    left: list[OutpaintWindow]
    given: int
    wanted: int
    factor: int
    analysis: Analysis
    done: int = 0
    mel: torch.Tensor | None = None
    evened: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self._first_known = self.left[0].known * self.factor * self.analysis.hop

    @property
    def count(self) -> int:
        """Total number of windows."""
        return self.done + len(self.left)

    @property
    def beginning(self) -> torch.Tensor:
        """Init latents of the next window: the known rows followed by their mirror image.

        After silence the model would generate the end of a sound.
        """
        window = self.left[0]
        known = self.latents[:, :, self.latents.shape[2] - window.known :]
        whole = torch.cat([known, known.flip(2)], dim=2)
        return whole[:, :, torch.arange(window.rows, device=known.device) % whole.shape[2]]

    @property
    def kept(self) -> torch.Tensor:
        """Fraction of the steps for which each row of the next window is preserved, (1, 1, rows, 1)."""
        window = self.left[0]
        yielding = min(round(YIELDING * self._second / self.factor), window.known // 2)
        kept = torch.zeros(window.rows)
        kept[: window.known] = 1
        kept[window.known - yielding : window.known] = torch.linspace(1, 0, yielding + 2)[1:-1]
        return kept[None, None, :, None]

    def with_window(self, mel: torch.Tensor) -> torch.Tensor:
        """Return the log-mel spectrogram so far joined with that of the next window, without its surplus rows."""
        return self._joined(mel)[0]

    def take(self, latents: torch.Tensor, mel: torch.Tensor) -> None:
        """Add the latents and the log-mel spectrogram of a finished window."""
        self.mel, self.evened = self._joined(mel)
        window = self.left.pop(0)
        self.done += 1
        self.latents = latents[:, :, : window.known + window.new]

    @property
    def _second(self) -> float:
        """Mel frames in a second."""
        return self.analysis.rate / self.analysis.hop

    def _joined(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the spectrogram joined with the next window, and the level correction at its end in dB."""
        window = self.left[0]
        known, end = window.known * self.factor, (window.known + window.new) * self.factor
        mel, takes = mel[:, :end], len(mel)
        so_far = torch.zeros(takes, 1, device=mel.device) if self.evened is None else self.evened[:takes]
        there = mel[:, :known] if self.mel is None else self.mel[:takes]
        powers = frame_power(mel, self.analysis) * 10.0 ** (so_far / 10.0)
        gain = so_far + level_curve(frame_power(there[:, -known:], self.analysis), powers, self._second)
        gain = gain.clamp(-MAX_CORRECTION_DB, MAX_CORRECTION_DB)
        even = amplify_mel(mel, gain[:, :, None], self.analysis)
        if self.mel is None:
            return even, gain[:, -1:]
        length = min(round(JOIN * self._second), known)
        share = ((torch.arange(length, device=mel.device) + 0.5) / length).to(mel.dtype)[:, None]
        leaves, enters = there[:, there.shape[1] - length :], even[:, known - length : known]
        blend = leaves + (enters - leaves) * share
        return torch.cat([there[:, : there.shape[1] - length], blend, even[:, known:]], dim=1), gain[:, -1:]

    @property
    def first(self) -> int:
        """Sample of the whole at which the returned audio begins."""
        return self.given - min(self.given, self._first_known, round(OVERLAP * self.analysis.rate))

    @property
    def begins(self) -> int:
        """The same sample counted from the start of `mel`."""
        return self._first_known - (self.given - self.first)


def plan_outpainting(order: RenderOrder, codec: MelVaeCodec) -> Outpainting | None:
    """Plan the outpainting of an order; None if it has none."""
    if not order.window or order.given is None:
        return None
    grid = codec.grid
    samples = init_samples(order.given)
    there, wanted = len(samples), round(order.seconds * grid.rate)
    rows = math.ceil((wanted - there) / grid.row)
    plan = plan_windows(max(1, there // grid.row), rows, int(order.window * grid.rate) // grid.row)
    known = codec.encode(_with_mirror(samples, plan[0].known * grid.row, plan[0].rows * grid.row))
    known = known[:, :, : plan[0].known]
    latents = known.float().expand(len(order.seeds), *known.shape[1:])
    return Outpainting(latents, plan, there, wanted, grid.factor, codec.analysis)


def _with_mirror(samples: torch.Tensor, known: int, frames: int) -> torch.Tensor:
    """Return the last `known` samples alternating with their mirror image, `frames` in all.

    The mirror image comes first where fewer than `known` samples exist.
    """
    end = samples[-known:]
    circle = torch.cat([end, end.flip(0)])
    return circle[torch.arange(len(end) - known, frames - known + len(end)) % len(circle)]


def next_window(
    extension: Outpainting, randomness: list[torch.Generator], device: torch.device
) -> tuple[torch.Tensor, InitLatents]:
    """Return the noise of the next window, and its init latents with their mask."""
    latents = extension.beginning
    _, channels, rows, bands = latents.shape
    noise = draw_noise((channels, rows, bands), randomness).to(device)
    kept = extension.kept.expand(1, 1, *latents.shape[2:]).to(device)
    return noise, InitLatents(latents, 1.0, kept)


def decode_outpainting(extension: Outpainting, mel: torch.Tensor, codec: MelVaeCodec) -> NDArray[np.float32]:
    """Decode the waveforms rendered so far, (takes, frames), from shortly before the end of the init audio."""
    vocoding = codec.vocoding(mel)
    skipped, last = extension.begins // codec.grid.hop, mel.shape[1]
    edges = [*range(skipped, last, LONGEST_PIECE), last]
    pieces = [codec.vocoded(partial(vocoding.piece, start, end)) for start, end in pairwise(edges)]
    level = match_mel_level(mel[:, skipped:], torch.cat(pieces, dim=1), codec.analysis)
    made = level.numpy()[:, extension.begins - skipped * codec.grid.hop :]
    return made[:, : extension.wanted - extension.first]
