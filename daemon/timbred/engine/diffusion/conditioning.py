"""The denoiser's conditioning: cached, repeated for takes, mixed between prompts, and stacked into batches.

An order may bring tensors along instead: embedded prompts, starting noise, and single numbers and texts.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from msgspec.structs import replace

from timbred.engine.device import count_tensor_bytes
from timbred.ipc.engine_messages import PromptInputs, RenderOrder
from timbred.models.long_texts import Part
from timbred.process_memory import ByteCache

Tensors = dict[str, torch.Tensor]
"""Conditioning: named tensors whose first axis is the batch."""

Encoder = Callable[[PromptInputs, bool], Tensors]
"""Encodes one take; with guidance, the batch axis holds the negative rows first, then the prompt's."""

TENSOR_OVERHEAD_BYTES = 1_000
"""Overhead of a tensor object beside its elements."""

MAX_CONDITIONING_BYTES = 32_000_000
"""Size of a model's conditioning cache: thousands of prompts of a small model, 64 of AudioLDM 2's longest."""

NEGATIVE_PREFIX = "negative_"
"""Beginning of the names of the negative prompt's tensors."""

PROMPT_EMBEDS, LATENTS = "prompt_embeds", "latents"
"""Names of the tensors of an embedded prompt and of starting noise."""

PROMPT_ENDINGS = (PROMPT_EMBEDS, "attention_mask")
"""Endings of the names of a prompt's tensors."""

START_NAME, PADDING_NAME = "audio_start_in_s", "silence_padding_duration"
"""Names of numbers in seconds: the beginning of the sound in what is decoded, and room after it."""


def conditioning_cache() -> ByteCache[tuple[PromptInputs, bool, bool], Tensors]:
    """Create a model's cache, keyed by prompt inputs, guidance, and the use of deterministic kernels.

    Deterministic kernels give results that differ in rounding.
    """
    return ByteCache(MAX_CONDITIONING_BYTES, count_conditioning_bytes)


def count_conditioning_bytes(tensors: Tensors) -> int:
    """Return the bytes of a conditioning, including Python objects."""
    return count_tensor_bytes(tensors.values()) + TENSOR_OVERHEAD_BYTES * len(tensors)


def mix_conditioning(inputs: PromptInputs, guided: bool, conditioning: Encoder) -> Tensors:
    """Encode a prompt, or a mix of two; `mix` 0 and 1 equal the single prompts."""
    plain = replace(inputs, prompt2="", mix=0.0)
    if not inputs.prompt2 or inputs.mix == 0.0:
        return conditioning(plain, guided)
    other = conditioning(replace(plain, prompt=inputs.prompt2, weights=()), guided)
    return other if inputs.mix == 1.0 else interpolate(conditioning(plain, guided), other, inputs.mix)


def interpolate(first: Tensors, second: Tensors, mix: float) -> Tensors:
    """Interpolate two conditionings.

    Where only the longer text has a token, the token's attention fades with its weight: the mask becomes 1 +
    log(weight) / 10000, which the UNet turns into log(weight).
    """
    pairs = {name: _pad_to_longest([first[name], second[name]]) for name in first}
    mixed = {
        name: torch.lerp(first.float(), second.float(), mix).to(first.dtype) for name, (first, second) in pairs.items()
    }
    if "mask" in pairs:
        weight = torch.lerp(pairs["mask"][0].float(), pairs["mask"][1].float(), mix)
        mixed["mask"] = torch.where(weight > 0, 1 + weight.clamp(min=1e-30).log() / 10_000, weight)
    return mixed


def average_parts(vectors: Sequence[torch.Tensor], parts: Sequence[Part]) -> torch.Tensor:
    """Return the mean of the vectors of a text's parts, weighted by the parts' shares."""
    if len(vectors) == 1:
        return vectors[0]
    total = sum(vector.float() * part.share for vector, part in zip(vectors, parts, strict=True))
    assert isinstance(total, torch.Tensor)
    return total.to(vectors[0].dtype)


def repeat_conditioning(conditioning: Tensors, takes: int, guided: bool) -> Tensors:
    """Repeat the conditioning of one take for several: negative rows first, then prompts."""
    halves = 2 if guided else 1
    return {
        name: torch.cat([part.expand(takes, *part.shape[1:]) for part in tensor.chunk(halves)])
        for name, tensor in conditioning.items()
    }


def stack_conditioning(conditionings: Sequence[Tensors]) -> Tensors:
    """Stack the conditionings of several generations as one batch; shorter texts are padded with masked zeros."""
    if len(conditionings) == 1:
        return conditionings[0]
    return {
        name: torch.cat(_pad_to_longest([conditioning[name] for conditioning in conditionings]))
        for name in conditionings[0]
    }


def _pad_to_longest(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    if tensors[0].dim() == 1:
        return tensors
    longest = max(tensor.shape[1] for tensor in tensors)
    return [pad_to(tensor, longest) for tensor in tensors]


def pad_to(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Pad the second axis with zeros to a length."""
    missing = length - tensor.shape[1]
    if missing == 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((tensor.shape[0], missing, *tensor.shape[2:]))], dim=1)


def remove_word(prompt: str, word: str) -> str:
    """Return the prompt without a word.

    >>> remove_word("a bright bell, bright", "bright")
    'a bell,'
    """
    return " ".join(re.sub(_pattern(word), " ", prompt, flags=re.IGNORECASE).split()).replace(" ,", ",")


def find_word(prompt: str, word: str) -> list[tuple[int, int]]:
    """Return the positions of a word in the prompt: first character, and one past the last."""
    return [match.span() for match in re.finditer(_pattern(word), prompt, re.IGNORECASE)]


def _pattern(word: str) -> str:
    return rf"(?<!\w){re.escape(word)}(?!\w)"


def scale_contribution(vector: torch.Tensor, without_word: torch.Tensor, weight: float) -> torch.Tensor:
    """Scale the contribution of a word to a vector: weight 1 keeps it, 0 removes it, 2 doubles it."""
    return vector + (weight - 1.0) * (vector - without_word)


def apply_word_weights(inputs: PromptInputs, guided: bool, encode: Encoder, summary_tensors: Sequence[str]) -> Tensors:
    """Return the conditioning with weighted words.

    The contribution of each word is scaled in each tensor named in `summary_tensors`, which summarise the whole prompt.
    """
    plain = replace(inputs, weights=())
    unweighted = encode(plain, guided)
    weighted = dict(unweighted)
    for word, weight in inputs.weights:
        without_word = encode(replace(plain, prompt=remove_word(inputs.prompt, word)), guided)
        for name in summary_tensors:
            weighted[name] = weighted[name] + (
                scale_contribution(unweighted[name], without_word[name], weight) - unweighted[name]
            )
    return weighted


def token_factors(offsets: list[tuple[int, int]], prompt: str, weights: tuple[tuple[str, float], ...]) -> torch.Tensor:
    """Return a factor for each token, by the characters that it covers; tokens of unweighted words have 1."""
    factors = torch.ones(len(offsets))
    for word, weight in weights:
        for start, end in find_word(prompt, word):
            for index, (first, last) in enumerate(offsets):
                if first < last and first < end and last > start:
                    factors[index] = weight
    return factors


def given_tensors(order: RenderOrder) -> Tensors:
    """Return an order's tensors by name, float32, on the CPU."""
    return {
        tensor.name: torch.from_numpy(np.frombuffer(tensor.values, "<f4").reshape(tensor.shape).copy())
        for tensor in order.tensors
    }


def prompt_tensors(order: RenderOrder, is_negative: bool) -> Tensors:
    """Return the tensors of one prompt by their names without `negative_`; none if its text is encoded."""
    prefix = NEGATIVE_PREFIX if is_negative else ""
    tensors = {
        name.removeprefix(prefix): value
        for name, value in given_tensors(order).items()
        if name.startswith(NEGATIVE_PREFIX) == is_negative and name.endswith(PROMPT_ENDINGS)
    }
    return tensors if PROMPT_EMBEDS in tensors else {}


def given_number(order: RenderOrder, name: str, default: float) -> float:
    """Return a number that an order brings along, or its default."""
    value = given_tensors(order).get(name)
    return default if value is None else float(value)


def given_text(order: RenderOrder, name: str) -> str:
    """Return a text that an order brings along; empty without one."""
    value = given_tensors(order).get(name)
    return "" if value is None else bytes(value.to(torch.uint8).tolist()).decode("utf-8")


def given_noise(order: RenderOrder, is_rows_first: bool) -> torch.Tensor | None:
    """Return the starting noise that an order brings along, (1, channels, rows, ...), or None."""
    noise = given_tensors(order).get(LATENTS)
    if noise is None or not is_rows_first:
        return noise
    return noise.transpose(1, 2).contiguous()
