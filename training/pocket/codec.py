"""The codec: bands to latent vectors along time alone, 21.5 a second, and back.

Cells of 4 frames and 4 bands are joined and halved once more, so that each of 20 groups of bands has a few numbers in
every latent vector: what happens in a group is learned once for all of them, and quickly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.pocket.bands import BANDS, GROUP, GROUPS

CELL_FRAMES, CELL_BANDS = 4, 4
CELLS = BANDS // CELL_BANDS
CELL_NUMBERS = 3 * CELL_FRAMES * CELL_BANDS + 2 * CELL_FRAMES


@dataclass(frozen=True)
class CodecSizes:
    """Widths and depths for cells (43 a second in 40 rows) and groups (21.5 a second in 20 rows)."""

    group_latent: int = 12
    widths: tuple[int, int] = (64, 128)
    encoder_blocks: tuple[int, int] = (1, 2)
    decoder_blocks: tuple[int, int] = (2, 3)

    @property
    def latent(self) -> int:
        """Numbers in a latent vector."""
        return self.group_latent * GROUPS


def to_cells(channels: Tensor) -> Tensor:
    """(batch, frames, CHANNELS) to (batch, CELL_NUMBERS, frames / 4, 40)."""
    batch, frames = channels.shape[:2]
    times = frames // CELL_FRAMES
    bands, sides = channels[..., : 3 * BANDS], channels[..., 3 * BANDS :]
    bands = bands.reshape(batch, times, CELL_FRAMES, 3, CELLS, CELL_BANDS).permute(0, 3, 2, 5, 1, 4)
    sides = sides.reshape(batch, times, CELL_FRAMES, 2, GROUPS).permute(0, 3, 2, 1, 4)
    sides = sides.repeat_interleave(GROUP // CELL_BANDS, -1)
    return torch.cat((bands.flatten(1, 3), sides.flatten(1, 2)), 1)


def from_cells(cells: Tensor) -> Tensor:
    """(batch, frames, CHANNELS) of what `to_cells` gave; a group's sides are the mean over its cells."""
    batch, _, times, _ = cells.shape
    numbers = 3 * CELL_FRAMES * CELL_BANDS
    bands = cells[:, :numbers].reshape(batch, 3, CELL_FRAMES, CELL_BANDS, times, CELLS).permute(0, 4, 2, 1, 5, 3)
    sides = cells[:, numbers:].reshape(batch, 2, CELL_FRAMES, times, GROUPS, -1).mean(-1).permute(0, 3, 2, 1, 4)
    frames = times * CELL_FRAMES
    return torch.cat((bands.reshape(batch, frames, 3 * BANDS), sides.reshape(batch, frames, 2 * GROUPS)), -1)


class Block(nn.Module):
    """A convolution over neighbours, a layer over all rows, and a layer over channels, added to the input."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.near = nn.Conv2d(width, width, 3, padding=1)
        self.rows = nn.Linear(rows, rows, bias=False)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.rows.weight)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, width, times, rows) to the same."""
        normal = self.norm(inputs)
        return inputs + self.out(nn.functional.silu(self.near(normal) + self.rows(normal)))


def _blocks(width: int, rows: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, rows) for _ in range(count)))


class Encoder(nn.Module):
    """Bands to means and log-variances."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        fine, coarse = sizes.widths
        self.read = nn.Conv2d(CELL_NUMBERS, fine, 1)
        self.place = nn.Parameter(torch.randn(fine, 1, CELLS) * 0.1)
        self.fine = _blocks(fine, CELLS, sizes.encoder_blocks[0])
        self.halve = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse = _blocks(coarse, GROUPS, sizes.encoder_blocks[1])
        self.norm = nn.GroupNorm(8, coarse)
        self.write = nn.Conv2d(coarse, 2 * sizes.group_latent, 1)

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, CHANNELS) to two of (batch, tokens, latent)."""
        states = self.coarse(self.halve(self.fine(self.read(to_cells(channels)) + self.place)))
        written = self.write(nn.functional.silu(self.norm(states))).float()
        mean, spread = written.permute(0, 2, 3, 1).chunk(2, -1)
        return mean.flatten(2), spread.flatten(2).clamp(-12, 4)


class Decoder(nn.Module):
    """Latent vectors to bands."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        fine, coarse = sizes.widths
        self.read = nn.Conv2d(sizes.group_latent, coarse, 1)
        self.place = nn.Parameter(torch.randn(coarse, 1, GROUPS) * 0.1)
        self.coarse = _blocks(coarse, GROUPS, sizes.decoder_blocks[1])
        self.twice = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.fine = _blocks(fine, CELLS, sizes.decoder_blocks[0])
        self.norm = nn.GroupNorm(8, fine)
        self.write = nn.Conv2d(fine, CELL_NUMBERS, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, tokens, latent) to (batch, frames, CHANNELS), in the ranges of `Frames.stacked`."""
        groups = latents.unflatten(2, (GROUPS, -1)).permute(0, 3, 1, 2)
        states = self.fine(self.twice(self.coarse(self.read(groups) + self.place)))
        raw = from_cells(self.write(nn.functional.silu(self.norm(states))).float())
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
    "offset": 1.0,
    "tonality": 0.4,
    "balance": 0.1,
    "width": 0.05,
    "change": 0.5,
}
