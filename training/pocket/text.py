"""The text encoder: encodes a prompt to one vector, from which musical attributes can be predicted linearly."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.pocket.bands import BANDS, CENTRES, EDGES, HALF_WIDTHS
from training.pocket.effects import EFFECTS
from training.pocket.labels import CHOICES, FORMS, NO_CLASS, Labels
from training.pocket.tokens import BUCKETS, FEATURES, MAX_WORDS, Encoded, encode


@dataclass(frozen=True)
class TextSizes:
    """Widths and depth."""

    pieces: int = 128
    width: int = 192
    layers: int = 2
    heads: int = 4
    queries: int = 6
    vector: int = 384


FORMS_WITH_CLASS = {
    "note": ("note",),
    "register": ("note",),
    "root": ("note", "chord", "arpeggio", "scale"),
    "chord": ("chord", "arpeggio"),
    "scale": ("scale",),
    "style": ("loop",),
    "touch": ("note", "chord", "arpeggio", "scale", "hit"),
}
"""Forms of sounds to which the classes apply."""
CONDITION_SIZE = TextSizes().vector + sum(map(len, CHOICES.values())) + len(EFFECTS) + 1 + 2 * BANDS
"""Size of the vector by which a prompt conditions the generator."""


class TextSide(nn.Module):
    """Encoder of words to a vector of unit variance."""

    def __init__(self, sizes: TextSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes = sizes or TextSizes()
        self.pieces = nn.Embedding(BUCKETS, sizes.pieces, padding_idx=0)
        self.read = nn.Linear(sizes.pieces * 2 + FEATURES, sizes.width)
        self.places = nn.Parameter(torch.randn(MAX_WORDS, sizes.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            sizes.width, sizes.heads, 3 * sizes.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, sizes.layers, nn.LayerNorm(sizes.width), enable_nested_tensor=False)
        self.queries = nn.Parameter(torch.randn(sizes.queries, sizes.width) * 0.2)
        self.attend = nn.MultiheadAttention(sizes.width, sizes.heads, batch_first=True)
        self.join = nn.Linear(sizes.queries * sizes.width, sizes.vector)
        self.norm = nn.LayerNorm(sizes.vector, elementwise_affine=False)
        self.heads = nn.ModuleDict({name: nn.Linear(sizes.vector, len(options)) for name, options in CHOICES.items()})
        self.effects = nn.Linear(sizes.vector, len(EFFECTS))
        self.tempo = nn.Linear(sizes.vector, 1)

    def forward(self, pieces: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Return vectors (prompts, vector) for the result of `tokens.encode`."""
        embedded = self.pieces(pieces)
        rest = embedded[..., 1:, :].sum(-2) / (pieces[..., 1:, None] > 0).sum(-2).clamp_min(1)
        words = self.read(torch.cat((embedded[..., 0, :], rest, features), -1)) + self.places[: pieces.shape[1]]
        states = self.layers(words, src_key_padding_mask=~mask)
        queries = self.queries.expand(len(pieces), -1, -1)
        pooled, _ = self.attend(queries, states, states, key_padding_mask=~mask, need_weights=False)
        return self.norm(self.join(pooled.flatten(1)))

    def condition(self, vectors: Tensor) -> Tensor:
        """Return (prompts, CONDITION_SIZE): the vector, its predicted classes, and the bands of its note's partials.

        Classes that apply to some forms of sounds only are weighted by the probability of these forms.
        """
        chances = {name: head(vectors).softmax(-1) for name, head in self.heads.items()}
        forms: dict[str, Tensor] = {form: chances["form"][:, index] for index, form in enumerate(FORMS)}
        for name, applicable in FORMS_WITH_CLASS.items():
            chances[name] = chances[name] * torch.stack([forms[form] for form in applicable]).sum(0)[:, None]
        partials = chances["note"] @ partial_bands().to(vectors)
        effects, tempo = self.effects(vectors).sigmoid(), self.tempo(vectors) * forms["loop"][:, None]
        return torch.cat((vectors, *(4 * chance for chance in chances.values()), 2 * effects, 2 * tempo, partials), -1)

    def read_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Encode texts to vectors (prompts, vector)."""
        return self(*tensors(encode(prompts), self.places.device))


@functools.cache
def partial_bands() -> Tensor:
    """Return for each MIDI note the strength of its partials in each band and their offsets, (128, 2 * BANDS)."""
    bands = torch.zeros(128, 2, BANDS)
    for note in range(128):
        for partial in range(1, 33):
            hertz = partial * 440.0 * 2 ** ((note - 69) / 12)
            if hertz < float(EDGES[0]) or hertz >= float(EDGES[-1]):
                continue
            band = int(torch.searchsorted(EDGES, torch.tensor(hertz), right=True)) - 1
            strength = 3.0 / math.sqrt(partial)
            bands[note, 0, band] += strength
            bands[note, 1, band] += strength * float((hertz - CENTRES[band]) / HALF_WIDTHS[band])
    return bands.flatten(1)


def tensors(encoded: Encoded, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Convert encoded words to the arguments of `TextSide`."""
    return (
        torch.from_numpy(encoded.pieces).to(device),
        torch.from_numpy(encoded.features).to(device),
        torch.from_numpy(encoded.mask).to(device),
    )


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
