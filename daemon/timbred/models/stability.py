"""Conversion of checkpoints in Stability AI's own layout into diffusers': once, when a model is installed.

That layout is one `model_config.json`, one file of weights, and the text encoder in a folder of its own:

    model_config.json    types and sizes of all blocks
    model.safetensors    weights of the network, the autoencoder and the conditioners
    t5gemma-b-b-ul2/     the text encoder with its tokenizer, named as in the configuration (t5-base)

Tensors are renamed, split and reordered as bytes, so their precision stays, and torch isn't needed. A block that
diffusers' classes can't run is refused by its name, and so is a tensor that belongs nowhere.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from timbred.errors import MissingWeights, ModelError
from timbred.models import checkpoint
from timbred.models.checkpoint import CopiedTensor, SourceTensor, copy_of

CONFIG_NAME = "model_config.json"
"""Name of the configuration in Stability AI's layout."""

DIFFUSERS_VERSION = "0.42.1"
"""Version of diffusers whose layout is written."""

WEIGHTS_NAME = "model.safetensors"
"""Name of the weights."""

AUTOENCODER, NETWORK, CONDITIONERS = "pretransform.model.", "model.model.", "conditioner.conditioners."
"""Beginnings of the names of tensors."""

Allowed = Mapping[str, tuple[object, ...]]
"""Values that a configuration may have at a path, None if it may lack it."""

STABLE_AUDIO_BLOCKS: Allowed = {
    "model.pretransform.type": ("autoencoder",),
    "model.pretransform.config.encoder.type": ("oobleck",),
    "model.pretransform.config.decoder.type": ("oobleck",),
    "model.pretransform.config.bottleneck.type": ("vae",),
    "model.diffusion.type": ("dit",),
    "model.diffusion.diffusion_objective": (None, "v"),
    "model.diffusion.config.transformer_type": (None, "continuous_transformer"),
    "model.diffusion.config.global_cond_type": (None, "prepend"),
    "model.diffusion.config.attn_kwargs.qk_norm": (None, "none"),
    "model.diffusion.config.norm_type": (None, "layer_norm"),
    "model.diffusion.config.patch_size": (None, 1),
}
"""Blocks that diffusers' classes for Stable Audio run."""

STABLE_AUDIO_3_BLOCKS: Allowed = {
    "model.pretransform.type": ("autoencoder",),
    "model.pretransform.config.pretransform.type": ("patched",),
    "model.pretransform.config.encoder.type": ("same",),
    "model.pretransform.config.decoder.type": ("same",),
    "model.diffusion.type": ("dit",),
    "model.diffusion.diffusion_objective": ("rf_denoiser", "rectified_flow"),
    "model.diffusion.config.transformer_type": (None, "continuous_transformer"),
    "model.diffusion.config.global_cond_type": ("adaLN",),
    "model.diffusion.config.timestep_features_type": ("expo",),
    "model.diffusion.config.attn_kwargs.qk_norm": ("rms",),
    "model.diffusion.config.norm_type": ("rms_norm",),
    "model.diffusion.config.patch_size": (None, 1),
}
"""Blocks that diffusers' classes for Stable Audio 3 run."""


@dataclass
class _Component:
    """A component of the pipeline: library and class in the index, configuration, and tensors by name."""

    library: str
    kind: str
    config: dict[str, Any]
    tensors: dict[str, CopiedTensor] = field(default_factory=dict[str, CopiedTensor])


@dataclass(frozen=True)
class _TextEncoder:
    """Classes of a family's pipeline, text encoder and tokenizer, and changes of the encoder's configuration."""

    pipeline: str
    kind: str
    tokenizer: str
    changes: Mapping[str, object] = field(default_factory=dict[str, object])


T5: Final = _TextEncoder("StableAudioPipeline", "T5EncoderModel", "T5TokenizerFast")
T5_GEMMA: Final = _TextEncoder(
    "StableAudio3Pipeline", "T5GemmaEncoderModel", "GemmaTokenizerFast", {"is_encoder_decoder": False}
)


def is_stability(folder: Path) -> bool:
    """Tell if a folder has a model in Stability AI's layout and not in diffusers'."""
    return (folder / CONFIG_NAME).is_file() and not (folder / checkpoint.INDEX_NAME).exists()


def convert(folder: Path, name: str, on_file: Callable[[Path], None] = lambda _: None) -> None:
    """Convert a model in place: write diffusers' folders, then delete the converted weights.

    It may be interrupted and repeated: the index, by which the folder counts as converted, is written last.

    Args:
        folder: The model's folder.
        name: The model's name, for messages.
        on_file: Called with each file that was written.

    Raises:
        ModelError: A block or a tensor isn't known; names it.
        MissingWeights: A file is missing or damaged.
        OSError: A file can't be read or written.
    """
    config = checkpoint.read_json(folder / CONFIG_NAME, name, "get the model again")
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise MissingWeights(
            f"{name}: there is no {WEIGHTS_NAME} beside {CONFIG_NAME}; get it as safetensors, a .ckpt isn't opened"
        )
    try:
        tensors = checkpoint.read_tensors(weights)
        encoder = _prompt_type(config, name)
        make = _stable_audio_3 if encoder is T5_GEMMA else _stable_audio
        components = make(config, tensors, name)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"{name}: {folder} can't be converted ({error!r}): its {CONFIG_NAME} and weights differ"
        ) from error
    if tensors:
        raise ModelError(f"{name}: {weights} has an unknown tensor, {min(tensors)}; nothing was installed")
    text = _place_text_encoder(folder, config, encoder, name)
    index: dict[str, Any] = {"_class_name": encoder.pipeline, "_diffusers_version": DIFFUSERS_VERSION}
    for part, component in {**components, **text}.items():
        index[part] = [component.library, component.kind]
        for file in _write_component(folder / part, component, weights):
            on_file(file)
    _write_json(folder / checkpoint.INDEX_NAME, index)
    on_file(folder / checkpoint.INDEX_NAME)
    weights.unlink()


def _prompt_type(config: Mapping[str, Any], name: str) -> _TextEncoder:
    """Return the text encoder that the configuration names.

    Raises:
        ModelError: A conditioner isn't known.
    """
    encoder: _TextEncoder | None = None
    for conditioner in config["model"]["conditioning"]["configs"]:
        kind, identity = conditioner["type"], conditioner["id"]
        if identity == "prompt" and kind in ("t5", "t5gemma"):
            encoder = T5 if kind == "t5" else T5_GEMMA
        elif kind != "number" or identity not in ("seconds_start", "seconds_total"):
            raise _unknown_block(name, f"model.conditioning.configs: {identity}", kind)
    if encoder is None:
        raise _unknown_block(name, "model.conditioning.configs: prompt", None)
    return encoder


def _unknown_block(name: str, path: str, value: object) -> ModelError:
    return ModelError(f"{name}: its {CONFIG_NAME} has an unknown block, {path} is {value!r}; nothing was installed")


def _check_blocks(config: Mapping[str, Any], allowed: Allowed, name: str) -> None:
    for path, values in allowed.items():
        value: Any = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value not in values:
            raise _unknown_block(name, path, value)


def _conditioner(config: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Return the configuration of a conditioner."""
    conditioners = {one["id"]: one["config"] for one in config["model"]["conditioning"]["configs"]}
    return conditioners[identity]


# Stable Audio


def _stable_audio(config: Mapping[str, Any], tensors: dict[str, SourceTensor], name: str) -> dict[str, _Component]:
    _check_blocks(config, STABLE_AUDIO_BLOCKS, name)
    model = config["model"]
    network, autoencoder = model["diffusion"]["config"], model["pretransform"]["config"]
    encoder, decoder = autoencoder["encoder"]["config"], autoencoder["decoder"]["config"]
    if encoder["channels"] != encoder["latent_dim"] or encoder["c_mults"] != decoder["c_mults"]:
        raise _unknown_block(name, "model.pretransform.config.encoder.config.channels", encoder["channels"])
    seconds = _conditioner(config, "seconds_total")
    if "seconds_start" not in {one["id"] for one in model["conditioning"]["configs"]}:
        raise _unknown_block(name, "model.conditioning.configs: seconds_start", None)
    width = int(model["conditioning"]["cond_dim"])
    widths = {"text_encoder_dim": width, "conditioning_dim": width}
    values = {"min_value": seconds["min_val"], "max_value": seconds["max_val"]}
    projection = _Component("stable_audio", "StableAudioProjectionModel", {**widths, **values})
    for key in _names(tensors, CONDITIONERS):
        local = key.removeprefix(CONDITIONERS)
        new = local.replace("embedder.embedding", "time_positional_embedding").replace(
            "prompt.proj_out", "text_projection"
        )
        new = new.replace("seconds_start", "start_number_conditioner").replace(
            "seconds_total", "end_number_conditioner"
        )
        projection.tensors[new] = copy_of(tensors.pop(key))
        if new == "text_projection.weight":
            projection.config["text_encoder_dim"] = projection.tensors[new].shape[1]
    head = int(network["embed_dim"]) // int(network["num_heads"])
    transformer = _Component(
        "diffusers",
        "StableAudioDiTModel",
        {
            "sample_size": int(config["sample_size"]) // int(autoencoder["downsampling_ratio"]),
            "in_channels": network["io_channels"],
            "num_layers": network["depth"],
            "attention_head_dim": head,
            "num_attention_heads": network["num_heads"],
            "num_key_value_attention_heads": tensors[NETWORK + FIRST_KEYS].shape[0] // 2 // head,
            "out_channels": network["io_channels"],
            "cross_attention_dim": network["cond_token_dim"],
            "time_proj_dim": 2 * math.prod(tensors[NETWORK + "timestep_features.weight"].shape),
            "global_states_input_dim": network["global_cond_dim"],
            "cross_attention_input_dim": network["cond_token_dim"],
        },
    )
    _add_stable_audio_network(transformer.tensors, tensors)
    _check_network(transformer.tensors, STABLE_AUDIO_PARTS, int(network["depth"]), name)
    vae = _Component(
        "diffusers",
        "AutoencoderOobleck",
        {
            "encoder_hidden_size": encoder["channels"],
            "downsampling_ratios": encoder["strides"],
            "channel_multiples": encoder["c_mults"],
            "decoder_channels": decoder["channels"],
            "decoder_input_channels": decoder["latent_dim"],
            "audio_channels": autoencoder["io_channels"],
            "sampling_rate": config["sample_rate"],
        },
    )
    for key in _names(tensors, AUTOENCODER):
        source = tensors.pop(key)
        new = _oobleck_name(key.removeprefix(AUTOENCODER), len(encoder["strides"]))
        shape = (1, *source.shape, 1) if "snake" in new else source.shape
        vae.tensors[new] = copy_of(source.reshaped(*shape))
    return {"vae": vae, "projection_model": projection, "transformer": transformer, "scheduler": _COSINE_SCHEDULER}


_COSINE_SCHEDULER = _Component(
    "diffusers",
    "CosineDPMSolverMultistepScheduler",
    {"prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_min": 0.3, "sigma_max": 500, "solver_order": 2},
)

FIRST_KEYS = "transformer.layers.0.cross_attn.to_kv.weight"
"""Name of keys and values of the first layer, whose number of heads the configuration doesn't name."""

STABLE_AUDIO_RENAMES = (
    ("transformer.", ""), ("layers.", "transformer_blocks."), ("self_attn.", "attn1."), ("cross_attn.", "attn2."),
    ("ff.ff.", "ff.net."), ("pre_norm.", "norm1."), ("cross_attend_norm.", "norm2."), ("ff_norm.", "norm3."),
    ("to_out.", "to_out.0."), ("gamma", "weight"), ("beta", "bias"), ("project_", "proj_"),
    ("to_timestep_embed.", "timestep_proj."), ("to_global_embed.", "global_proj."),
    ("to_cond_embed.", "cross_attention_proj."), ("timestep_features.", "time_proj."),
)  # fmt: skip
"""Parts of names in the network of Stable Audio, and what diffusers calls them."""


def _add_stable_audio_network(targets: dict[str, CopiedTensor], tensors: dict[str, SourceTensor]) -> None:
    for key in _names(tensors, NETWORK):
        source, new = tensors.pop(key), key.removeprefix(NETWORK)
        new = _renamed(new, STABLE_AUDIO_RENAMES)
        if new == "rotary_pos_emb.inv_freq":
            continue  # computed from the size of a head
        if "to_qkv" in new or "to_kv" in new:
            letters = "qkv" if "to_qkv" in new else "kv"
            for letter, part in zip(letters, source.chunks(len(letters)), strict=True):
                targets[new.replace(f"to_{letters}", f"to_{letter}")] = copy_of(part)
        else:
            targets[new] = copy_of(source.reshaped(source.shape[0]) if new == "time_proj.weight" else source)
    for new in [new for new in targets if ".norm" in new and new.endswith(".weight")]:
        gamma, bias = targets[new], new.replace(".weight", ".bias")
        if bias not in targets:  # a norm without one adds 0
            targets[bias] = CopiedTensor(
                gamma.dtype, gamma.shape, content=bytes(sum(part.size for part in gamma.parts))
            )


CONDITIONER_RENAMES = (
    ("embedder.embedding", "time_positional_embedding"), ("prompt.proj_out", "text_projection"),
    ("seconds_start", "start_number_conditioner"), ("seconds_total", "end_number_conditioner"),
)  # fmt: skip
"""Parts of names in the conditioners of Stable Audio, and what diffusers calls them."""


def _renamed(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    """Return a name with its parts renamed, one after the other."""
    for old, new in renames:
        name = name.replace(old, new)
    return name


def _oobleck_name(local: str, depth: int) -> str:
    """Return diffusers' name of a tensor of Oobleck.

    >>> _oobleck_name("encoder.layers.1.layers.0.layers.1.weight_g", 3)
    'encoder.block.0.res_unit1.conv1.weight_g'
    >>> _oobleck_name("decoder.layers.5.weight_v", 3), _oobleck_name("decoder.layers.4.alpha", 3)
    ('decoder.conv2.weight_v', 'decoder.snake1.alpha')
    """
    side, _, index, *rest = local.split(".")
    number = int(index)
    if number == 0 or number > depth:
        return ".".join([side, {0: "conv1", depth + 1: "snake1", depth + 2: "conv2"}[number], *rest])
    _, inner, *rest = rest
    if side == "encoder":
        part = {"3": "snake1", "4": "conv1"}.get(inner, f"res_unit{int(inner) + 1}")
    else:
        part = {"0": "snake1", "1": "conv_t1"}.get(inner, f"res_unit{int(inner) - 1}")
    if part.startswith("res_unit"):
        _, layer, *rest = rest
        rest = [("snake1", "conv1", "snake2", "conv2")[int(layer)], *rest]
    return ".".join([side, "block", str(number - 1), part, *rest])


# Stable Audio 3


def _stable_audio_3(config: Mapping[str, Any], tensors: dict[str, SourceTensor], name: str) -> dict[str, _Component]:
    _check_blocks(config, STABLE_AUDIO_3_BLOCKS, name)
    objective = config["model"]["diffusion"]["diffusion_objective"]
    components = {
        "vae": _same(config, tensors),
        "duration_embedder": _duration_embedder(config, tensors),
        "transformer": _stable_audio_3_network(config, tensors),
        "scheduler": _Component(
            "diffusers",
            "FlowMatchEulerDiscreteScheduler",
            {"num_train_timesteps": 1, "shift": 1.0, "stochastic_sampling": objective == "rf_denoiser"},
        ),
    }
    depth = int(config["model"]["diffusion"]["config"]["depth"])
    _check_network(components["transformer"].tensors, STABLE_AUDIO_3_PARTS, depth, name)
    return components


SAME_RENAMES = (
    ("pre_norm.", "norm_attn."), ("ff_norm.", "norm_ff."), ("self_attn.", "attn."),
    ("ff.ff.0.proj.", "ff.proj_in."), ("ff.ff.2.", "ff.proj_out."),
)  # fmt: skip
"""Parts of names in SAME's transformers, and what diffusers calls them."""

UNUSED_AUTOENCODER = ("bottleneck.noise_scaling_factor", "pretransform.")
"""Beginnings of names in SAME's autoencoder that only its training uses."""


def _same(config: Mapping[str, Any], tensors: dict[str, SourceTensor]) -> _Component:
    autoencoder = config["model"]["pretransform"]["config"]
    encoder, decoder = autoencoder["encoder"]["config"], autoencoder["decoder"]["config"]
    depth = len(encoder["strides"])
    targets: dict[str, CopiedTensor] = {}
    differential = bool(encoder.get("differential", True))
    for key in _names(tensors, AUTOENCODER):
        local, source = key.removeprefix(AUTOENCODER), tensors[key]
        if not local.startswith(UNUSED_AUTOENCODER):
            new = _same_name(local, depth)
            if new is None:
                continue
            targets[new] = _attention(source, differential) if new.endswith("attn.to_qkv.weight") else copy_of(source)
        del tensors[key]
    window = encoder.get("sliding_window") or [1]
    return _Component(
        "diffusers",
        "AutoencoderSAME",
        {
            "audio_channels": autoencoder["io_channels"],
            "patch_size": int(autoencoder["downsampling_ratio"]) // math.prod(encoder["strides"]),
            "encoder_channels": encoder["channels"],
            "encoder_c_mults": encoder["c_mults"],
            "encoder_strides": encoder["strides"],
            "encoder_transformer_depths": encoder["transformer_depths"],
            "latent_dim": encoder["latent_dim"],
            "use_differential_attention": differential,
            "dim_heads": encoder.get("dim_heads", 128),
            "ff_mult": encoder.get("ff_mult", 3),
            "sliding_window": window[0],
            "encoder_sinusoidal_blocks": encoder.get("sinusoidal_blocks", [0] * depth),
            "decoder_sinusoidal_blocks": decoder.get("sinusoidal_blocks", [0] * depth),
            "sampling_rate": config["sample_rate"],
        },
        targets,
    )


def _same_name(local: str, depth: int) -> str | None:
    """Return diffusers' name of a tensor of SAME; None for one that it lacks.

    >>> _same_name("decoder.layers.3.transformers.0.pre_norm.alpha", 1)
    'decoder.blocks.0.transformers.0.norm_attn.alpha'
    >>> _same_name("encoder.layers.2.weight", 1), _same_name("encoder.layers.9.weight", 1)
    ('encoder.proj.weight', None)
    """
    if local.startswith("bottleneck."):
        known = {"scaling_factor": "scale", "bias": "bias", "running_std": "running_std"}
        suffix = known.get(local.removeprefix("bottleneck."))
        return None if suffix is None else f"bottleneck.{suffix}"
    side, _, index, *rest = local.split(".")
    number = int(index)
    projection, first_block = (depth + 1, 0) if side == "encoder" else (1, 3)
    if number == projection:
        return ".".join([side, "proj", *rest])
    if not first_block <= number < first_block + depth:
        return None
    name = ".".join([side, "blocks", str(number - first_block), *rest])
    return _renamed(name, SAME_RENAMES)


def _attention(source: SourceTensor, differential: bool) -> CopiedTensor:
    """Return queries, keys and values in the order that diffusers' differential attention has them."""
    if not differential:
        return copy_of(source)
    query, key, value, query_2, key_2 = source.chunks(5)
    return copy_of(query, query_2, key, key_2, value)


MIN_FREQUENCY, MAX_FREQUENCY = 0.5, 10_000.0
"""Range of the frequencies that embed a duration, in cycles over the longest one."""


def _duration_embedder(config: Mapping[str, Any], tensors: dict[str, SourceTensor]) -> _Component:
    seconds = _conditioner(config, "seconds_total")
    base = CONDITIONERS + "seconds_total.embedder.embedding.1."
    weight, bias = tensors.pop(base + "weight"), tensors.pop(base + "bias")
    first, last = math.log(MIN_FREQUENCY), math.log(MAX_FREQUENCY)
    ramp = np.linspace(0.0, 1.0, weight.shape[1] // 2, dtype=np.float32)
    frequencies = np.exp(ramp * np.float32(last - first) + np.float32(first)).astype("<f4")
    return _Component(
        "stable_audio_3",
        "StableAudio3DurationEmbedder",
        {
            "output_dim": weight.shape[0],
            "fourier_dim": weight.shape[1],
            "min_val": seconds["min_val"],
            "max_val": seconds["max_val"],
            "min_freq": MIN_FREQUENCY,
            "max_freq": MAX_FREQUENCY,
        },
        {
            "linear.weight": copy_of(weight),
            "linear.bias": copy_of(bias),
            "freqs": CopiedTensor("F32", frequencies.shape, content=frequencies.tobytes()),
        },
    )


NETWORK_SIZES = (
    "io_channels", "embed_dim", "depth", "num_heads", "cond_token_dim", "global_cond_dim", "local_add_cond_dim",
)  # fmt: skip
"""Sizes of the network that both layouts name alike."""


def _stable_audio_3_network(config: Mapping[str, Any], tensors: dict[str, SourceTensor]) -> _Component:
    network = config["model"]["diffusion"]["config"]
    differential = bool(network["attn_kwargs"].get("differential", False))
    targets: dict[str, CopiedTensor] = {}
    for key in _names(tensors, NETWORK):
        source = tensors.pop(key)
        new = key.removeprefix(NETWORK).replace("transformer.project_", "proj_").replace("transformer.", "")
        new = new.replace("layers.", "transformer_blocks.")
        new = new.replace("ff.ff.0.proj.", "ff.proj_in.").replace("ff.ff.2.", "ff.proj_out.")
        targets[new] = _attention(source, differential) if "self_attn.to_qkv" in new else copy_of(source)
    padding = CONDITIONERS + "prompt.padding_embedding"
    targets["prompt_padding_embedding"] = copy_of(tensors.pop(padding))
    return _Component(
        "diffusers",
        "StableAudio3DiTModel",
        {
            **{key: network[key] for key in NETWORK_SIZES},
            "patch_size": 1,
            "timestep_features_dim": targets["to_timestep_embed.0.weight"].shape[1],
            "ff_mult": network.get("ff_kwargs", {}).get("mult", 4.0),
            "num_memory_tokens": network.get("num_memory_tokens", 0),
            "use_differential_attention": differential,
        },
        targets,
    )


# the text encoder


def _place_text_encoder(
    folder: Path, config: Mapping[str, Any], encoder: _TextEncoder, name: str
) -> dict[str, _Component]:
    """Move the text encoder and its tokenizer to diffusers' folders, and return them for the index.

    Raises:
        MissingWeights: They aren't in the model's folder.
    """
    prompt = _conditioner(config, "prompt")
    named = str(prompt.get("t5_model_name") or prompt.get("subfolder") or prompt.get("model_name") or "text_encoder")
    own, text, tokenizer = folder / named.rsplit("/", 1)[-1], folder / "text_encoder", folder / "tokenizer"
    if own.is_dir() and own != text:
        for file in sorted(own.iterdir()):
            is_tokenizer = "token" in file.name or file.suffix == ".model"
            target = tokenizer if is_tokenizer else text
            target.mkdir(exist_ok=True)
            file.replace(target / file.name)
        own.rmdir()
    if not (text / "config.json").is_file() or not tokenizer.is_dir():
        raise MissingWeights(
            f"{name}: the text encoder is missing; put {named} into {own.name} beside {CONFIG_NAME}: its config.json, "
            "weights as safetensors, and tokenizer files"
        )
    remedy, settings = "get the text encoder again", tokenizer / "tokenizer_config.json"
    tokens = checkpoint.read_json(settings, name, remedy)
    if "max_length" in prompt:
        tokens["model_max_length"] = prompt["max_length"]
    _write_json(settings, tokens)
    kind = str(tokens.get("tokenizer_class") or encoder.tokenizer)
    described = {**checkpoint.read_json(text / "config.json", name, remedy), **encoder.changes}
    return {
        "text_encoder": _Component("transformers", encoder.kind, described),
        "tokenizer": _Component("transformers", kind, {}),
    }


# files


def _names(tensors: Mapping[str, SourceTensor], prefix: str) -> list[str]:
    return sorted(key for key in tensors if key.startswith(prefix))


STABLE_AUDIO_PARTS = frozenset(
    {"preprocess_conv", "postprocess_conv", "proj_in", "proj_out", "time_proj", "timestep_proj", "global_proj"}
    | {"cross_attention_proj", "norm1", "norm2", "norm3", "attn1", "attn2", "ff"}
)
"""Parts of Stable Audio's network and of its layers, by diffusers' names."""

STABLE_AUDIO_3_PARTS = frozenset(
    {"preprocess_conv", "postprocess_conv", "proj_in", "proj_out", "to_timestep_embed", "to_global_embed"}
    | {"to_cond_embed", "global_cond_embedder", "memory_tokens", "rotary_pos_emb", "prompt_padding_embedding"}
    | {"pre_norm", "cross_attend_norm", "ff_norm", "self_attn", "cross_attn", "ff", "to_local_embed"}
    | {"to_scale_shift_gate"}
)
"""Parts of Stable Audio 3's network and of its layers, by diffusers' names."""


def _check_network(tensors: Mapping[str, CopiedTensor], parts: frozenset[str], depth: int, name: str) -> None:
    """Check that a network has known parts only, and all its layers with the same tensors.

    Raises:
        ModelError: A tensor isn't known, or a layer is incomplete; names it.
    """
    layers: defaultdict[str, set[str]] = defaultdict(set)
    for key in tensors:
        _, number, local = key.split(".", 2) if key.startswith("transformer_blocks.") else ("", "", key)
        if local.split(".")[0] not in parts:
            raise ModelError(f"{name}: its network has an unknown tensor, {key}; nothing was installed")
        if number:
            layers[number].add(local)
    for number in range(depth):
        if layers[str(number)] != layers["0"] or not layers["0"]:
            raise ModelError(f"{name}: layer {number} of its network is incomplete; get the model again")
    if len(layers) != depth:
        raise ModelError(f"{name}: its network has {len(layers)} layers, and {CONFIG_NAME} says {depth}")


def _write_component(folder: Path, component: _Component, weights: Path) -> list[Path]:
    """Write a component's configuration and tensors; return the files."""
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    if component.config:
        is_scheduler = folder.name == "scheduler"
        own = (
            {"_class_name": component.kind, "_diffusers_version": DIFFUSERS_VERSION}
            if component.library != "transformers"
            else {}
        )
        written.append(folder / ("scheduler_config.json" if is_scheduler else "config.json"))
        _write_json(written[0], {**own, **component.config})
    if component.tensors:
        written.append(folder / "diffusion_pytorch_model.safetensors")
        checkpoint.write_tensors(written[-1], component.tensors, weights)
    elif component.library == "transformers":
        written = sorted(file for file in folder.iterdir() if file.is_file())
    return written


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    part.replace(path)
