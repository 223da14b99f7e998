"""Tensors that an order brings along: embedded prompts instead of texts, and starting noise."""

import numpy as np
import torch

from timbred.engine.diffusion.conditioning import Tensors
from timbred.ipc.engine_messages import RenderOrder

NEGATIVE = "negative_"
"""Beginning of the names of the negative prompt's tensors."""

PROMPT_EMBEDS, LATENTS = "prompt_embeds", "latents"

START_NAME, PADDING_NAME = "audio_start_in_s", "silence_padding_duration"
"""Names of numbers in seconds: the beginning of the sound in what is decoded, and room after it."""


PROMPT_ENDINGS = ("prompt_embeds", "attention_mask")
"""Endings of the names of a prompt's tensors."""


def given_tensors(order: RenderOrder) -> Tensors:
    """Return an order's tensors by name, float32, on the CPU."""
    return {
        tensor.name: torch.from_numpy(np.frombuffer(tensor.values, "<f4").reshape(tensor.shape).copy())
        for tensor in order.tensors
    }


def prompt_tensors(order: RenderOrder, is_negative: bool) -> Tensors:
    """Return the tensors of one prompt by their names without `negative_`; none if its text is encoded."""
    prefix = NEGATIVE if is_negative else ""
    tensors = {name: value for name, value in given_tensors(order).items() if name.startswith(NEGATIVE) == is_negative}
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.endswith(PROMPT_ENDINGS)}
    return found if PROMPT_EMBEDS in found else {}


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
