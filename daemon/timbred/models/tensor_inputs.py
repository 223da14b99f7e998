"""Tensors that a file of embeddings may hold for each family, by the names of its pipeline's `__call__`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Axis = int | str
"""Size of an axis, or a name: axes of one name have the same size."""


@dataclass(frozen=True)
class TensorInput:
    """A tensor that a file may hold.

    Attributes:
        axes: Size or name of each axis.
        kind: `values` are any finite numbers, a `mask` holds 0 and 1.
        needs: Names of the tensors that it is useless without.
        usual: Size of its second axis that the encoders give the tensor of the other prompt; None if any size fits.
    """

    axes: tuple[Axis, ...]
    kind: Literal["values", "mask"] = "values"
    needs: tuple[str, ...] = ()
    usual: int | None = None


TensorInputs = Mapping[str, TensorInput]
"""The tensors that a file may hold for one model and length, by name."""

ReadTensorInputs = Callable[[Callable[[str], dict[str, Any]], float], TensorInputs]
"""Returns the tensors for a length in seconds; the first argument reads the configuration of a component."""

TOKENS, VECTORS = "tokens", "vectors"
"""Names of axes: tokens of both prompts, and vectors that a language model generates."""


def _mel_latents(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInput:
    """Return the starting noise of a UNet over mel spectrograms: (1, channels, rows, bands)."""
    vocoder, vae = config("vocoder"), config("vae")
    hop = math.prod(int(factor) for factor in vocoder["upsample_rates"])
    frames_per_row = 2 ** (len(vae["block_out_channels"]) - 1)
    frames = max(frames_per_row, int(seconds * int(vocoder["sampling_rate"]) / hop))
    bands = int(vocoder["model_in_dim"]) // frames_per_row
    return TensorInput((1, int(config("unet")["in_channels"]), math.ceil(frames / frames_per_row), bands))


def clap_vector_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of AudioLDM and MusicLDM: one vector for each prompt, and the starting noise."""
    vector = TensorInput((1, int(config("unet")["projection_class_embeddings_input_dim"])))
    return {"prompt_embeds": vector, "negative_prompt_embeds": vector, "latents": _mel_latents(config, seconds)}


def audioldm2_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of AudioLDM 2: states with masks, generated vectors, and the starting noise."""
    projection = config("projection_model")
    states, generated = int(projection["text_encoder_1_dim"]), int(projection["langauge_model_dim"])
    usual = int(config("language_model").get("max_new_tokens") or 8)
    inputs: dict[str, TensorInput] = {}
    for prefix in ("", "negative_"):
        embeds, vectors = f"{prefix}prompt_embeds", f"{prefix}generated_prompt_embeds"
        inputs[embeds] = TensorInput((1, TOKENS, states), needs=(vectors,))
        inputs[vectors] = TensorInput((1, VECTORS, generated), needs=(embeds,), usual=usual)
        inputs[f"{prefix}attention_mask"] = TensorInput((1, TOKENS), "mask", (embeds,))
    return {**inputs, "latents": _mel_latents(config, seconds)}


def _text_states(mask_name: str, dimensions: int) -> dict[str, TensorInput]:
    """Return the states of the tokens of both prompts with their masks."""
    inputs: dict[str, TensorInput] = {}
    for prefix in ("", "negative_"):
        embeds = f"{prefix}prompt_embeds"
        inputs[embeds] = TensorInput((1, TOKENS, dimensions))
        inputs[prefix + mask_name] = TensorInput((1, TOKENS), "mask", (embeds,))
    return inputs


def stable_audio_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of Stable Audio, whose latents have one length for all sounds."""
    del seconds
    transformer = config("transformer")
    latents = TensorInput((1, int(transformer["in_channels"]), int(transformer["sample_size"])))
    return {**_text_states("attention_mask", int(config("projection_model")["text_encoder_dim"])), "latents": latents}


def _wave_rows(seconds: float, rate: int, samples_per_row: int) -> int:
    """Return the rows of latents of a waveform."""
    return max(1, math.ceil(seconds * rate / samples_per_row))


def stable_audio_3_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of Stable Audio 3."""
    vae = config("vae")
    hop = int(vae["patch_size"]) * math.prod(int(stride) for stride in vae["encoder_strides"])
    rows = _wave_rows(seconds, int(vae["sampling_rate"]), hop)
    dimensions = int(config("transformer")["cond_token_dim"])
    return {
        **_text_states("encoder_attention_mask", dimensions),
        "latents": TensorInput((1, int(vae["latent_dim"]), rows)),
    }


def ace_step_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of ACE-Step, whose pipeline takes its starting noise with the rows first."""
    vae = config("vae")
    hop = math.prod(int(ratio) for ratio in vae["downsampling_ratios"])
    rows = _wave_rows(seconds, int(vae["sampling_rate"]), hop)
    return {"latents": TensorInput((1, rows, int(config("transformer")["audio_acoustic_hidden_dim"])))}
