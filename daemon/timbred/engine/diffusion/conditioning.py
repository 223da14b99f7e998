"""What the network is conditioned on: remembered, repeated for several takes, mixed, and put together in batches."""

import re
from collections.abc import Callable, Sequence

import torch
from msgspec.structs import replace

from timbred.caches import ByteCache
from timbred.engine.tensor_sizes import count_tensor_bytes
from timbred.ipc.engine_messages import PromptInputs
from timbred.models.long_texts import Part

Tensors = dict[str, torch.Tensor]
"""What the network is conditioned on: named tensors whose first axis is the batch."""

Conditioned = Callable[[PromptInputs, bool], Tensors]
"""The conditioning for one take; with guidance, the batch axis holds first the negative, then the prompt."""

TENSOR_BYTES = 1_000
"""What a tensor takes beside its numbers."""

MAX_CONDITIONING_BYTES = 32_000_000
"""Bytes of a model's conditionings that are kept, so that a prompt that came before costs no text encoding: all of an
evening's for a small model, 64 of AudioLDM 2's longest prompts."""


def conditioning_cache() -> ByteCache[tuple[PromptInputs, bool, bool], Tensors]:
    """A model's conditionings used last: by words, whether they are guided, and whether they come from deterministic
    kernels, whose bits are not those of the others."""
    return ByteCache(MAX_CONDITIONING_BYTES, size_of)


def size_of(tensors: Tensors) -> int:
    """Bytes of a conditioning, with those that Python needs for it."""
    return count_tensor_bytes(tensors.values()) + TENSOR_BYTES * len(tensors)


def mix_conditioning(words: PromptInputs, guided: bool, conditioning: Conditioned) -> Tensors:
    """The conditioning, between two prompts if there are two; `mix` 0 and 1 are the plain ones."""
    plain = replace(words, prompt2="", mix=0.0)
    if not words.prompt2 or words.mix == 0.0:
        return conditioning(plain, guided)
    other = conditioning(replace(plain, prompt=words.prompt2, weights=()), guided)
    return other if words.mix == 1.0 else interpolate(conditioning(plain, guided), other, words.mix)


def interpolate(one: Tensors, other: Tensors, mix: float) -> Tensors:
    """Two conditionings interpolated. Where only one of two texts of unequal length has a word, that word's place in
    the attention fades with it: the mask becomes 1 + log(weight) / 10000, which the UNet turns into log(weight)."""
    pairs = {name: _filled([one[name], other[name]]) for name in one}
    found = {
        name: torch.lerp(first.float(), second.float(), mix).to(first.dtype) for name, (first, second) in pairs.items()
    }
    if "mask" in pairs:
        weight = torch.lerp(pairs["mask"][0].float(), pairs["mask"][1].float(), mix)
        found["mask"] = torch.where(weight > 0, 1 + weight.clamp(min=1e-30).log() / 10_000, weight)
    return found


def average(vectors: Sequence[torch.Tensor], parts: Sequence[Part]) -> torch.Tensor:
    """The mean of the vectors that summarise the parts of a text, weighted by their shares."""
    if len(vectors) == 1:
        return vectors[0]
    total = sum(vector.float() * part.share for vector, part in zip(vectors, parts, strict=True))
    assert isinstance(total, torch.Tensor)
    return total.to(vectors[0].dtype)


def repeat_conditioning(conditioning: Tensors, takes: int, guided: bool) -> Tensors:
    """The conditioning of one take for several: negatives first, then prompts."""
    halves = 2 if guided else 1
    return {
        name: torch.cat([part.expand(takes, *part.shape[1:]) for part in tensor.chunk(halves)])
        for name, tensor in conditioning.items()
    }


def stack_conditioning(conditionings: Sequence[Tensors]) -> Tensors:
    """Conditionings of several runs as one batch. Shorter texts are filled up with zeros, which their masks hide."""
    if len(conditionings) == 1:
        return conditionings[0]
    return {name: torch.cat(_filled([one[name] for one in conditionings])) for name in conditionings[0]}


def _filled(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    if tensors[0].dim() == 1:
        return tensors
    longest = max(tensor.shape[1] for tensor in tensors)
    return [filled_to(tensor, longest) for tensor in tensors]


def filled_to(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Zeros behind the second axis, until it is so long."""
    missing = length - tensor.shape[1]
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((tensor.shape[0], missing, *tensor.shape[2:]))], dim=1)


def without(prompt: str, word: str) -> str:
    """The prompt with a word left out.

    >>> without("a bright bell, bright", "bright")
    'a bell,'
    """
    return " ".join(re.sub(_pattern(word), " ", prompt, flags=re.IGNORECASE).split()).replace(" ,", ",")


def places(prompt: str, word: str) -> list[tuple[int, int]]:
    """Where a word stands in the prompt: first character, and one after the last."""
    return [found.span() for found in re.finditer(_pattern(word), prompt, re.IGNORECASE)]


def _pattern(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def lean(whole: torch.Tensor, lacking: torch.Tensor, weight: float) -> torch.Tensor:
    """A vector moved along what a word adds to it: weight 1 leaves it, 0 takes the word away, 2 adds it once more."""
    return whole + (weight - 1.0) * (whole - lacking)


def leaning(words: PromptInputs, guided: bool, encode: Conditioned, summaries: Sequence[str]) -> Tensors:
    """The conditioning with some words counting more or less: those of its tensors that are one summary of the whole
    prompt, by their names, lean towards these words or away from them."""
    plain = replace(words, weights=())
    whole = encode(plain, guided)
    found = dict(whole)
    for word, weight in words.weights:
        lacking = encode(replace(plain, prompt=without(words.prompt, word)), guided)
        for name in summaries:
            found[name] = found[name] + (lean(whole[name], lacking[name], weight) - whole[name])
    return found


def token_factors(offsets: list[tuple[int, int]], prompt: str, weights: tuple[tuple[str, float], ...]) -> torch.Tensor:
    """A factor for each token, from the characters that it stands for; tokens of no word keep 1."""
    factors = torch.ones(len(offsets))
    for word, weight in weights:
        for start, end in places(prompt, word):
            for index, (first, last) in enumerate(offsets):
                if first < last and first < end and last > start:
                    factors[index] = weight
    return factors
