"""The text encoder that is trained, and the losses of its training."""

import torch
from torch import Tensor, nn

from timbred.engine.families.pocket_networks import TextSide
from timbred.models.pocket import TextSizes
from training.pocket.labels import NO_CLASS, Labels
from training.pocket.vocabulary import VOCABULARY


def new_text_side(sizes: TextSizes | None = None) -> TextSide:
    """Return an untrained text encoder for the vocabulary of the data set."""
    return TextSide(VOCABULARY, sizes)


def label_losses(side: TextSide, vectors: Tensor, labels: Labels) -> dict[str, Tensor]:
    """Return the cross-entropies of the classes and the effects, and the error of the tempo in octaves."""
    device = vectors.device
    losses: dict[str, Tensor] = {}
    for name, head in side.heads.items():
        targets = torch.from_numpy(labels.classes[name]).to(device)
        count = (targets != NO_CLASS).sum()
        total = nn.functional.cross_entropy(head(vectors), targets, ignore_index=NO_CLASS, reduction="sum")
        losses[name] = total / count.clamp_min(1)
    effects = torch.from_numpy(labels.effects).to(device)
    losses["effects"] = nn.functional.binary_cross_entropy_with_logits(side.effects(vectors), effects)
    tempo = torch.from_numpy(labels.tempo).to(device)
    known = ~tempo.isnan()
    error = (side.tempo(vectors)[:, 0] - tempo.nan_to_num()).abs() * known
    losses["tempo"] = error.sum() / known.sum().clamp_min(1)
    return losses
