"""The text side: a prompt to one vector, in which everything that a musician can say lies along straight lines."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.pocket.bands import BANDS, CENTRES, EDGES, HALF_WIDTHS
from training.pocket.effects import EFFECTS
from training.pocket.labels import CHOICES, FORMS, UNSAID, Labels
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


HAVING = {
    "note": ("note",),
    "register": ("note",),
    "root": ("note", "chord", "arpeggio", "scale"),
    "chord": ("chord", "arpeggio"),
    "scale": ("scale",),
    "style": ("loop",),
    "touch": ("note", "chord", "arpeggio", "scale", "hit"),
}
"""Forms of sound that have a class at all."""
TOLD = TextSizes().vector + sum(map(len, CHOICES.values())) + len(EFFECTS) + 1 + 2 * BANDS
"""Numbers that the generator is told of a prompt."""


class TextSide(nn.Module):
    """Words to a vector of unit variance."""

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
        """(prompts, vector) for what `tokens.encode` gave."""
        embedded = self.pieces(pieces)
        rest = embedded[..., 1:, :].sum(-2) / (pieces[..., 1:, None] > 0).sum(-2).clamp_min(1)
        words = self.read(torch.cat((embedded[..., 0, :], rest, features), -1)) + self.places[: pieces.shape[1]]
        states = self.layers(words, src_key_padding_mask=~mask)
        queries = self.queries.expand(len(pieces), -1, -1)
        pooled, _ = self.attend(queries, states, states, key_padding_mask=~mask, need_weights=False)
        return self.norm(self.join(pooled.flatten(1)))

    def told(self, vectors: Tensor) -> Tensor:
        """(prompts, TOLD): the vector, the classes that it speaks of, and where the partials of its note lie.

        Classes that a form of sound doesn't have count by how likely that form is.
        """
        chances = {name: head(vectors).softmax(-1) for name, head in self.heads.items()}
        forms: dict[str, Tensor] = {form: chances["form"][:, place] for place, form in enumerate(FORMS)}
        for name, having in HAVING.items():
            chances[name] = chances[name] * torch.stack([forms[form] for form in having]).sum(0)[:, None]
        partials = chances["note"] @ partial_bands().to(vectors)
        effects, tempo = self.effects(vectors).sigmoid(), self.tempo(vectors) * forms["loop"][:, None]
        return torch.cat((vectors, *(4 * chance for chance in chances.values()), 2 * effects, 2 * tempo, partials), -1)

    def read_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, vector) for texts."""
        return self(*tensors(encode(prompts), self.places.device))


@functools.cache
def partial_bands() -> Tensor:
    """(128, 2 * BANDS): for each MIDI note, how strongly its partials fall into each band, and where in it."""
    found = torch.zeros(128, 2, BANDS)
    for note in range(128):
        for partial in range(1, 33):
            hertz = partial * 440.0 * 2 ** ((note - 69) / 12)
            if hertz < float(EDGES[0]) or hertz >= float(EDGES[-1]):
                continue
            band = int(torch.searchsorted(EDGES, torch.tensor(hertz), right=True)) - 1
            strength = 3.0 / math.sqrt(partial)
            found[note, 0, band] += strength
            found[note, 1, band] += strength * float((hertz - CENTRES[band]) / HALF_WIDTHS[band])
    return found.flatten(1)


def tensors(encoded: Encoded, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What `TextSide` takes."""
    return (
        torch.from_numpy(encoded.pieces).to(device),
        torch.from_numpy(encoded.features).to(device),
        torch.from_numpy(encoded.mask).to(device),
    )


def label_losses(side: TextSide, vectors: Tensor, labels: Labels) -> dict[str, Tensor]:
    """Cross-entropies of the classes, of the effects, and the tempo's error in octaves."""
    device = vectors.device
    found: dict[str, Tensor] = {}
    for name, head in side.heads.items():
        wanted = torch.from_numpy(labels.classes[name]).to(device)
        count = (wanted != UNSAID).sum()
        total = nn.functional.cross_entropy(head(vectors), wanted, ignore_index=UNSAID, reduction="sum")
        found[name] = total / count.clamp_min(1)
    effects = torch.from_numpy(labels.effects).to(device)
    found["effects"] = nn.functional.binary_cross_entropy_with_logits(side.effects(vectors), effects)
    tempo = torch.from_numpy(labels.tempo).to(device)
    known = ~tempo.isnan()
    error = (side.tempo(vectors)[:, 0] - tempo.nan_to_num()).abs() * known
    found["tempo"] = error.sum() / known.sum().clamp_min(1)
    return found
