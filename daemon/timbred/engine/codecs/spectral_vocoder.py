"""Vocoder of the embedded model: log mel to audio by ConvNeXt blocks at frame rate and an inverse STFT.

After Vocos (Siuzdak 2023, arXiv 2306.00814), with pseudo-random noise channels beside the mel, so that noise does not
repeat with each frame. It replaces `SpeechT5HifiGan` in `AudioLDM2Pipeline`, which reads the `config` attributes
`model_in_dim`, `sampling_rate` and `upsample_rates`.

If a prompt names a note, the harmonics in the vocoder's spectrum are replaced by those of the note.
"""

import math
import re
from dataclasses import dataclass, replace

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from timbred.engine.codecs.mel import Analysis, analysis_of, filter_bank, frame_power
from timbred.engine.device import count_tensor_bytes
from timbred.ipc.engine_messages import PromptInputs
from timbred.process_memory import ByteCache

SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
ACCIDENTAL_SEMITONES = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}

LOWEST_MIDI_NOTE, HIGHEST_MIDI_NOTE = 24, 96
"""Range of MIDI notes that are recognised: c1 to c7."""

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

_NOTE_PATTERN = re.compile(r"(?<![\w#♯♭])([a-g])([#♯b♭]?)(\d)(?![\w#♯♭])", re.IGNORECASE)
_GLIDE_PATTERN = re.compile(
    r"\b(falling|falls|rising|rises|sliding|slides|gliding|glides|going (up|down)|sweep\w*|siren)\b", re.I
)


@dataclass(frozen=True)
class NamedNote:
    """Pitch that a prompt names in Hz, and its share of the sound, 0 to 1."""

    hertz: float
    share: float = 1.0

    def in_circle(self, frames: int) -> "Note":
        """Return the note in a circle of some frames; 0 is for audio with an end."""
        return Note(self.hertz, frames, self.share)


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
    rises = level - nn.functional.pad(level, (1, 0), value=SILENT_LEVEL_DB)[:, :-1]
    onsets = ((rises - ONSET_RISE_DB) / ONSET_RAMP_DB).clamp(0.0, 1.0)
    return nn.functional.max_pool1d(onsets[:, None], 2 * ONSET_FRAMES + 1, 1, ONSET_FRAMES)[:, 0]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time and a pointwise network with a residual connection, (batch, channels, frames)."""

    def __init__(self, channels: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        update = self.norm(self.depthwise(hidden_states).transpose(1, 2))
        update = self.contract(nn.functional.gelu(self.expand(update)))
        return hidden_states + (self.scale * update).transpose(1, 2)


class SpectralVocoder(ModelMixin, ConfigMixin):
    """Log mel frames to samples.

    Args:
        model_in_dim: mel bands.
        sampling_rate: samples a second of the sound, in hertz.
        upsample_rates: samples per mel frame as a product, as the pipeline reads it.
        channels: width of the blocks.
        hidden: width inside the blocks.
        blocks: number of blocks; a sample depends on 3 * (blocks + 1) frames either side, and on the window.
        fft_size: length of the inverse transform in samples.
        noise_channels: pseudo-random channels beside the mel.
        noise_frames: after so many frames the noise repeats.
    """

    @register_to_config
    def __init__(
        self,
        model_in_dim: int = 64,
        sampling_rate: int = 32_000,
        upsample_rates: tuple[int, ...] = (8, 8, 5),
        channels: int = 256,
        hidden: int = 640,
        blocks: int = 6,
        fft_size: int = 1280,
        noise_channels: int = 16,
        noise_frames: int = 1024,
    ) -> None:
        super().__init__()
        self.hop = int(torch.tensor(upsample_rates).prod())
        self.fft_size = fft_size
        noise = torch.randn(noise_frames, noise_channels, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", noise)
        self.embed = nn.Conv1d(model_in_dim + noise_channels, channels, 7, padding=3)
        self.norm = nn.LayerNorm(channels, eps=1e-5)
        self.layers = nn.ModuleList(ConvNeXtBlock(channels, hidden, 1 / blocks) for _ in range(blocks))
        self.final_norm = nn.LayerNorm(channels, eps=1e-5)
        self.head = nn.Linear(channels, 2 * (fft_size // 2 + 1))

    def forward(self, mel: Tensor, frame_numbers: Tensor | None = None, note: Note | None = None) -> Tensor:
        """Render audio.

        Args:
            mel: (batch, frames, bands) or (frames, bands), as `training.mel.log_mel` scales it.
            frame_numbers: Frame numbers in the whole clip, (frames,), so that pieces use the same noise as the whole;
                by default from 0.
            note: Pitch of the tones; by default multiples of the frame rate, as the network generates them.

        Returns:
            Samples, (batch, frames * hop) or (frames * hop,), about -1 to 1.
        """
        batch = mel if mel.dim() == 3 else mel[None]
        frames = torch.arange(batch.shape[1], device=batch.device) if frame_numbers is None else frame_numbers
        noise = self.noise[frames % self.noise.shape[0]].to(batch.dtype)
        magnitude, phase = self.polar(batch, noise.expand(batch.shape[0], -1, -1))
        if note is None:
            spectrum = _complex(magnitude, phase)
        else:
            spectrum = replace_harmonics(magnitude, phase, batch, frames, note, analysis_of(self))
        samples = self.overlap_add(spectrum)
        return samples if mel.dim() == 3 else samples[0]

    def synthesize(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Run `forward` with given noise, (batch, frames, noise channels), for training."""
        return self.overlap_add(_complex(*self.polar(mel, noise)))

    def polar(self, mel: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return magnitude and phase of the spectrum, each (batch, frames, bins)."""
        states = self.embed(torch.cat((mel, noise), dim=-1).transpose(1, 2))
        states = self.norm(states.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            states = layer(states)
        magnitude, phase = self.head(self.final_norm(states.transpose(1, 2))).float().chunk(2, dim=-1)
        return torch.exp(magnitude.clamp(max=6.0)), phase

    def overlap_add(self, spectrum: Tensor) -> Tensor:
        """Apply the inverse transform to (batch, frames, bins), with Hann windows: (batch, frames * hop)."""
        window = torch.hann_window(self.fft_size, device=spectrum.device)
        pieces = torch.fft.irfft(spectrum, self.fft_size, dim=-1) * window
        squared = window.square().expand(1, pieces.shape[1], -1)
        pad = (self.fft_size - self.hop) // 2
        total, weight = self._fold(pieces), self._fold(squared)
        return total[:, pad:-pad] / weight[:, pad:-pad].clamp(min=1e-6)

    def _fold(self, pieces: Tensor) -> Tensor:
        """Add up (batch, frames, fft_size) at steps of `hop`: (batch, (frames - 1) * hop + fft_size)."""
        batch, frames, size = pieces.shape
        overlap = -(-size // self.hop)
        padded = nn.functional.pad(pieces, (0, overlap * self.hop - size)).view(batch, frames, overlap, self.hop)
        total = pieces.new_zeros(batch, frames + overlap - 1, self.hop)
        for index in range(overlap):
            total = total + nn.functional.pad(padded[:, :, index], (0, 0, index, overlap - 1 - index))
        return total.reshape(batch, -1)[:, : (frames - 1) * self.hop + size]


def _complex(magnitude: Tensor, phase: Tensor) -> Tensor:
    return torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
