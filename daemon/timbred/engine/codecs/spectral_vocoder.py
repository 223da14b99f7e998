"""Vocoder of the embedded model: log mel to audio by ConvNeXt blocks at frame rate and an inverse STFT.

After Vocos (Siuzdak 2023, arXiv 2306.00814), with pseudo-random noise channels beside the mel, so that noise does not
repeat with each frame. It replaces `SpeechT5HifiGan` in `AudioLDM2Pipeline`, which reads the `config` attributes
`model_in_dim`, `sampling_rate` and `upsample_rates`.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from timbred.engine.codecs.mel import analysis_of
from timbred.engine.codecs.note_synthesis import Note, replace_harmonics


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
