"""The note that a prompt names, and its harmonics in the vocoder's spectrum."""

import math
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from timbred.caches import ByteCache
from timbred.engine.codecs.mel import Analysis, filter_bank, frame_power
from timbred.engine.device import count_tensor_bytes
from timbred.ipc.engine_messages import PromptInputs

SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
ACCIDENTAL_SEMITONES = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}

LOWEST_MIDI_NOTE, HIGHEST_MIDI_NOTE = 24, 96
"""Range of MIDI notes that are recognised: c1 to c7."""

_NOTE_PATTERN = re.compile(r"(?<![\w#♯♭])([a-g])([#♯b♭]?)(\d)(?![\w#♯♭])", re.IGNORECASE)
_GLIDE_PATTERN = re.compile(
    r"\b(falling|falls|rising|rises|sliding|slides|gliding|glides|going (up|down)|sweep\w*|siren)\b", re.I
)


@dataclass(frozen=True)
class NamedNote:
    """Pitch that a prompt names in Hz, and its share of the sound, 0 to 1."""

    hertz: float
    share: float = 1.0


def named_note(inputs: PromptInputs) -> NamedNote | None:
    """Return the note that a request names.

    Between two prompts with a note it is the interpolated pitch; with one note its share follows the mix, so that
    either end equals the single prompt.
    """
    share = inputs.mix if inputs.prompt2 else 0.0
    first, second = note_hertz(inputs.prompt), note_hertz(inputs.prompt2) if inputs.prompt2 else None
    if first is not None and second is not None:
        return NamedNote(first * (second / first) ** share)
    if first is not None and share < 1.0:
        return NamedNote(first, 1.0 - share)
    return NamedNote(second, share) if second is not None and share > 0.0 else None


def note_hertz(prompt: str) -> float | None:
    """Return the frequency of the note that a prompt names, a4 = 440 Hz; None without one constant note.

    >>> note_hertz("a warm organ on A3")
    220.0
    >>> note_hertz("a kick drum") is note_hertz("bass c2 to e2") is note_hertz("bass c2, falling") is None
    True
    """
    notes = {_midi(*groups) for groups in _NOTE_PATTERN.findall(prompt)}
    if len(notes) != 1 or _GLIDE_PATTERN.search(prompt):
        return None
    (note,) = notes
    return 440.0 * 2.0 ** ((note - 69) / 12) if LOWEST_MIDI_NOTE <= note <= HIGHEST_MIDI_NOTE else None


def _midi(letter: str, sign: str, octave: str) -> int:
    return SEMITONES[letter.lower()] + ACCIDENTAL_SEMITONES[sign.lower()] + 12 * (int(octave) + 1)


HARMONICS_FADE_FROM_HZ, HIGHEST_HARMONIC_HZ = 3000.0, 6000.0
"""Frequency in Hz above which harmonics fade to the vocoder's own output, and their upper limit.

Listeners don't hear the pitch of higher harmonics, which are more often breath than tone.
"""

FIT_ITERATIONS = 4
"""Iterations of the level fit."""

MAX_HARMONIC_GAIN = 2.0
"""Largest gain applied to harmonics to reach the level of the whole spectrogram."""

MIN_DIVISOR_POWER = 1e-10
"""Smallest power used as a divisor."""

SILENT_BAND_POWER = 10**-7.0
"""Power of a silent band (-70 dB); the spectrogram ends at -80 dB."""

ONSET_RISE_DB, ONSET_RAMP_DB = 6.0, 12.0
"""Rise in dB between frames from which the vocoder's own output is used, and the further rise until only it is used."""

SILENT_LEVEL_DB = -70.0
"""Level of a silent frame in dB."""

ONSET_FRAMES = 2
"""Frames around an onset that count as part of it."""

MAX_HARMONICS_BYTES = 8_000_000
"""Size of the cache of harmonics; one note takes 0.05 to 3 MB, and each loop length has an entry of its own."""

PHASE_SPREAD_TURNS = 0.618
"""Phase of a harmonic in turns, times the square of its order; in phase, harmonics would click in each period."""


@dataclass(frozen=True)
class Note:
    """Pitch in Hz and share of the sound, 0 to 1.

    In a circle of `circle_frames` frames each harmonic completes a whole number of turns; 0 is for audio with an end.
    """

    hertz: float
    circle_frames: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class Harmonics:
    """Level-independent data of a note's harmonics.

    Attributes:
        turns_per_frame: Turns a frame, (harmonics,), float64.
        lobes: Lobes in the vocoder's spectrum, (harmonics, bins).
        band_power: Power in mel bands, (harmonics, bands).
        harmonic_share: Tonal share of each harmonic, 0 to 1.
        bin_share: Tonal share of each bin, 0 to 1.
        band_share: Tonal share of each band, 0 to 1.
    """

    turns_per_frame: Tensor
    lobes: Tensor
    band_power: Tensor
    harmonic_share: Tensor
    bin_share: Tensor
    band_share: Tensor


def replace_harmonics(
    magnitude: Tensor, phase: Tensor, mel: Tensor, frame_numbers: Tensor, note: Note, analysis: Analysis
) -> Tensor:
    """Replace the harmonics in a vocoder's spectrum by those of a note: complex, (batch, frames, bins).

    `magnitude` and `phase` are the vocoder's for the log mel (batch, frames, bands); `frame_numbers`, (frames,), are
    counted from the start of the whole clip.
    """
    fft_size = 2 * (magnitude.shape[-1] - 1)
    harmonics = harmonics_of(replace(note, share=1.0), analysis, fft_size, mel.device)
    mel = mel.float()
    steady = note.share * (1.0 - _onset_strength(mel, analysis)[..., None])
    level = fit_levels(mel, harmonics) * (harmonics.harmonic_share * steady).sqrt() * (fft_size / 4.0)
    angle = (2.0 * math.pi * torch.frac(_phase_turns(frame_numbers.cpu(), harmonics.turns_per_frame))).to(
        mel.device, torch.float32
    )
    vocoder_magnitude = magnitude * (1.0 - harmonics.bin_share * steady).sqrt()
    real = vocoder_magnitude * torch.cos(phase) + (level * torch.cos(angle)) @ harmonics.lobes
    return torch.complex(real, vocoder_magnitude * torch.sin(phase) + (level * torch.sin(angle)) @ harmonics.lobes)


def fit_levels(mel: Tensor, harmonics: Harmonics) -> Tensor:
    """Fit the amplitudes of harmonics to a log mel (batch, frames, bands): (batch, frames, harmonics).

    Multiplicative updates by the ratio of the bands' power to what the harmonics explain.
    """
    target = (torch.exp((mel - 1.0) * -math.log(1e-4)) - SILENT_BAND_POWER).clamp(min=0.0)
    response, response_sum = harmonics.band_power, harmonics.band_power.sum(dim=-1)
    power = (target @ response.T) / response.square().sum(dim=-1)
    for _ in range(FIT_ITERATIONS):
        power = power * ((target / (power @ response).clamp(min=MIN_DIVISOR_POWER)) @ response.T) / response_sum
    power_ratio = (target @ harmonics.band_share) / ((power @ response) @ harmonics.band_share).clamp(
        min=MIN_DIVISOR_POWER
    )
    return power.sqrt() * power_ratio.sqrt().clamp(1.0, MAX_HARMONIC_GAIN)[..., None]


def harmonics_of(note: Note, analysis: Analysis, fft_size: int, device: torch.device) -> Harmonics:
    """Return the cached harmonics of a note for an analysis and a transform length."""
    return _harmonics_cache.get(
        (note, analysis, fft_size, device), lambda: _compute_harmonics(note, analysis, fft_size, device)
    )


def _count_bytes(harmonics: Harmonics) -> int:
    return count_tensor_bytes(vars(harmonics).values())


_harmonics_cache: ByteCache[tuple[Note, Analysis, int, torch.device], Harmonics] = ByteCache(
    MAX_HARMONICS_BYTES, _count_bytes
)


@torch.inference_mode(mode=False)
def _compute_harmonics(note: Note, analysis: Analysis, fft_size: int, device: torch.device) -> Harmonics:
    hertz = frequencies(note, analysis)
    bank = filter_bank(analysis).double()
    analysis_bins = torch.arange(bank.shape[0], dtype=torch.float64)
    band_magnitude = hann_lobe(analysis_bins - hertz[:, None] * (analysis.fft / analysis.rate)).abs() @ bank
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)
    lobes = hann_lobe(bins - hertz[:, None] * (fft_size / analysis.rate)) * (1.0 - 2.0 * (bins % 2))
    return Harmonics(
        turns_per_frame=hertz * (analysis.hop / analysis.rate),
        lobes=lobes.to(device, torch.float32),
        band_power=band_magnitude.square().to(device, torch.float32),
        harmonic_share=_tonal_share(hertz).to(device),
        bin_share=_tonal_share(bins * (analysis.rate / fft_size)).to(device),
        band_share=_tonal_share(bank.argmax(dim=0) * (analysis.rate / analysis.fft)).to(device),
    )


def frequencies(note: Note, analysis: Analysis) -> Tensor:
    """Return the frequencies of a note's harmonics in Hz, (harmonics,), float64."""
    hertz = torch.arange(1, max(1, int(HIGHEST_HARMONIC_HZ / note.hertz)) + 1, dtype=torch.float64) * note.hertz
    if not note.circle_frames:
        return hertz
    seconds = note.circle_frames * analysis.hop / analysis.rate
    return (hertz * seconds).round().clamp(min=1.0) / seconds


def _phase_turns(frame_numbers: Tensor, turns_per_frame: Tensor) -> Tensor:
    """Return the phase of each harmonic in turns at these frames, (frames, harmonics), float64."""
    orders = torch.arange(1, len(turns_per_frame) + 1, dtype=torch.float64)
    return frame_numbers.double()[:, None] * turns_per_frame + PHASE_SPREAD_TURNS * orders.square()


def hann_lobe(distance: Tensor) -> Tensor:
    """Return the spectrum of a Hann window at a distance in bins from its centre, where it is 1."""
    gap = 1.0 - distance.square()
    removable = gap.abs() < 1e-6
    return torch.where(
        removable, torch.full_like(distance, 0.5), torch.sinc(distance) / gap.masked_fill(removable, 1.0)
    )


def _tonal_share(hertz: Tensor) -> Tensor:
    """Return the tonal share at these frequencies, 0 to 1, float32."""
    return ((HIGHEST_HARMONIC_HZ - hertz) / (HIGHEST_HARMONIC_HZ - HARMONICS_FADE_FROM_HZ)).clamp(0.0, 1.0).float()


def _onset_strength(mel: Tensor, analysis: Analysis) -> Tensor:
    """Return how much each frame of (batch, frames, bands) is an onset, 0 to 1: (batch, frames)."""
    level = 10.0 * torch.log10(frame_power(mel, analysis) + 10 ** (SILENT_LEVEL_DB / 10.0))
    rises = level - torch.nn.functional.pad(level, (1, 0), value=SILENT_LEVEL_DB)[:, :-1]
    onsets = ((rises - ONSET_RISE_DB) / ONSET_RAMP_DB).clamp(0.0, 1.0)
    return torch.nn.functional.max_pool1d(onsets[:, None], 2 * ONSET_FRAMES + 1, 1, ONSET_FRAMES)[:, 0]
