"""The note that a prompt names."""

import math
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from timbred.caches import ByteCache
from timbred.engine.codecs.mel import Analysis, energy, filter_bank
from timbred.engine.tensor_sizes import count_tensor_bytes
from timbred.ipc.engine_messages import PromptInputs

SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
SIGNS = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}

LOWEST, HIGHEST = 24, 96
"""MIDI notes from which and up to which a named one is played: c1 to c7."""

_NAMED = re.compile(r"(?<![\w#♯♭])([a-g])([#♯b♭]?)(\d)(?![\w#♯♭])", re.IGNORECASE)
_MOVING = re.compile(
    r"\b(falling|falls|rising|rises|sliding|slides|gliding|glides|going (up|down)|sweep\w*|siren)\b", re.I
)


@dataclass(frozen=True)
class NamedNote:
    """The pitch that words name in hertz, and how much of the sound has it, 0..1."""

    hertz: float
    share: float = 1.0


def named_note(words: PromptInputs) -> NamedNote | None:
    """The note that a request names. Between two prompts that both name one it is the pitch between both; where only
    one does, it has as much of the sound as that prompt: at either end the sound is that of the plain prompt.
    """
    share = words.mix if words.prompt2 else 0.0
    first, second = note_hertz(words.prompt), note_hertz(words.prompt2) if words.prompt2 else None
    if first is not None and second is not None:
        return NamedNote(first * (second / first) ** share)
    if first is not None and share < 1.0:
        return NamedNote(first, 1.0 - share)
    return NamedNote(second, share) if second is not None and share > 0.0 else None


def note_hertz(prompt: str) -> float | None:
    """The frequency of the note that a prompt names, a4 = 440 Hz; None where it names none, or several, or one that
    isn't to stay as it is.

    >>> note_hertz("a warm organ on A3")
    220.0
    >>> note_hertz("a kick drum") is note_hertz("bass c2 to e2") is note_hertz("bass c2, falling") is None
    True
    """
    found = {_midi(*groups) for groups in _NAMED.findall(prompt)}
    if len(found) != 1 or _MOVING.search(prompt):
        return None
    (note,) = found
    return 440.0 * 2.0 ** ((note - 69) / 12) if LOWEST <= note <= HIGHEST else None


def _midi(letter: str, sign: str, octave: str) -> int:
    return SEMITONES[letter.lower()] + SIGNS[sign.lower()] + 12 * (int(octave) + 1)


HARMONICS_FADE_FROM_HZ, HIGHEST_HARMONIC_HZ = 3000.0, 6000.0
"""Hertz from which on harmonics give way to what the vocoder makes, and up to which there are any: ears don't tell the
pitch of higher ones, and they are more often breath than tone."""

FITTED = 4
"""Times that the levels of harmonics are corrected by what the bands are."""

LOUDER = 2.0
"""How many times louder harmonics are made at most to be as loud as the whole spectrogram."""

FAINTEST = 1e-10
"""The least power that something is divided by."""

FLOOR = 10**-7.0
"""Power of a band in which nothing is heard, however long it lasts (-70 dB): the spectrogram ends at -80."""

STRUCK, RISE = 6.0, 12.0
"""Decibels that a frame is louder than the one before, from which on it is the vocoder's, and how many more make it so
altogether: the beginning of a sound is no tone yet."""

SILENT = -70.0
"""Decibels of a frame in which nothing is heard."""

BEGINS = 2
"""Frames around it that are its beginning, too."""

MAX_HARMONICS_BYTES = 8_000_000
"""Bytes of notes' harmonics that are kept; one note takes 0.05 to 3 MB. Each length of a loop has its own."""

SPREAD = 0.618
"""The part of a turn by which the harmonics' phases differ at first, times the square of their order: together, they
would make a click of each period."""


@dataclass(frozen=True)
class Note:
    """A pitch in hertz, and how much of the sound has it, 0..1. In a circle of `around` frames each harmonic turns a
    whole number of times; 0 is for a sound that has an end."""

    hertz: float
    around: int = 0
    share: float = 1.0


@dataclass(frozen=True)
class Harmonics:
    """What is true of a note's harmonics whatever they sound like: `turns` a frame, (harmonics,), float64; their
    `lobes` in a vocoder's spectrum, (harmonics, bins); the power with which they are heard in mel bands, `heard`,
    (harmonics, bands); how much of each `harmonic`, `bin` and `band` is a tone, 0..1."""

    turns: Tensor
    lobes: Tensor
    heard: Tensor
    harmonic: Tensor
    bin: Tensor
    band: Tensor


def with_tones(magnitude: Tensor, phase: Tensor, mel: Tensor, places: Tensor, note: Note, analysis: Analysis) -> Tensor:
    """The spectrum of a vocoder whose harmonics are those of a note: complex, (batch, frames, bins).

    `magnitude` and `phase` are what the vocoder makes of the log mel (batch, frames, bands); `places` says which frames
    of the whole these are, (frames,).
    """
    fft_size = 2 * (magnitude.shape[-1] - 1)
    harmonics = harmonics_of(replace(note, share=1.0), analysis, fft_size, mel.device)
    mel = mel.float()
    steady = note.share * (1.0 - _begins(mel, analysis)[..., None])
    level = levels(mel, harmonics) * (harmonics.harmonic * steady).sqrt() * (fft_size / 4.0)
    turn = (2.0 * math.pi * torch.frac(_turned(places.cpu(), harmonics.turns))).to(mel.device, torch.float32)
    own = magnitude * (1.0 - harmonics.bin * steady).sqrt()
    real = own * torch.cos(phase) + (level * torch.cos(turn)) @ harmonics.lobes
    return torch.complex(real, own * torch.sin(phase) + (level * torch.sin(turn)) @ harmonics.lobes)


def levels(mel: Tensor, harmonics: Harmonics) -> Tensor:
    """The amplitudes of harmonics that explain a log mel (batch, frames, bands) best, (batch, frames, harmonics):
    corrected again and again by how far the bands that they are heard in lie above what they explain."""
    wanted = (torch.exp((mel - 1.0) * -math.log(1e-4)) - FLOOR).clamp(min=0.0)
    response, whole = harmonics.heard, harmonics.heard.sum(dim=-1)
    power = (wanted @ response.T) / response.square().sum(dim=-1)
    for _ in range(FITTED):
        power = power * ((wanted / (power @ response).clamp(min=FAINTEST)) @ response.T) / whole
    lacking = (wanted @ harmonics.band) / ((power @ response) @ harmonics.band).clamp(min=FAINTEST)
    return power.sqrt() * lacking.sqrt().clamp(1.0, LOUDER)[..., None]


def harmonics_of(note: Note, analysis: Analysis, fft_size: int, device: torch.device) -> Harmonics:
    """The harmonics of a note, for an analysis and the bins of a vocoder's transform."""
    return _harmonics.get((note, analysis, fft_size, device), lambda: _new_harmonics(note, analysis, fft_size, device))


def _size_of(harmonics: Harmonics) -> int:
    return count_tensor_bytes(vars(harmonics).values())


_harmonics: ByteCache[tuple[Note, Analysis, int, torch.device], Harmonics] = ByteCache(MAX_HARMONICS_BYTES, _size_of)


@torch.inference_mode(mode=False)
def _new_harmonics(note: Note, analysis: Analysis, fft_size: int, device: torch.device) -> Harmonics:
    hertz = frequencies(note, analysis)
    bank = filter_bank(analysis).double()
    listened = torch.arange(bank.shape[0], dtype=torch.float64)
    heard = hann_lobe(listened - hertz[:, None] * (analysis.fft / analysis.rate)).abs() @ bank
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)
    lobes = hann_lobe(bins - hertz[:, None] * (fft_size / analysis.rate)) * (1.0 - 2.0 * (bins % 2))
    return Harmonics(
        turns=hertz * (analysis.hop / analysis.rate),
        lobes=lobes.to(device, torch.float32),
        heard=heard.square().to(device, torch.float32),
        harmonic=_tonal(hertz).to(device),
        bin=_tonal(bins * (analysis.rate / fft_size)).to(device),
        band=_tonal(bank.argmax(dim=0) * (analysis.rate / analysis.fft)).to(device),
    )


def frequencies(note: Note, analysis: Analysis) -> Tensor:
    """Those of a note's harmonics in hertz, (harmonics,), float64."""
    found = torch.arange(1, max(1, int(HIGHEST_HARMONIC_HZ / note.hertz)) + 1, dtype=torch.float64) * note.hertz
    if not note.around:
        return found
    seconds = note.around * analysis.hop / analysis.rate
    return (found * seconds).round().clamp(min=1.0) / seconds


def _turned(places: Tensor, turns: Tensor) -> Tensor:
    """How often harmonics have turned at these frames, (frames, harmonics), float64."""
    orders = torch.arange(1, len(turns) + 1, dtype=torch.float64)
    return places.double()[:, None] * turns + SPREAD * orders.square()


def hann_lobe(away: Tensor) -> Tensor:
    """The spectrum of a Hann window so many bins away from its middle, where it is 1."""
    gap = 1.0 - away.square()
    removable = gap.abs() < 1e-6
    return torch.where(removable, torch.full_like(away, 0.5), torch.sinc(away) / gap.masked_fill(removable, 1.0))


def _tonal(hertz: Tensor) -> Tensor:
    """How much of what lies at these frequencies is a tone, 0..1, float32."""
    return ((HIGHEST_HARMONIC_HZ - hertz) / (HIGHEST_HARMONIC_HZ - HARMONICS_FADE_FROM_HZ)).clamp(0.0, 1.0).float()


def _begins(mel: Tensor, analysis: Analysis) -> Tensor:
    """How much of a frame of (batch, frames, bands) is a beginning, 0..1: (batch, frames)."""
    level = 10.0 * torch.log10(energy(mel, analysis) + 10 ** (SILENT / 10.0))
    rises = level - torch.nn.functional.pad(level, (1, 0), value=SILENT)[:, :-1]
    struck = ((rises - STRUCK) / RISE).clamp(0.0, 1.0)
    return torch.nn.functional.max_pool1d(struck[:, None], 2 * BEGINS + 1, 1, BEGINS)[:, 0]
