"""Representation of audio by bands with frequencies: analysis, and synthesis without learned parameters.

Each frame of 256 samples at 44.1 kHz has, for each of 160 bands of equal width on the ERB scale:

- energy: the squared amplitude of a sine with the band's power in both channels, in decibels;
- offset: position of the energy-weighted mean frequency in the band, -1 lower edge to 1 upper edge;
- tonality: 0 noise to 1 steady sine, from the consistency of successive phase advances;

and for groups of eight bands: balance (-1 left to 1 right) and width (0 equal channels to 1 uncorrelated channels).

The energy of an STFT bin is assigned to the band that contains its instantaneous frequency (reassignment), so a
partial is in one band only, not in all bands of its window's main lobe. Low bands use long windows.
The synthesis has one oscillator with continuous phase for each band. The phase continues from the neighbour that had
the oscillator's frequency in the previous frame, so a partial can move through the bands.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timbred.models.pocket import BANDS, GROUPS, SAMPLE_RATE
from timbred.models.pocket import BANDS_A_GROUP as GROUP
from timbred.models.pocket import FRAME_SAMPLES as HOP

LOW_HERTZ, HIGH_HERTZ = 22.0, 20_500.0
FLOOR_DB = -96.0
CHANNELS = 3 * BANDS + 2 * GROUPS

WINDOWS = ((4096, 0.0, 700.0), (2048, 700.0, 3000.0), (1024, 3000.0, 1e9))
"""Window length in samples, and the range of frequencies in hertz for which it is used."""

SYNTHESIS_WINDOW = 1024
LOBE_BINS = 4
NEAR_POLE = 1e-4

BLOCK_FRAMES = 344
"""Frames that are synthesised at once: two seconds, to bound the memory."""

SAME_PARTIAL_HERTZ = 12.0


def erb_rate(hertz: Tensor) -> Tensor:
    """Return the number of equivalent rectangular bandwidths below a frequency."""
    return 21.4 * torch.log10(1 + 0.00437 * hertz)


def band_edges() -> Tensor:
    """Return the frequencies of the band edges in hertz, (BANDS + 1,)."""
    low, high = (float(erb_rate(torch.tensor(hertz))) for hertz in (LOW_HERTZ, HIGH_HERTZ))
    rates = torch.linspace(low, high, BANDS + 1, dtype=torch.float64)
    return ((10 ** (rates / 21.4) - 1) / 0.00437).float()


EDGES = band_edges()
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
HALF_WIDTHS = (EDGES[1:] - EDGES[:-1]) / 2
_LOW_RATE = float(erb_rate(torch.tensor(LOW_HERTZ)))
_RATE_STEP = (float(erb_rate(torch.tensor(HIGH_HERTZ))) - _LOW_RATE) / BANDS


@dataclass
class Frames:
    """Bands of a sound, (..., frames, bands or groups).

    Attributes:
        energy: decibels, FLOOR_DB and above.
        offset: -1..1.
        tonality: 0..1.
        balance: -1..1, of groups.
        width: 0..1, of groups.
    """

    energy: Tensor
    offset: Tensor
    tonality: Tensor
    balance: Tensor
    width: Tensor

    def stacked(self) -> Tensor:
        """Concatenate all values to (..., frames, CHANNELS), scaled to about -1..1."""
        return torch.cat((self.energy / 48.0 + 1.0, self.offset, self.tonality, self.balance, self.width), -1)

    @staticmethod
    def unstacked(channels: Tensor) -> "Frames":
        """Create frames from the result of `stacked`."""
        energy, offset, tonality, balance, width = channels.split((BANDS, BANDS, BANDS, GROUPS, GROUPS), -1)
        return Frames((energy - 1.0) * 48.0, offset, tonality, balance, width)

    def amplified(self, decibels: float) -> "Frames":
        """Return the bands at another level."""
        energy = torch.where(self.energy > FLOOR_DB, self.energy + decibels, FLOOR_DB).clamp_min(FLOOR_DB)
        return Frames(energy, self.offset, self.tonality, self.balance, self.width)

    def before(self, last: int) -> "Frames":
        """Return the frames up to one."""
        return Frames(*(part[:last] for part in vars(self).values()))

    def after(self, first: int) -> "Frames":
        """Return the frames from one on."""
        return Frames(*(part[first:] for part in vars(self).values()))

    def changed(self, after: "Frames", before: "Frames", share: float = 1.0) -> "Frames":
        """Return these bands with a share of the difference of two other sounds."""
        energy, offset, tonality, balance, width = (
            own + share * (new - old)
            for own, new, old in zip(vars(self).values(), vars(after).values(), vars(before).values(), strict=True)
        )
        return Frames(
            energy.clamp_min(FLOOR_DB),
            offset.clamp(-1, 1),
            tonality.clamp(0, 1),
            balance.clamp(-1, 1),
            width.clamp(0, 1),
        )

    def hertz(self) -> Tensor:
        """Return the frequencies of the oscillators."""
        return CENTRES.to(self.offset) + HALF_WIDTHS.to(self.offset) * self.offset


def _transforms(audio: Tensor, length: int, frames: int, bins: slice) -> tuple[Tensor, Tensor]:
    """Return STFTs with a Hann window and with its derivative by samples, (sides, frames, bins).

    Frames are centred on multiples of HOP. Both windows are applied as sums of neighbouring bins.
    """
    padded = torch.nn.functional.pad(audio, (length // 2, length + HOP))
    plain = torch.fft.rfft(padded.unfold(-1, length, HOP)[..., :frames, :])
    first, last = bins.start, bins.stop
    below = (
        plain[..., first - 1 : last - 1]
        if first > 0
        else torch.cat((plain[..., 1:2].conj(), plain[..., : last - 1]), -1)
    )
    top = plain[..., first + 1 : last + 1]
    above = top if top.shape[-1] == last - first else torch.cat((top, plain[..., -2:-1].conj()), -1)
    spectrum = 0.5 * plain[..., first:last] - 0.25 * (below + above)
    return spectrum, (0.5 * math.pi / length) * -1j * (below - above)


def analyse(audio: Tensor, frames: int | None = None) -> Frames:
    """Return the bands of (2, samples) float audio, by default of all frames that begin within it."""
    frames = frames if frames is not None else -(-audio.shape[-1] // HOP)
    shape = (frames, BANDS)
    energy = torch.zeros(shape)
    weighted, sides = torch.zeros(shape), torch.zeros(2, *shape)
    cross, agreement, strength = torch.zeros(shape), torch.zeros(2, *shape), torch.zeros(shape)
    for length, low, high in WINDOWS:
        bins = slice(0, length // 2 + 1)
        if high < SAMPLE_RATE:
            bins = slice(0, min(bins.stop, int(high * length / SAMPLE_RATE) + 4))
        bins = slice(max(0, int(low * length / SAMPLE_RATE) - 3), bins.stop)
        spectrum, derivative = _transforms(audio, length, frames, bins)
        scale = 4.0 / (length * 0.375 * length)
        power = scale * spectrum.abs().square()
        both = power.sum(0)
        ratio = ((derivative * spectrum.conj()).imag / (spectrum.abs().square() + 1e-20)) * (
            SAMPLE_RATE / (2 * math.pi)
        )
        centre = torch.arange(bins.start, bins.stop) * (SAMPLE_RATE / length)
        hertz = centre - (ratio * power).sum(0) / (both + 1e-20)
        hertz = torch.where((hertz - centre).abs() < 3 * SAMPLE_RATE / length, hertz, centre)
        in_range = (hertz >= low) & (hertz < high)
        both, power = both * in_range, power * in_range
        index = ((erb_rate(hertz.clamp(LOW_HERTZ, HIGH_HERTZ)) - _LOW_RATE) / _RATE_STEP).long().clamp(0, BANDS - 1)
        energy.scatter_add_(1, index, both)
        weighted.scatter_add_(1, index, both * hertz)
        for side in (0, 1):
            sides[side].scatter_add_(1, index, power[side])
        cross.scatter_add_(1, index, (spectrum[0] * spectrum[1].conj()).real * in_range * scale)
        lag = length // 4 // HOP
        middle = spectrum.sum(0)
        product = middle[lag:] * middle[:-lag].conj()
        product = torch.nn.functional.pad(torch.view_as_real(product), (0, 0, 0, 0, lag, lag))
        product = torch.view_as_complex(product.contiguous())
        change = product[lag:] * product[:-lag].conj()
        change = change / (change.abs().sqrt() + 1e-20) * in_range
        agreement[0].scatter_add_(1, index, change.real.contiguous())
        agreement[1].scatter_add_(1, index, change.imag.contiguous())
        strength.scatter_add_(1, index, change.abs())
    centres, halves = CENTRES, HALF_WIDTHS
    offset = torch.where(energy > 1e-12, (weighted / (energy + 1e-20) - centres) / halves, 0.0).clamp(-1, 1)
    tonality = (agreement.norm(dim=0) / (strength + 1e-20)).clamp(0, 1)
    return _collect(energy, offset, tonality, sides, cross)


def _collect(energy: Tensor, offset: Tensor, tonality: Tensor, sides: Tensor, cross: Tensor) -> Frames:
    left, right = (side.unflatten(-1, (GROUPS, GROUP)).sum(-1) for side in sides)
    shared = cross.unflatten(-1, (GROUPS, GROUP)).sum(-1) / ((left * right).sqrt() + 1e-12)
    balance = (right - left) / (left + right + 1e-12)
    decibels = 10 * torch.log10(energy.clamp_min(10 ** (FLOOR_DB / 10)))
    return Frames(decibels, offset, tonality, balance, (1 - shared).clamp(0, 1))


def _amplitudes(frames: Frames) -> tuple[Tensor, Tensor]:
    """Return the amplitudes of the oscillators and the powers of the noise, (frames, bands).

    Neighbours of equal frequency are in phase, so that their amplitudes add up to the root of their energies' sum.
    """
    power = torch.where(frames.energy > FLOOR_DB + 3, 10 ** (frames.energy / 10), 0.0)
    # a partial with a changing level or pitch has a lower tonality but no noise: the square preserves most of it
    tone = power * (1 - (1 - frames.tonality.clamp(0, 1)).square())
    total = tone.clone()
    hertz = frames.hertz()
    for shift in (-1, 1):
        alike = _similarity(_shifted(hertz, shift), hertz)
        total = total + alike * _shifted(tone, shift)
    return tone / (total.sqrt() + 1e-12), (power - tone).clamp_min(0) / 2


def _shifted(values: Tensor, shift: int) -> Tensor:
    """Return for each band the value of the band `shift` above; zero beyond the edges."""
    padded = torch.nn.functional.pad(values, (1, 1))
    return padded[..., 1 + shift : 1 + shift + values.shape[-1]]


def _similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the similarity of frequencies: 1 if equal, near 0 from about half a band on."""
    return torch.exp(-(((first - second) / (0.8 * HALF_WIDTHS.to(first) + 3.0)) ** 2))


def _phases(amplitudes: Tensor, hertz: Tensor, seed: int, starts: Tensor, circle: bool) -> Tensor:
    """Return unit phasors (frames, bands) with continuous phase; in a circle, also from the last frame to the first."""
    hops = torch.diff(starts).float()[:, None] * (2 * math.pi / SAMPLE_RATE)
    if circle:
        hertz, amplitudes = (torch.cat((values, values[:1])) for values in (hertz, amplitudes))
    else:
        hops = hops[: len(hertz) - 1]
    weights: list[Tensor] = []
    before, loud = hertz[:-1], amplitudes[:-1]
    for shift in (-1, 0, 1):
        from_hertz = _shifted(before, shift)
        weight = _shifted(loud, shift) * _similarity(from_hertz, hertz[1:]) + (1e-9 if shift == 0 else 0.0)
        weights.append(torch.polar(weight, hops * 0.5 * (from_hertz + hertz[1:])))
    stacked = torch.stack(weights, 1).numpy()
    state = np.exp(2j * np.pi * np.random.default_rng(seed).uniform(size=BANDS)).astype(np.complex64)
    if not circle:
        return torch.from_numpy(_turn(state, stacked))
    # in the second turn neighbours that share a partial are in phase from the first frame on
    first = _turn(_turn(state, stacked)[-1], stacked)
    phasors, missing = first[:-1], np.angle(first[0] * first[-1].conj())
    shares = np.arange(len(phasors), dtype=np.float32)[:, None] / len(phasors)
    return torch.from_numpy(phasors * np.exp(1j * shares * missing).astype(np.complex64))


def _turn(state: NDArray[np.complex64], weights: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return the phasors (frames + 1, bands) of oscillators from their first state on."""
    phasors = np.empty((len(weights) + 1, BANDS), np.complex64)
    phasors[0] = state
    padded = np.zeros(BANDS + 2, np.complex64)
    for index, (below, own, above) in enumerate(weights, 1):
        padded[1:-1] = state
        state = below * padded[:-2] + own * state + above * padded[2:]
        state /= np.abs(state) + 1e-30
        phasors[index] = state
    return phasors


def _lobes(nearest: Tensor, lobes: Tensor) -> Tensor:
    """Return the transform of a Hann window, 1 at its centre, at bins around the nearest one: (..., lobes).

    `nearest` is the distance of the nearest bin from the centre, at most half a bin. The signs are those of a window
    whose middle is at time 0, up to that of the nearest bin.
    """
    distance = nearest[..., None] + lobes
    # the sine of pi * distance differs between the lobes in its sign only, as their phase in the middle does
    scaled = distance * (1 - distance.square())
    near = scaled.abs() < NEAR_POLE
    wide = (torch.sin(math.pi * nearest) / math.pi)[..., None] / torch.where(near, 1.0, scaled)
    limits = torch.where(lobes == 0, 1.0, torch.where(lobes.abs() == 1, -0.5, 0.0))
    return torch.where(near, limits.expand_as(distance), wide)


def _noise_spread() -> Tensor:
    """Return the share of each band's power in each bin of the synthesis spectrum, (BANDS, bins)."""
    bins = SYNTHESIS_WINDOW // 2 + 1
    width = SAMPLE_RATE / SYNTHESIS_WINDOW
    lows = (torch.arange(bins) - 0.5) * width
    overlap = torch.minimum(EDGES[1:, None], lows + width) - torch.maximum(EDGES[:-1, None], lows)
    overlap = overlap.clamp_min(0)
    return overlap / overlap.sum(1, keepdim=True)


NOISE_SPREAD = _noise_spread()


def synthesise(frames: Frames, samples: int, seed: int = 0, circle: bool = False) -> Tensor:
    """Render one sound's frames to audio, (2, samples).

    A circle has all its frames in exactly these samples, a little nearer or farther apart than elsewhere, and its end
    continues at its beginning. A steady tone then has the nearest frequency that fits into the circle.
    """
    count = len(frames.energy)
    hop = samples / count if circle else HOP
    starts = (torch.arange(count + 1) * hop).round().long()
    amplitudes, noise = _amplitudes(frames)
    hertz = frames.hertz()
    phases = _phases(amplitudes, hertz, seed, starts, circle)
    balance = frames.balance.repeat_interleave(GROUP, -1)
    width = frames.width.repeat_interleave(GROUP, -1).clamp(0, 1)
    gains = torch.stack(((1 - balance) / 2, (1 + balance) / 2)).clamp_min(0).sqrt()
    apart = torch.arccos(1 - 0.98 * width) / 2 * (1 - 2 * (torch.arange(BANDS) % 2))
    turns = torch.polar(torch.ones_like(apart), apart)
    tones = torch.stack((phases * turns, phases * turns.conj())) * (amplitudes * gains)
    tones += _narrow_noise(noise, hertz, gains, width, seed, hop, circle)
    generator = torch.Generator().manual_seed(seed)
    sum_of = _CircularSum(starts[:-1], samples) if circle else _LinearSum(count, samples)
    for first in range(0, count, BLOCK_FRAMES):
        block = slice(first, first + BLOCK_FRAMES)
        spectrum = _noise(noise[block], gains[:, block], width[block], generator)
        _add_tones(spectrum, tones[:, block], hertz[block])
        sum_of.add(first, torch.fft.irfft(spectrum, SYNTHESIS_WINDOW))
    return sum_of.audio()


class _LinearSum:
    """Sum of windows at multiples of HOP."""

    def __init__(self, count: int, samples: int) -> None:
        self._samples = samples
        self._sum = torch.zeros(2, SYNTHESIS_WINDOW + HOP * (count - 1))

    def add(self, first: int, pieces: Tensor) -> None:
        """Add the windows (2, frames, SYNTHESIS_WINDOW) from a frame on."""
        length, total = SYNTHESIS_WINDOW, SYNTHESIS_WINDOW + HOP * (pieces.shape[1] - 1)
        summed = torch.nn.functional.fold(pieces.transpose(1, 2), (1, total), (1, length), stride=(1, HOP))
        self._sum[:, first * HOP : first * HOP + total] += summed[:, 0, 0]

    def audio(self) -> Tensor:
        """Return (2, samples) from the middle of the first window on."""
        audio = self._sum[:, SYNTHESIS_WINDOW // 2 :]
        return torch.nn.functional.pad(audio, (0, max(0, self._samples - audio.shape[1])))[:, : self._samples]


class _CircularSum:
    """Sum of windows that are centred on their starts around a circle."""

    def __init__(self, starts: Tensor, samples: int) -> None:
        self._starts, self._samples = starts, samples
        self._sum, self._weight = torch.zeros(2, samples), torch.zeros(samples)

    def add(self, first: int, pieces: Tensor) -> None:
        """Add the windows (2, frames, SYNTHESIS_WINDOW) from a frame on."""
        length, starts = SYNTHESIS_WINDOW, self._starts[first : first + pieces.shape[1]]
        positions = ((starts[:, None] + torch.arange(length) - length // 2) % self._samples).flatten()
        self._weight.index_add_(0, positions, torch.hann_window(length).repeat(len(starts)))
        self._sum.index_add_(1, positions, pieces.flatten(1))

    def audio(self) -> Tensor:
        """Return (2, samples)."""
        return self._sum * (SYNTHESIS_WINDOW / 2 / HOP / self._weight.clamp_min(0.5))


def _add_tones(spectrum: Tensor, tones: Tensor, hertz: Tensor) -> None:
    """Add the main lobes of windowed oscillators to (2, frames, bins), for complex amplitudes at mid frame."""
    length = SYNTHESIS_WINDOW
    bins = length // 2 + 1
    position = hertz * (length / SAMPLE_RATE)
    nearest = position.round()
    lobes = torch.arange(-LOBE_BINS, LOBE_BINS + 1)
    index = nearest.long()[..., None] + lobes
    # a Hann window sums to half its length, and windows that overlap by three quarters sum to 2
    shape = _lobes(nearest - position, lobes)
    values = (tones * ((1 - 2 * (nearest % 2)) * (length / 4 / 2)))[..., None] * shape
    values = torch.where(index < 0, values.conj(), values).flatten(2)
    flat = index.abs().clamp_max(bins - 1).flatten(1)[None, :, :, None].expand(2, -1, -1, 2)
    torch.view_as_real(spectrum).scatter_add_(2, flat, torch.view_as_real(values))


NARROW_HERTZ = 80.0
NARROW_BANDS = int((2 * HALF_WIDTHS < NARROW_HERTZ).sum())
"""Number of low bands narrower than the synthesis window's main lobe. Their noise is a slowly changing oscillator."""


def _narrow_noise(
    powers: Tensor, hertz: Tensor, gains: Tensor, width: Tensor, seed: int, hop: float, circle: bool
) -> Tensor:
    """Return complex amplitudes (2, frames, bands) of oscillators with random modulation of their band's width."""
    count = len(powers)
    size = count if circle else count + 64
    generator = torch.Generator().manual_seed(seed + 1)
    white = torch.randn(3, size, NARROW_BANDS, 2, generator=generator)
    rates = torch.fft.fftfreq(size, hop / SAMPLE_RATE)[:, None]
    inside = (rates.abs() <= HALF_WIDTHS[:NARROW_BANDS].clamp_min(SAMPLE_RATE / hop / size)).float()
    inside = inside * (size / inside.sum(0)).sqrt()
    shared, *own = torch.fft.ifft(torch.fft.fft(torch.view_as_complex(white), dim=1) * inside, dim=1)[:, :count]
    turned = 2 * math.pi * torch.cumsum(hertz[:, :NARROW_BANDS].double() * (hop / SAMPLE_RATE), 0)
    if circle:
        whole = (turned[-1] / (2 * math.pi)).round() * 2 * math.pi
        turned = turned + (whole - turned[-1]) * (torch.arange(1, count + 1) / count)[:, None]
    carrier = torch.polar(torch.ones_like(turned), turned).to(torch.complex64)
    level = powers[:, :NARROW_BANDS].sqrt() * carrier
    apart = width[:, :NARROW_BANDS]
    sides = [(1 - apart).sqrt() * shared + apart.sqrt() * each for each in own]
    narrow = torch.stack(sides) * level * gains[..., :NARROW_BANDS]
    return torch.nn.functional.pad(narrow, (0, BANDS - NARROW_BANDS))


def _noise(powers: Tensor, gains: Tensor, width: Tensor, generator: torch.Generator) -> Tensor:
    """Return the spectrum of windowed noise with the bands' powers, (2, frames, bins)."""
    length, bins = SYNTHESIS_WINDOW, SYNTHESIS_WINDOW // 2 + 1
    white = torch.randn(3, len(powers), length, generator=generator)
    window = torch.hann_window(length)
    shared, *own = torch.fft.rfft(white * window)
    # squares of Hann windows that overlap by three quarters sum to 1.5
    scale = 1 / math.sqrt(1.5)
    powers = torch.nn.functional.pad(powers[:, NARROW_BANDS:], (NARROW_BANDS, 0))
    spread = NOISE_SPREAD * (bins - 1)
    spectra: list[Tensor] = []
    for side in (0, 1):
        level = powers * gains[side].square()
        common = ((level * (1 - width)) @ spread).sqrt()
        apart = ((level * width) @ spread).sqrt()
        spectra.append(scale * (common * shared + apart * own[side]))
    return torch.stack(spectra)


MIXED_RANGE_DB = 70.0
"""Energies farther below a sound's maximum are raised to this level before they are mixed."""


def mix_frames(first: Frames, second: Frames, share: float) -> Frames:
    """Return a sound between two of equal length, nearer to the second the larger the share, 0 to 1.

    Energies are interpolated in decibels, so that what both sounds have is heard most; all else by the energies. The
    loudest frame has the interpolated level of both loudest frames.
    """
    energies = [part.energy.clamp_min(float(part.energy.max()) - MIXED_RANGE_DB) for part in (first, second)]
    energy = torch.lerp(energies[0], energies[1], share)
    levels = [loudest_level(part) for part in (first.energy, second.energy, energy)]
    wanted = (1 - share) * levels[0] + share * levels[1]
    powers = [(1 - share) * 10 ** (first.energy / 10), share * 10 ** (second.energy / 10)]
    weight = powers[1] / (powers[0] + powers[1] + 1e-20)
    groups = [power.unflatten(-1, (GROUPS, GROUP)).sum(-1) for power in powers]
    group_weight = groups[1] / (groups[0] + groups[1] + 1e-20)
    return Frames(
        (energy + wanted - levels[2]).clamp_min(FLOOR_DB),
        torch.lerp(first.offset, second.offset, weight),
        torch.lerp(first.tonality, second.tonality, weight),
        torch.lerp(first.balance, second.balance, group_weight),
        torch.lerp(first.width, second.width, group_weight),
    )


def frame_powers(energy: Tensor) -> Tensor:
    """Return the power of each frame, (frames,), of energies in decibels, (frames, BANDS)."""
    return (10 ** (energy / 10)).sum(-1)


def loudest_level(energy: Tensor) -> float:
    """Return the level of the loudest frame of (frames, BANDS) in decibels."""
    return float(10 * torch.log10(frame_powers(energy).max()))


def mean_level(energy: Tensor) -> float:
    """Return the level of the mean power of (frames, BANDS) in decibels."""
    return float(10 * torch.log10(frame_powers(energy).mean()))


def join_frames(first: Frames, second: Frames, count: int) -> Frames:
    """Return the first `count` frames of a sound, and another sound after them."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Frames(*(torch.cat((before[:count], after)) for before, after in pairs))


def replace_frames(frames: Frames, other: Frames, mask: Tensor) -> Frames:
    """Return a sound with the bands of another where the mask, (frames, BANDS), is 1."""
    groups = mask.unflatten(-1, (GROUPS, GROUP)).amin(-1) > 0
    bands = mask > 0
    return Frames(
        torch.where(bands, other.energy, frames.energy),
        torch.where(bands, other.offset, frames.offset),
        torch.where(bands, other.tonality, frames.tonality),
        torch.where(groups, other.balance, frames.balance),
        torch.where(groups, other.width, frames.width),
    )
