"""The level of a sound that is continued, from what was there to what is new.

A model has an idea of its own of how loud a sound is. Given one that is softer, it goes on louder within a third of a
second; and where it had to fit what is there, it is often a little softer than before and after. Both are heard as a
join when the sound is steady. So what is new is brought to the level of what it follows, as far as the difference is
more than the sound's own swelling: a rhythm, or a tone that dies away, stays as the model made it.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from timbred.engine.codecs.chunked import LONGEST_PIECE
from timbred.engine.codecs.mel import Analysis, as_loud_as, energy, louder
from timbred.engine.codecs.mel_vae import MelVaeCodec
from timbred.engine.diffusion.inpainting import samples_of
from timbred.engine.diffusion.sampler import InitLatents, starting_noise
from timbred.ipc.engine_messages import RenderOrder

BEFORE, AFTER = 0.35, 0.5
"""Seconds around the end of what is known in which a window finds its own level: there it is evened all along."""

FADING = 0.5
"""Seconds after them over which what evens becomes one gain for all that follows."""

COMPARED, LOOKED_AT = 1.0, 1.5
"""Seconds before and after, at most, whose levels are compared; and those in which it is seen how a sound swells."""

LEAST = 0.2
"""Seconds that must be there on both sides to know a level."""

SMOOTH = 0.3
"""Seconds over which levels are taken: what changes faster is part of the sound."""

MOST = 12.0
"""Decibels by which anything is made louder or softer at most."""

PEAKS = 1.5
"""How far moments may be off, times the root mean square: a slow sine reaches 1.41."""

OTHER, SURELY_OTHER = 15.0, 25.0
"""Decibels of difference from which on it is less and less likely the same sound that goes on, and none is evened."""


def level_curve(there: torch.Tensor, window: torch.Tensor, second: float) -> torch.Tensor:
    """What evens a window: decibels, (takes, frames), up to `MOST` either way; none without enough frames to compare.

    `there` are the powers of what is known, (takes, known), and `window` those of all the window, (takes, frames),
    the known ones first. A `second` has so many frames.
    """
    known, end = there.shape[1], window.shape[1]
    before, after, fading, compared, looked_at = (
        round(part * second) for part in (BEFORE, AFTER, FADING, COMPARED, LOOKED_AT)
    )
    first, last = known - before, known + after
    if min(first, end - last) < round(LEAST * second):
        return torch.zeros_like(window)
    earlier, then = there[:, max(0, first - compared) : first], window[:, last : last + compared]
    level, difference = _decibels(earlier.mean(dim=1, keepdim=True)), _decibels(then.mean(dim=1, keepdim=True))
    difference = difference - level
    levels_there = _decibels(_smooth(there[:, max(0, first - looked_at) : first], round(SMOOTH * second)))
    levels = _decibels(_smooth(window, round(SMOOTH * second)))
    slope, swelling = _moving(levels_there)
    swelling = torch.maximum(swelling, _moving(levels[:, last : last + looked_at])[1])

    places = torch.arange(end, device=window.device)
    ahead = slope * (places - first + earlier.shape[1] / 2)
    rest = slope * (last + then.shape[1] / 2 - first + earlier.shape[1] / 2)
    entering = ((places - first + 1) / before).clamp(0, 1)
    leaving = ((places - last) / fading).clamp(0, 1)
    moments = _beyond(levels - level, ahead, PEAKS * swelling) * entering
    gain = -(moments + (_beyond(difference, rest, swelling) - moments) * leaving).clamp(-MOST, MOST)
    return gain * ((SURELY_OTHER - difference.abs()) / (SURELY_OTHER - OTHER)).clamp(0, 1)


def _moving(levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By how many decibels a frame a sound rises, as far as that is sure, and how far it is off that line, root mean
    square: both (takes, 1)."""
    places = torch.arange(levels.shape[1], device=levels.device, dtype=levels.dtype)
    places = places - places.mean()
    length = places.square().sum().clamp(min=1.0)
    centred = levels - levels.mean(dim=1, keepdim=True)
    slope = (centred * places).sum(dim=1, keepdim=True) / length
    swelling = (centred - slope * places).square().mean(dim=1, keepdim=True).sqrt()
    unsure = swelling / (length / len(places)).sqrt()  # a slope that such swelling may have by chance
    return _more_than(slope, unsure), swelling


def _beyond(difference: torch.Tensor, explained: torch.Tensor, swelling: torch.Tensor) -> torch.Tensor:
    """The part of a difference that neither goes on as the sound went nor is its own swelling."""
    explained = torch.minimum(explained.abs(), difference.abs()) * (explained * difference > 0)
    return _more_than(difference.sign() * (difference.abs() - explained), swelling)


def _more_than(value: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """Nearly all of a value that is far larger than what chance makes of it, nothing of one that is smaller (James and
    Stein 1961)."""
    return value * (1.0 - chance.square() / value.square().clamp(min=1e-12)).clamp(min=0.0)


def _decibels(powers: torch.Tensor) -> torch.Tensor:
    return 10.0 * powers.clamp(min=1e-8).log10()


def _smooth(powers: torch.Tensor, frames: int) -> torch.Tensor:
    """Hann-weighted means over about so many frames of (takes, frames), at the ends over those that there are."""
    reach = frames // 2
    window = torch.hann_window(2 * reach + 3, periodic=False, device=powers.device)[1:-1][None, None]
    both = torch.stack([powers, torch.ones_like(powers)]).flatten(0, 1)[:, None]
    sums, weights = torch.nn.functional.conv1d(both, window, padding=reach)[:, 0].chunk(2)
    return sums / weights


JOIN = 0.1
"""Seconds of spectrogram over which one window becomes the next, the last ones that both have."""

OVERLAP = 1.5
"""Seconds of the given sound's end that come with what was made, as far as there are so many: enough to tell by how
much the codec changes its level, which the last third of a second alone doesn't, for that is evened."""

YIELDING = 0.3
"""Seconds before the new part whose latents are let go one after the other, the last ones first: so both fit."""

SPARE = 0.12
"""Part of a window that is thrown away when another follows: a model lets its sounds die away at their end."""


@dataclass(frozen=True)
class OutpaintWindow:
    """Rows of latents: those that a window begins with, those it adds, and those after that are thrown away."""

    known: int
    new: int
    spare: int = 0

    @property
    def rows(self) -> int:
        """All of them."""
        return self.known + self.new + self.spare


def windows(there: int, more: int, longest: int) -> list[OutpaintWindow]:
    """How a sound of `there` rows (at least 1) gets `more`, in windows of at most `longest`; half of each is made."""
    found: list[OutpaintWindow] = []
    made, spare = max(1, longest // 2), round(SPARE * longest)
    while more > 0:
        new, after = (more, 0) if more <= made else (max(1, made - spare), min(spare, made - 1))
        known = min(there, max(1, longest - new - after))
        found.append(OutpaintWindow(known, new, after))
        there, more = known + new, more - new
    return found


@dataclass
class Outpainting:
    """A sound on its way.

    `latents` are those of what is there, (takes, channels, rows, bands), at least as many as the next window knows;
    `mel` is the spectrogram of all that was made, (takes, frames, bands), from the first window's beginning on, and
    `evened` by how many decibels its end was made louder to fit, (takes, 1). `given` and `wanted` are samples: of the
    given sound, and of the whole. A row of latents is `factor` frames of the spectrogram, which is the `analysis`'s.
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
        """Windows in all."""
        return self.done + len(self.left)

    @property
    def beginning(self) -> torch.Tensor:
        """The latents that the next window begins with, and their mirror image as far as it goes: after silence the
        model would hear that the sound ends."""
        window = self.left[0]
        known = self.latents[:, :, self.latents.shape[2] - window.known :]
        whole = torch.cat([known, known.flip(2)], dim=2)
        return whole[:, :, torch.arange(window.rows, device=known.device) % whole.shape[2]]

    @property
    def kept(self) -> torch.Tensor:
        """For what part of the steps the latents of the next window stay, (1, 1, rows, 1)."""
        window = self.left[0]
        yielding = min(round(YIELDING * self._second / self.factor), window.known // 2)
        kept = torch.zeros(window.rows)
        kept[: window.known] = 1
        kept[window.known - yielding : window.known] = torch.linspace(1, 0, yielding + 2)[1:-1]
        return kept[None, None, :, None]

    def with_window(self, mel: torch.Tensor) -> torch.Tensor:
        """All that there is once the next window is joined, whose spectrogram this is; rows that it spares not."""
        return self._joined(mel)[0]

    def take(self, latents: torch.Tensor, mel: torch.Tensor) -> None:
        """The next window is made: its latents, and its spectrogram."""
        self.mel, self.evened = self._joined(mel)
        window = self.left.pop(0)
        self.done += 1
        self.latents = latents[:, :, : window.known + window.new]

    @property
    def _second(self) -> float:
        """Frames of a second."""
        return self.analysis.rate / self.analysis.hop

    def _joined(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What there is with the next window, and by how many decibels its end was made louder."""
        window = self.left[0]
        known, end = window.known * self.factor, (window.known + window.new) * self.factor
        mel, takes = mel[:, :end], len(mel)
        so_far = torch.zeros(takes, 1, device=mel.device) if self.evened is None else self.evened[:takes]
        there = mel[:, :known] if self.mel is None else self.mel[:takes]
        powers = energy(mel, self.analysis) * 10.0 ** (so_far / 10.0)
        gain = so_far + level_curve(energy(there[:, -known:], self.analysis), powers, self._second)
        gain = gain.clamp(-MOST, MOST)
        even = louder(mel, gain[:, :, None], self.analysis)
        if self.mel is None:
            return even, gain[:, -1:]
        length = min(round(JOIN * self._second), known)
        share = ((torch.arange(length, device=mel.device) + 0.5) / length).to(mel.dtype)[:, None]
        leaves, enters = there[:, there.shape[1] - length :], even[:, known - length : known]
        blend = leaves + (enters - leaves) * share
        return torch.cat([there[:, : there.shape[1] - length], blend, even[:, known:]], dim=1), gain[:, -1:]

    @property
    def first(self) -> int:
        """The sample of the whole with which what was made begins."""
        return self.given - min(self.given, self._first_known, round(OVERLAP * self.analysis.rate))

    @property
    def begins(self) -> int:
        """The same sample as `mel` counts: from the first window's beginning on."""
        return self._first_known - (self.given - self.first)


def extension_of(order: RenderOrder, codec: MelVaeCodec) -> Outpainting | None:
    """How an order's given sound is continued, if that is what it wants."""
    if not order.window or order.given is None:
        return None
    grid = codec.grid
    samples = samples_of(order.given)
    there, wanted = len(samples), round(order.seconds * grid.rate)
    rows = math.ceil((wanted - there) / grid.row)
    plan = windows(max(1, there // grid.row), rows, int(order.window * grid.rate) // grid.row)
    known = codec.encode(_with_mirror(samples, plan[0].known * grid.row, plan[0].rows * grid.row))
    known = known[:, :, : plan[0].known]
    latents = known.float().expand(len(order.seeds), *known.shape[1:])
    return Outpainting(latents, plan, there, wanted, grid.factor, codec.analysis)


def _with_mirror(samples: torch.Tensor, known: int, frames: int) -> torch.Tensor:
    """The last `known` of some samples and their mirror image, in turns, up to so many frames. Of a sound with fewer,
    the mirror image stands before it."""
    end = samples[-known:]
    circle = torch.cat([end, end.flip(0)])
    return circle[torch.arange(len(end) - known, frames - known + len(end)) % len(circle)]


def next_window(
    extension: Outpainting, randomness: list[torch.Generator], device: torch.device
) -> tuple[torch.Tensor, InitLatents]:
    """The noise of the next window of a sound that is continued, and its beginning, which is kept: each take's own."""
    latents = extension.beginning
    _, channels, rows, bands = latents.shape
    noise = starting_noise((channels, rows, bands), randomness).to(device)
    kept = extension.kept.expand(1, 1, *latents.shape[2:]).to(device)
    return noise, InitLatents(latents, 1.0, kept)


def continued(extension: Outpainting, mel: torch.Tensor, codec: MelVaeCodec) -> NDArray[np.float32]:
    """The waveforms, (takes, frames), of what was made so far after a given sound, from shortly before its end on."""
    vocoding = codec.vocoding(mel)
    skipped, last = extension.begins // codec.grid.hop, mel.shape[1]
    edges = [*range(skipped, last, LONGEST_PIECE), last]
    pieces = [codec.vocoded(partial(vocoding.piece, start, end)) for start, end in pairwise(edges)]
    level = as_loud_as(mel[:, skipped:], torch.cat(pieces, dim=1), codec.analysis)
    made = level.numpy()[:, extension.begins - skipped * codec.grid.hop :]
    return made[:, : extension.wanted - extension.first]
