"""The codec: bands to latent vectors along time alone, 21.5 a second, and back."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.pocket.bands import BANDS, CHANNELS, GROUPS
from training.pocket.features import TOKEN_FRAMES


@dataclass(frozen=True)
class CodecSizes:
    """Widths and depths: frames (172 a second), half frames (86), tokens (21.5)."""

    latent: int = 64
    widths: tuple[int, int, int] = (256, 320, 512)
    encoder_blocks: tuple[int, int, int] = (1, 1, 1)
    decoder_blocks: tuple[int, int, int] = (1, 1, 2)
    expansion: int = 2


class Block(nn.Module):
    """Depthwise convolution over time, then two layers over channels, added to the input."""

    def __init__(self, width: int, expansion: int, kernel: int = 7) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, time, width) to the same."""
        mixed = self.mix(inputs.transpose(1, 2)).transpose(1, 2)
        return inputs + self.scale * self.narrow(nn.functional.gelu(self.widen(self.norm(mixed)), approximate="tanh"))


class Gather(nn.Module):
    """Join neighbouring steps into one."""

    def __init__(self, width: int, wider: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(width * factor, wider)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, time, width) to (batch, time / factor, wider)."""
        return self.join(self.norm(inputs).unflatten(1, (-1, self.factor)).flatten(2))


class Spread(nn.Module):
    """Make several steps of each."""

    def __init__(self, width: int, narrower: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.part = nn.Linear(width, narrower * factor)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, time, width) to (batch, time * factor, narrower)."""
        return self.part(inputs).unflatten(2, (self.factor, -1)).flatten(1, 2)


def _blocks(width: int, count: int, expansion: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, expansion) for _ in range(count)))


class Encoder(nn.Module):
    """Bands to means and log-variances."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        narrow, middle, wide = sizes.widths
        counts, expansion = sizes.encoder_blocks, sizes.expansion
        self.layers = nn.Sequential(
            nn.Linear(CHANNELS, narrow),
            _blocks(narrow, counts[0], expansion),
            Gather(narrow, middle, 2),
            _blocks(middle, counts[1], expansion),
            Gather(middle, wide, TOKEN_FRAMES // 2),
            _blocks(wide, counts[2], expansion),
            nn.LayerNorm(wide),
            nn.Linear(wide, 2 * sizes.latent),
        )

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, CHANNELS) to two of (batch, tokens, latent)."""
        mean, spread = self.layers(channels).float().chunk(2, -1)
        return mean, spread.clamp(-12, 4)


class Decoder(nn.Module):
    """Latent vectors to bands."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        narrow, middle, wide = sizes.widths
        counts, expansion = sizes.decoder_blocks, sizes.expansion
        self.layers = nn.Sequential(
            nn.Linear(sizes.latent, wide),
            _blocks(wide, counts[2], expansion),
            Spread(wide, middle, TOKEN_FRAMES // 2),
            _blocks(middle, counts[1], expansion),
            Spread(middle, narrow, 2),
            _blocks(narrow, counts[0], expansion),
            nn.LayerNorm(narrow),
            nn.Linear(narrow, CHANNELS),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, tokens, latent) to (batch, frames, CHANNELS), in the ranges of `Frames.stacked`."""
        raw = self.layers(latents).float()
        energy, offset, tonality, balance, width = raw.split((BANDS, BANDS, BANDS, GROUPS, GROUPS), -1)
        parts = (energy, torch.tanh(offset), torch.sigmoid(tonality), torch.tanh(balance), torch.sigmoid(width))
        return torch.cat(parts, -1)


class Codec(nn.Module):
    """Both halves."""

    def __init__(self, sizes: CodecSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or CodecSizes()
        self.encoder = Encoder(self.sizes)
        self.decoder = Decoder(self.sizes)

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction through sampled latents, their means and log-variances."""
        mean, spread = self.encoder(channels)
        latents = mean + torch.randn_like(mean) * (0.5 * spread).exp()
        return self.decoder(latents), mean, spread


def reconstruction_losses(made: Tensor, true: Tensor) -> dict[str, Tensor]:
    """What a listener would hear of the difference: each a mean over sounds and frames.

    Energies count by how near they are to the frame's and the stretch's loudest; offsets and tonalities by energy, and
    offsets by tonality too. Changes from frame to frame count beside levels, so that steady tones stay steady.
    """
    split = (BANDS, BANDS, BANDS, GROUPS, GROUPS)
    energy, offset, tonality, balance, width = made.split(split, -1)
    want_energy, want_offset, want_tonality, want_balance, want_width = true.split(split, -1)
    with torch.no_grad():
        # One unit of energy is 48 dB.
        loudest = want_energy.amax((1, 2), keepdim=True)
        local = want_energy.amax(2, keepdim=True)
        audible = torch.sigmoid(8 * (want_energy - 0.5 * (loudest + local) + 0.9))
        weight = 0.15 + audible * (1.0 + want_tonality)
        strong = torch.sigmoid(10 * (want_energy - loudest + 0.8)) * torch.sigmoid(10 * (want_energy - local + 0.7))
        tonal = strong * want_tonality.square()
    difference = energy - want_energy
    losses = {
        "energy": (weight * difference.abs()).mean() / weight.mean(),
        "energy square": (weight * difference.square()).mean() / weight.mean(),
        "offset": (tonal * (offset - want_offset).abs()).mean() / (tonal.mean() + 0.01),
        "tonality": ((strong + 0.05) * (tonality - want_tonality).abs()).mean() / (strong.mean() + 0.05),
        "balance": (balance - want_balance).abs().mean(),
        "width": (width - want_width).abs().mean(),
    }
    steady = tonal[:, 1:] * tonal[:, :-1]
    losses["change"] = (steady * difference.diff(dim=1).abs()).mean() / (steady.mean() + 0.01)
    return losses


LOSS_WEIGHTS = {
    "energy": 1.0,
    "energy square": 1.0,
    "offset": 0.4,
    "tonality": 0.25,
    "balance": 0.1,
    "width": 0.05,
    "change": 0.5,
}
