"""The trained codec of bands, and the losses of its training."""

import torch
from torch import Tensor

from timbred.engine.families.pocket_networks import BandCodec
from timbred.models.pocket import BANDS, GROUPS
from training.pocket.running import load_checkpoint


def load_codec(device: torch.device) -> BandCodec:
    """Load the codec with averaged weights.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint("codec")
    if state is None:
        raise FileNotFoundError("the codec isn't trained yet: run python -m training.pocket.codec_training first")
    codec = BandCodec()
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
