"""The networks of the family pocket: the text encoder, the codec of bands, and the generator, and their loading.

The text encoder reads hashed pieces of words, and exact notes, chord roots and numbers, into one vector, from which
musical attributes can be predicted linearly. The codec encodes bands to 21.5 latent vectors a second: cells of 4 frames
and 4 bands are encoded and downsampled once more, so that each of 20 groups of bands has a few values in every vector.
The generator is a transformer over the vectors that turns a sketch and noise into a sound. Time runs from 1, noise, to
0, sound: x = (1 - time) * sound + time * noise (rectified flow, arXiv 2209.03003). It predicts the sound, as a
difference from the sketch, so that an untrained network returns the sketch.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timbred.engine.codecs.bands import CENTRES, EDGES, HALF_WIDTHS
from timbred.engine.families.pocket_sketch import StoredBank
from timbred.errors import ModelError, first_line
from timbred.models.pocket import (
    BANDS,
    BANDS_A_GROUP,
    CARD_NAME,
    FORMS,
    GROUPS,
    TONE_FORMS,
    WEIGHTS_NAME,
    CodecSizes,
    EarSizes,
    GeneratorSizes,
    NetworkSizes,
    PocketCard,
    TextSizes,
    Vocabulary,
    read_card,
)
from timbred.models.pocket_words import BUCKET_COUNT, FEATURE_COUNT, MAX_WORDS, EncodedWords, encode_words

FORMS_WITH_CLASS = {
    "note": ("note",),
    "register": ("note",),
    "root": TONE_FORMS,
    "chord": ("chord", "arpeggio"),
    "scale": ("scale",),
    "style": ("loop",),
    "touch": (*TONE_FORMS, "hit"),
}
"""Forms of sounds to which the classes apply."""


class TextSide(nn.Module):
    """Encoder of words to a vector of unit variance."""

    def __init__(self, vocabulary: Vocabulary, sizes: TextSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes = sizes or TextSizes()
        self.pieces = nn.Embedding(BUCKET_COUNT, sizes.pieces, padding_idx=0)
        self.read = nn.Linear(sizes.pieces * 2 + FEATURE_COUNT, sizes.width)
        self.places = nn.Parameter(torch.randn(MAX_WORDS, sizes.width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            sizes.width, sizes.heads, 3 * sizes.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, sizes.layers, nn.LayerNorm(sizes.width), enable_nested_tensor=False)
        self.queries = nn.Parameter(torch.randn(sizes.queries, sizes.width) * 0.2)
        self.attend = nn.MultiheadAttention(sizes.width, sizes.heads, batch_first=True)
        self.join = nn.Linear(sizes.queries * sizes.width, sizes.vector)
        self.norm = nn.LayerNorm(sizes.vector, elementwise_affine=False)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(sizes.vector, len(options)) for name, options in vocabulary.choices.items()}
        )
        self.effects = nn.Linear(sizes.vector, len(vocabulary.effects))
        self.tempo = nn.Linear(sizes.vector, 1)

    def forward(self, pieces: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Return vectors (prompts, vector) for the result of `encode_words`."""
        embedded = self.pieces(pieces)
        rest = embedded[..., 1:, :].sum(-2) / (pieces[..., 1:, None] > 0).sum(-2).clamp_min(1)
        words = self.read(torch.cat((embedded[..., 0, :], rest, features), -1)) + self.places[: pieces.shape[1]]
        states = self.layers(words, src_key_padding_mask=~mask)
        queries = self.queries.expand(len(pieces), -1, -1)
        return self.norm(self.join(self._pool(queries, states, mask).flatten(1)))

    def _pool(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return the attention of queries to words, (prompts, queries, width).

        `nn.MultiheadAttention` imports sympy to check a mask, which delays the first sound by half a second.
        """
        sources = (queries, states, states)
        weights, biases = self.attend.in_proj_weight.chunk(3), self.attend.in_proj_bias.chunk(3)
        heads = [
            nn.functional.linear(source, weight, bias).unflatten(-1, (self.sizes.heads, -1)).transpose(1, 2)
            for source, weight, bias in zip(sources, weights, biases, strict=True)
        ]
        pooled = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask[:, None, None])
        return self.attend.out_proj(pooled.transpose(1, 2).flatten(2))

    def condition(self, vectors: Tensor) -> Tensor:
        """Return (prompts, condition): the vector, its predicted classes, and the bands of its note's partials.

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
        return self(*tensors(encode_words(prompts), self.places.device))


@functools.cache
def partial_bands() -> Tensor:
    """Return for each MIDI note the strength of its partials in each band and their offsets, (128, 2 * BANDS)."""
    partials = torch.arange(1, 33)
    hertz = partials * 440.0 * 2 ** ((torch.arange(128.0)[:, None] - 69) / 12)
    index = (torch.searchsorted(EDGES, hertz, right=True) - 1).clamp(0, BANDS - 1)
    heard = (hertz >= EDGES[0]) & (hertz < EDGES[-1])
    strength = heard * (3.0 / partials.sqrt())
    offset = strength * (hertz - CENTRES[index]) / HALF_WIDTHS[index]
    bands = torch.zeros(2, 128, BANDS).scatter_add_(2, index.expand(2, -1, -1), torch.stack((strength, offset)))
    return bands.transpose(0, 1).flatten(1)


def tensors(encoded: EncodedWords, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Convert encoded words to the arguments of `TextSide`."""
    return (
        torch.from_numpy(encoded.pieces).to(device),
        torch.from_numpy(encoded.features).to(device),
        torch.from_numpy(encoded.mask).to(device),
    )


CELL_FRAMES, CELL_BANDS = 4, 4
CELLS = BANDS // CELL_BANDS
CELL_NUMBERS = 3 * CELL_FRAMES * CELL_BANDS + 2 * CELL_FRAMES


def to_cells(channels: Tensor) -> Tensor:
    """Convert (batch, frames, CHANNELS) to cells (batch, CELL_NUMBERS, frames / 4, 40)."""
    batch, frames = channels.shape[:2]
    times = frames // CELL_FRAMES
    bands, sides = channels[..., : 3 * BANDS], channels[..., 3 * BANDS :]
    bands = bands.reshape(batch, times, CELL_FRAMES, 3, CELLS, CELL_BANDS).permute(0, 3, 2, 5, 1, 4)
    sides = sides.reshape(batch, times, CELL_FRAMES, 2, GROUPS).permute(0, 3, 2, 1, 4)
    sides = sides.repeat_interleave(BANDS_A_GROUP // CELL_BANDS, -1)
    return torch.cat((bands.flatten(1, 3), sides.flatten(1, 2)), 1)


def from_cells(cells: Tensor) -> Tensor:
    """Convert cells to (batch, frames, CHANNELS); balance and width of a group are the mean over its cells."""
    batch, _, times, _ = cells.shape
    numbers = 3 * CELL_FRAMES * CELL_BANDS
    bands = cells[:, :numbers].reshape(batch, 3, CELL_FRAMES, CELL_BANDS, times, CELLS).permute(0, 4, 2, 1, 5, 3)
    sides = cells[:, numbers:].reshape(batch, 2, CELL_FRAMES, times, GROUPS, -1).mean(-1).permute(0, 3, 2, 1, 4)
    frames = times * CELL_FRAMES
    return torch.cat((bands.reshape(batch, frames, 3 * BANDS), sides.reshape(batch, frames, 2 * GROUPS)), -1)


class CodecBlock(nn.Module):
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
    return nn.Sequential(*(CodecBlock(width, rows) for _ in range(count)))


class BandEncoder(nn.Module):
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


class BandDecoder(nn.Module):
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


class BandCodec(nn.Module):
    """Encoder and decoder of bands."""

    def __init__(self, sizes: CodecSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes or CodecSizes()
        self.encoder = BandEncoder(self.sizes)
        self.decoder = BandDecoder(self.sizes)

    @property
    def config(self) -> dict[str, Any]:
        """The sizes, as modules of diffusers have them: compiled calls are cached by it."""
        return vars(self.sizes)

    def forward(self, channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction from sampled latents, their means and log-variances."""
        mean, spread = self.encoder(channels)
        latents = mean + torch.randn_like(mean) * (0.5 * spread).exp()
        return self.decoder(latents), mean, spread


def angles(values: Tensor, count: int, lowest: float, highest: float) -> Tensor:
    """Return sines and cosines (..., 2 * count) at frequencies from `lowest` to `highest` in radians."""
    frequencies = torch.exp(torch.linspace(math.log(lowest), math.log(highest), count, device=values.device))
    phases = values[..., None] * frequencies
    return torch.cat((phases.sin(), phases.cos()), -1)


def rotary_turns(length: int, width: int, device: torch.device) -> Tensor:
    """Return the complex rotations of rotary position embeddings, (length, width / 2)."""
    rates = 1.0 / (500.0 ** (torch.arange(width // 2, device=device) / (width // 2)))
    phases = torch.arange(length, device=device)[:, None] * rates
    return torch.polar(torch.ones_like(phases), phases)


def _rotate(values: Tensor, rotation: Tensor) -> Tensor:
    """Rotate pairs of (batch, heads, length, width) by each position's rotations."""
    first, second = values.float().chunk(2, -1)
    real, imaginary = rotation.real, rotation.imag
    return torch.cat((first * real - second * imaginary, first * imaginary + second * real), -1).to(values.dtype)


class GeneratorBlock(nn.Module):
    """Self-attention and a gated feed-forward layer, modulated by the condition."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.queries = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.widen = nn.Linear(width, 2 * expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.offset = nn.Parameter(torch.zeros(6, width))

    def forward(self, inputs: Tensor, condition: Tensor, rotation: Tensor, mask: Tensor | None) -> Tensor:
        """Return the output for (batch, length, width), of the same shape.

        `condition` is (batch, 6, width), `mask` (batch, 1, 1, length).
        """
        shift, scale, gate, shift_two, scale_two, gate_two = (condition + self.offset).unsqueeze(2).unbind(1)
        normal = self.norms[0](inputs) * (1 + scale) + shift
        parts = self.queries(normal).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        query, key = (_rotate(nn.functional.rms_norm(part, part.shape[-1:]), rotation) for part in (query, key))
        attended = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        inputs = inputs + gate * self.out(attended.transpose(1, 2).flatten(2))
        normal = self.norms[1](inputs) * (1 + scale_two) + shift_two
        gated, plain = self.widen(normal).chunk(2, -1)
        return inputs + gate_two * self.narrow(nn.functional.silu(gated) * plain)


class Generator(nn.Module):
    """The network of the sound, for noisy latents, a prompt's vector or none, a length, and a sketch."""

    def __init__(self, sizes: GeneratorSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.read = nn.Linear(2 * sizes.latent + 64, sizes.width)
        self.condition = nn.Sequential(
            nn.Linear(sizes.vector + 64 + 32, 2 * sizes.width), nn.SiLU(), nn.Linear(2 * sizes.width, 2 * sizes.width)
        )
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(2 * sizes.width, 6 * sizes.width))
        self.nothing = nn.Parameter(torch.zeros(sizes.vector))
        self.blocks = nn.ModuleList(
            GeneratorBlock(sizes.width, sizes.heads, sizes.expansion) for _ in range(sizes.blocks)
        )
        self.finish = nn.Linear(2 * sizes.width, 2 * sizes.width)
        self.norm = nn.LayerNorm(sizes.width, elementwise_affine=False)
        self.write = nn.Linear(sizes.width, sizes.latent)
        for layer in (self.modulate[1], self.finish, self.write):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    @property
    def config(self) -> dict[str, Any]:
        """The sizes, as modules of diffusers have them: compiled calls are cached by it."""
        return vars(self.sizes)

    def forward(self, noisy: Tensor, time: Tensor, vector: Tensor, tokens: Tensor | None, sketch: Tensor) -> Tensor:
        """Return the expected sounds (batch, length, latent).

        `time` is (batch,), 0..1; `vector` (batch, vector), with rows of NaN for no prompt; `tokens` (batch,), the
        sounds' lengths, beyond which the attention is masked, or None if all have the whole length; `sketch` has the
        shape of `noisy`.
        """
        length = noisy.shape[1]
        vector = torch.where(vector.isnan(), self.nothing, vector)
        lengths = torch.full_like(time, length) if tokens is None else tokens.float()
        counts = torch.log2(lengths / 40)
        condition = self.condition(
            torch.cat((vector, angles(time, 32, 1.0, 200.0), angles(counts, 16, 0.5, 16.0)), -1)
        ).float()
        indices = torch.arange(length, device=noisy.device).expand(len(noisy), -1)
        left = lengths[:, None] - indices
        positions = torch.cat((angles(indices.float(), 16, 0.02, 3.0), angles(left, 16, 0.02, 3.0)), -1)
        states = self.read(torch.cat((noisy, sketch, positions), -1))
        mask = None if tokens is None else (left > 0)[:, None, None]
        rotation = rotary_turns(length, self.sizes.width // self.sizes.heads, noisy.device)
        modulation = self.modulate(condition).unflatten(1, (6, -1))
        for block in self.blocks:
            states = block(states, modulation, rotation, mask)
        shift, scale = self.finish(condition)[:, None].chunk(2, -1)
        return sketch + self.write(self.norm(states) * (1 + scale) + shift).float()


class SketchOutput(nn.Module):
    """Replacement of the generator in a model without one: the sound is the sketch."""

    config: Mapping[str, Any] = MappingProxyType({})

    def forward(self, noisy: Tensor, time: Tensor, vector: Tensor, tokens: Tensor | None, sketch: Tensor) -> Tensor:
        """Return the sketch; the arguments are those of `Generator`."""
        del noisy, time, vector, tokens
        return sketch


NEAR_NOISE = 4.0
"""Density of the times of sampling near 1, relative to that near 0, is the square of this."""


def flow_times(steps: int, level: float = 1.0) -> list[float]:
    """Return times from `level` to 0, denser near 1, where the kind of sound is determined."""
    start = level / (NEAR_NOISE - (NEAR_NOISE - 1) * level)
    even = [start * (1 - index / steps) for index in range(steps + 1)]
    return [NEAR_NOISE * time / (1 + (NEAR_NOISE - 1) * time) for time in even]


EAR_CLASSES = {"kind": 0.6, "form": 0.15, "note": 0.25}
"""Classes of `Vocabulary.choices` by which sounds are compared, with their weights in a similarity."""


class Ear(nn.Module):
    """Predictor of classes from a sound's latents."""

    def __init__(self, vocabulary: Vocabulary, sizes: EarSizes, latent: int) -> None:
        super().__init__()
        self.read = nn.Sequential(
            nn.Linear(2 * latent, sizes.width), nn.SiLU(), nn.Linear(sizes.width, sizes.width), nn.SiLU()
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(sizes.width, len(vocabulary.choices[name])) for name in EAR_CLASSES}
        )

    def forward(self, summaries: Tensor) -> dict[str, Tensor]:
        """Return the logits of each class for the results of `summarise_latents`."""
        states = self.read(summaries)
        return {name: head(states) for name, head in self.heads.items()}


def summarise_latents(latents: Tensor) -> Tensor:
    """Return the mean and the deviation of latents, (sounds, latent, vectors), over time: (sounds, 2 * latent)."""
    return torch.cat((latents.mean(2), latents.std(2, correction=0)), 1)


def class_vector(chances: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
    """Return the weighted roots of the probabilities of the classes by which sounds are compared."""
    parts = [np.sqrt(weight * chances[name] / chances[name].sum()) for name, weight in EAR_CLASSES.items()]
    return np.concatenate(parts).astype(np.float32)


@dataclass(eq=False)
class PocketPipeline:
    """All parts of a model in memory.

    Attributes:
        card: content of `pocket.json`.
        text_encoder, generator, vae: the networks, in float32; a model may have no generator.
        scale, middle: (latent,), of the codec's latents, which are `values * scale + middle`.
        bank: the stored sounds.
        entry_vectors: unit vectors (sounds, vector) of the captions of the bank's sounds.
        ear: None for a model whose takes can't be compared.
    """

    card: PocketCard
    text_encoder: TextSide
    generator: Generator | SketchOutput
    vae: BandCodec
    scale: Tensor
    middle: Tensor
    bank: StoredBank
    entry_vectors: NDArray[np.float32]
    ear: Ear | None = None

    @property
    def components(self) -> dict[str, torch.nn.Module]:
        """The components with weights by name."""
        parts: dict[str, nn.Module] = {
            "text_encoder": self.text_encoder,
            "generator": self.generator,
            "vae": self.vae,
        }
        return parts if self.ear is None else {**parts, "ear": self.ear}


def load_pipeline(folder: Path, name: str, progress: Callable[[float], None]) -> PocketPipeline:
    """Load a model's folder; its tensors are compared with the networks before any of them is read.

    Raises:
        ModelError: A file is damaged, a tensor is missing or has another shape, or a value isn't finite.
    """
    from timbred.models.checkpoint import read_tensor_header  # a machine that only trains lacks what it imports

    remedy = "install the model again"
    card = read_card(folder, name, remedy)
    path = folder / WEIGHTS_NAME
    progress(0.1)
    sizes = card.sizes
    if 2 * least_values(sizes) > path.stat().st_size:
        raise ModelError(f"{name}: {path} has fewer values than the sizes in {CARD_NAME} need; {remedy}")
    with torch.no_grad():
        networks: dict[str, torch.nn.Module] = {
            "text": TextSide(card.vocabulary, sizes.text),
            "generator": SketchOutput() if sizes.generator is None else Generator(sizes.generator),
            "codec": BandCodec(sizes.codec),
        }
        if sizes.ear is not None:
            networks["ear"] = Ear(card.vocabulary, sizes.ear, sizes.codec.latent)
    vectors = sum(entry.tokens for entry in card.entries)
    latent, count = sizes.codec.latent, len(card.entries)
    expected: dict[str, tuple[int, ...]] = {
        "scale": (latent,),
        "middle": (latent,),
        "bank": (vectors, latent),
        "bank scale": (latent,),
        "bank middle": (latent,),
        "bank vectors": (count, sizes.text.vector),
    }
    for part, network in networks.items():
        expected |= {f"{part}.{key}": tuple(value.shape) for key, value in network.state_dict().items()}
    header, _ = read_tensor_header(path)
    for key, shape in expected.items():
        entry = header.get(key)
        found = entry.get("shape") if isinstance(entry, dict) else None
        if found != list(shape):
            described = "is missing" if found is None else f"has the shape {found}"
            raise ModelError(f"{name}: {key} {described} in {path}, and {list(shape)} is needed; {remedy}")
    tensors = _read_tensors(path, name, expected, remedy)
    progress(0.7)
    for part, network in networks.items():
        prefix = f"{part}."
        weights = {key.removeprefix(prefix): tensors[key] for key in expected if key.startswith(prefix)}
        network.load_state_dict(weights, assign=True)
        network.eval().requires_grad_(False)
    bank = StoredBank(tensors["bank"], tensors["bank scale"], tensors["bank middle"], card.entries, card.encoder)
    progress(1.0)
    text, generator, codec, ear = *list(networks.values())[:3], networks.get("ear")
    assert (
        isinstance(text, TextSide) and isinstance(generator, Generator | SketchOutput) and isinstance(codec, BandCodec)
    )
    assert ear is None or isinstance(ear, Ear)
    entry_vectors = tensors["bank vectors"].numpy()
    scale, middle = tensors["scale"], tensors["middle"]
    return PocketPipeline(card, text, generator, codec, scale, middle, bank, entry_vectors, ear)


def least_values(sizes: NetworkSizes) -> int:
    """Return a number of values that the networks have at least: they are made only if the file can fill them."""
    text, generator, codec = sizes.text, sizes.generator, sizes.codec
    layers = text.layers * 10 * text.width**2 + text.queries * text.width * text.vector + BUCKET_COUNT * text.pieces
    blocks = 0
    if generator is not None:
        blocks = generator.blocks * (4 + 3 * generator.expansion) * generator.width**2
        blocks += generator.width * (2 * generator.vector + 16 * generator.width)
    counts = zip(codec.widths, codec.encoder_blocks, codec.decoder_blocks, strict=True)
    return layers + blocks + sum(10 * (encoder + decoder) * width**2 for width, encoder, decoder in counts)


def _read_tensors(path: Path, name: str, expected: Iterable[str], remedy: str) -> dict[str, Tensor]:
    """Return tensors in float32, the bank's codes as bytes."""
    from safetensors import SafetensorError, safe_open  # see `load_pipeline`

    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as stored:
            for key in expected:
                value = stored.get_tensor(key)
                tensors[key] = value.to(torch.int8) if key == "bank" else value.to(torch.float32, copy=True)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{name}: {path} is damaged ({first_line(error)}); {remedy}") from error
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{name}: {key} in {path} has NaN or infinity; {remedy}")
    return tensors
