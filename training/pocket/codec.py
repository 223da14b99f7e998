"""The codec: encodes bands to a sequence of latent vectors, 21.5 per second, and decodes them.

Cells of 4 frames and 4 bands are encoded and downsampled once more, so that each of 20 groups of bands has a few values
in every latent vector. The convolutions are shared by all groups, which makes the training fast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.pocket.bands import BANDS, GROUP, GROUPS
from training.pocket.running import load_checkpoint

CELL_FRAMES, CELL_BANDS = 4, 4
CELLS = BANDS // CELL_BANDS
CELL_NUMBERS = 3 * CELL_FRAMES * CELL_BANDS + 2 * CELL_FRAMES


@dataclass(frozen=True)
class CodecSizes:
    """Widths and depths for cells (43 per second in 40 rows) and groups (21.5 per second in 20 rows)."""

    group_latent: int = 12
    widths: tuple[int, int] = (64, 128)
    encoder_blocks: tuple[int, int] = (1, 2)
    decoder_blocks: tuple[int, int] = (2, 3)

    @property
    def latent(self) -> int:
        """Size of a latent vector."""
        return self.group_latent * GROUPS


def to_cells(channels: Tensor) -> Tensor:
    """Convert (batch, frames, CHANNELS) to cells (batch, CELL_NUMBERS, frames / 4, 40)."""
    batch, frames = channels.shape[:2]
    times = frames // CELL_FRAMES
    bands, sides = channels[..., : 3 * BANDS], channels[..., 3 * BANDS :]
    bands = bands.reshape(batch, times, CELL_FRAMES, 3, CELLS, CELL_BANDS).permute(0, 3, 2, 5, 1, 4)
    sides = sides.reshape(batch, times, CELL_FRAMES, 2, GROUPS).permute(0, 3, 2, 1, 4)
    sides = sides.repeat_interleave(GROUP // CELL_BANDS, -1)
    return torch.cat((bands.flatten(1, 3), sides.flatten(1, 2)), 1)


def from_cells(cells: Tensor) -> Tensor:
    """Convert cells to (batch, frames, CHANNELS); balance and width of a group are the mean over its cells."""
    batch, _, times, _ = cells.shape
    numbers = 3 * CELL_FRAMES * CELL_BANDS
    bands = cells[:, :numbers].reshape(batch, 3, CELL_FRAMES, CELL_BANDS, times, CELLS).permute(0, 4, 2, 1, 5, 3)
    sides = cells[:, numbers:].reshape(batch, 2, CELL_FRAMES, times, GROUPS, -1).mean(-1).permute(0, 3, 2, 1, 4)
    frames = times * CELL_FRAMES
    return torch.cat((bands.reshape(batch, frames, 3 * BANDS), sides.reshape(batch, frames, 2 * GROUPS)), -1)


class Block(nn.Module):
    """A residual block: a convolution, a linear layer over all rows, and a layer over channels."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.near = nn.Conv2d(width, width, 3, padding=1)
        self.rows = nn.Linear(rows, rows, bias=False)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.rows.weight)
        nn.init.normal_(self.out.weight, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the output for (batch, width, times, rows), of the same shape."""
        normal = self.norm(inputs)
        return inputs + self.out(nn.functional.silu(self.near(normal) + self.rows(normal)))


def _blocks(width: int, rows: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Block(width, rows) for _ in range(count)))


class Encoder(nn.Module):
    """Encoder of bands to means and log-variances."""

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
        """Return means and log-variances, (batch, tokens, latent), of (batch, frames, CHANNELS)."""
        states = self.coarse(self.halve(self.fine(self.read(to_cells(channels)) + self.place)))
        written = self.write(nn.functional.silu(self.norm(states))).float()
        mean, spread = written.permute(0, 2, 3, 1).chunk(2, -1)
        return mean.flatten(2), spread.flatten(2).clamp(-12, 4)


class Decoder(nn.Module):
    """Decoder of latent vectors to bands."""

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
        """Decode (batch, tokens, latent) to (batch, frames, CHANNELS), in the ranges of `Frames.stacked`."""
        groups = latents.unflatten(2, (GROUPS, -1)).permute(0, 3, 1, 2)
        states = self.fine(self.twice(self.coarse(self.read(groups) + self.place)))
        raw = from_cells(self.write(nn.functional.silu(self.norm(states))).float())
        energy, offset, tonality, balance, width = raw.split((BANDS, BANDS, BANDS, GROUPS, GROUPS), -1)
        parts = (energy, torch.tanh(offset), torch.sigmoid(tonality), torch.tanh(balance), torch.sigmoid(width))
        return torch.cat(parts, -1)


class Codec(nn.Module):
    """Encoder and decoder."""

    def __init__(self, sizes: CodecSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or CodecSizes()
        self.encoder = Encoder(self.sizes)
        self.decoder = Decoder(self.sizes)

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction from sampled latents, their means and log-variances."""
        mean, spread = self.encoder(channels)
        latents = mean + torch.randn_like(mean) * (0.5 * spread).exp()
        return self.decoder(latents), mean, spread


def load_codec(device: torch.device) -> Codec:
    """Load the codec with averaged weights.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint("codec")
    if state is None:
        raise FileNotFoundError("the codec isn't trained yet: run python -m training.pocket.codec_training first")
    codec = Codec()
    codec.load_state_dict(state["average"])
    return codec.to(device).eval()


def reconstruction_losses(decoded: Tensor, true: Tensor) -> dict[str, Tensor]:
    """Return the losses of a reconstruction, weighted by audibility: means over sounds and frames.

    Energies are weighted by their level relative to the maxima of the frame and the crop, offsets and tonalities by
    energy, and offsets by tonality too. The change between frames is a separate loss, which keeps steady tones steady.
    """
    split = (BANDS, BANDS, BANDS, GROUPS, GROUPS)
    energy, offset, tonality, balance, width = decoded.split(split, -1)
    true_energy, true_offset, true_tonality, true_balance, true_width = true.split(split, -1)
    with torch.no_grad():
        # one unit of energy is 48 dB
        loudest = true_energy.amax((1, 2), keepdim=True)
        local = true_energy.amax(2, keepdim=True)
        audible = torch.sigmoid(8 * (true_energy - 0.5 * (loudest + local) + 0.9))
        weight = 0.15 + audible * (1.0 + true_tonality)
        strong = torch.sigmoid(10 * (true_energy - loudest + 0.8)) * torch.sigmoid(10 * (true_energy - local + 0.7))
        tonal = strong * true_tonality.square()
    difference = energy - true_energy
    losses = {
        "energy": (weight * difference.abs()).mean() / weight.mean(),
        "energy square": (weight * difference.square()).mean() / weight.mean(),
        "offset": (tonal * (offset - true_offset).abs()).mean() / (tonal.mean() + 0.01),
        "tonality": ((strong + 0.05) * (tonality - true_tonality).abs()).mean() / (strong.mean() + 0.05),
        "balance": (balance - true_balance).abs().mean(),
        "width": (width - true_width).abs().mean(),
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
