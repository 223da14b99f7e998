"""Tensors that a file of embeddings may hold for each family, by the names of its pipeline's `__call__`.

Numbers of the pipeline that have no key of `generate` are tensors of no axes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from timbred.errors import MissingWeights

Axis = int | str
"""Size of an axis, or a name: axes of one name have the same size."""


@dataclass(frozen=True)
class TensorInput:
    """A tensor that a file may hold.

    Attributes:
        axes: Size or name of each axis.
        kind: `values` are any finite numbers, those that are `falling` one after the other, a `mask` holds 0 and 1,
            `whole` numbers have no fractions, a `text` has the bytes of UTF-8.
        low: Least value.
        high: Largest value.
        needs: Names of the tensors that it is useless without.
        usual: Size of its second axis that the encoders give the tensor of the other prompt; None if any size fits.
    """

    axes: tuple[Axis, ...]
    kind: Literal["values", "falling", "mask", "whole", "text"] = "values"
    needs: tuple[str, ...] = ()
    usual: int | None = None
    low: float = -math.inf
    high: float = math.inf


TensorInputs = Mapping[str, TensorInput]
"""The tensors that a file may hold for one model and length, by name."""

ReadTensorInputs = Callable[[Callable[[str], dict[str, Any]], float], TensorInputs]
"""Returns the tensors for a length in seconds; the first argument reads the configuration of a component."""

TOKENS, VECTORS = "tokens", "vectors"
"""Names of axes: tokens of both prompts, and vectors that a language model generates."""

STEPS, BYTES = "steps", "bytes"
"""Names of axes: steps of a schedule, and bytes of a text."""


def _number(low: float, high: float) -> TensorInput:
    """Return a number within a range, a tensor of no axes."""
    return TensorInput((), low=low, high=high)


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
    transformer, vae = config("transformer"), config("vae")
    rows = int(transformer["sample_size"])
    hop = math.prod(int(ratio) for ratio in vae["downsampling_ratios"])
    longest = rows * hop / int(vae["sampling_rate"])
    return {
        **_text_states("attention_mask", int(config("projection_model")["text_encoder_dim"])),
        "latents": TensorInput((1, int(transformer["in_channels"]), rows)),
        "audio_start_in_s": _number(0.0, max(0.0, longest - seconds)),
    }


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
        "silence_padding_duration": _number(0.0, MAX_PADDING_S),
        "logsnr_min": _number(-20.0, 0.0),
        "logsnr_max": _number(0.0, 20.0),
    }


MAX_PADDING_S = 60.0
"""Seconds of room after the sound at most."""


def ace_step_inputs(config: Callable[[str], dict[str, Any]], seconds: float) -> TensorInputs:
    """Return the tensors of ACE-Step, whose pipeline takes its starting noise with the rows first."""
    vae = config("vae")
    hop = math.prod(int(ratio) for ratio in vae["downsampling_ratios"])
    rows = _wave_rows(seconds, int(vae["sampling_rate"]), hop)
    return {
        "latents": TensorInput((1, rows, int(config("transformer")["audio_acoustic_hidden_dim"]))),
        "shift": _number(0.1, 20.0),
        "timesteps": TensorInput((STEPS,), "falling", low=1e-3, high=1.0),
        "cfg_interval_start": _number(0.0, 1.0),
        "cfg_interval_end": _number(0.0, 1.0),
        "max_text_length": TensorInput((), "whole", low=1, high=MAX_ENCODED_TOKENS),
        "max_lyric_length": TensorInput((), "whole", low=1, high=MAX_ENCODED_TOKENS),
        "instruction": TensorInput((BYTES,), "text"),
        "audio_codes": _audio_codes(config, rows),
    }


MAX_ENCODED_TOKENS = 8192
"""Tokens of a prompt or of lyrics at most."""

USUAL_CODE_LEVELS = (8, 8, 8, 5, 5, 5)
"""Levels of the quantizer of a tokenizer that names none."""


USUAL_ROWS_PER_CODE = 5
"""Rows of latents of a code, where a detokenizer names no number."""


def _audio_codes(config: Callable[[str], dict[str, Any]], rows: int) -> TensorInput:
    """Return the codes of ACE-Step's audio tokenizer; a checkpoint may lack it, and then the engine refuses them."""
    try:
        levels = config("audio_tokenizer").get("fsq_input_levels") or USUAL_CODE_LEVELS
        rows_per_code = int(config("audio_token_detokenizer").get("pool_window_size") or USUAL_ROWS_PER_CODE)
    except MissingWeights:
        levels, rows_per_code = USUAL_CODE_LEVELS, USUAL_ROWS_PER_CODE
    count = math.ceil(rows / _at_least_one(rows_per_code))
    return TensorInput((count,), "whole", low=0, high=math.prod(int(level) for level in levels) - 1)


def _at_least_one(number: int) -> int:
    return max(1, number)
