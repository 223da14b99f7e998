"""Checkpoints of AudioLDM 2 and Stable Audio 3 in published sizes with random weights, which suffice for timing.

The sizes are in `architectures.json`; the vocabularies are small ones of letters, which changes no network's cost.
"""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines.audioldm2 import modeling_audioldm2
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import StableAudio3DurationEmbedder

from timbred.engine.families.component_loader import quiet_libraries

ARCHITECTURES: dict[str, Any] = json.loads(Path(__file__).with_name("architectures.json").read_text("utf-8"))
MODEL_NAMES = ("audioldm2", "audioldm2-large", "audioldm2-music")
TOKENIZER_LETTERS = "abcdefghijklmnopqrstuvwxyz .,'-0123456789"

_modules: Any = modeling_audioldm2
_transformers: Any = transformers
_diffusers: Any = diffusers


def make(folder: Path, name: str, precision: torch.dtype, sibling: Path | None = None, scale: int = 1) -> Path:
    """Write a checkpoint; components that it shares with its `sibling` are linked.

    `scale` divides the UNet's widths and the text encoders' depths, for machines without the memory for the whole.
    """
    quiet_libraries()
    before = torch.get_default_dtype()
    torch.set_default_dtype(precision)
    torch.manual_seed(MODEL_NAMES.index(name))
    try:
        unet = _unet(name, scale)
        if sibling is None:
            _pipeline(unet, scale).save_pretrained(folder)
        else:
            link_all_but_unet(sibling, folder)
            unet.save_pretrained(folder / "unet")
    finally:
        torch.set_default_dtype(before)
    return folder


def make_stable_audio_3_small(folder: Path) -> Path:
    """Write a checkpoint of Stable Audio 3 small's size, distilled for eight steps, in bfloat16."""
    quiet_libraries()
    torch.manual_seed(len(MODEL_NAMES))
    facts = ARCHITECTURES["stable_audio_3_small"]
    tokenizer = _gemma_tokenizer()
    encoder = _transformers.T5GemmaModuleConfig(vocab_size=len(tokenizer), **facts["text_encoder"])
    text_encoder = _transformers.T5GemmaEncoderModel(
        _transformers.T5GemmaConfig(
            encoder=encoder, decoder=encoder, vocab_size=len(tokenizer), is_encoder_decoder=False
        )
    )
    pipeline = _diffusers.StableAudio3Pipeline(
        vae=_fill_zero_weights(_diffusers.AutoencoderSAME(**facts["vae"])),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        duration_embedder=StableAudio3DurationEmbedder(**facts["duration_embedder"]),
        transformer=_fill_zero_weights(stable_audio_3_transformer()),
        scheduler=_diffusers.FlowMatchEulerDiscreteScheduler(**facts["scheduler"]),
    )
    pipeline.to(torch.bfloat16).save_pretrained(folder)
    return folder


def stable_audio_3_transformer() -> Any:
    """Return a transformer of Stable Audio 3 small's size."""
    return _diffusers.StableAudio3DiTModel(**ARCHITECTURES["stable_audio_3_small"]["transformer"])


@torch.no_grad()
def _fill_zero_weights(module: Any) -> Any:
    """Add noise to weights that are initialised to one value, because zeros would hide differences of the outputs."""
    for parameter in module.parameters():
        if parameter.numel() > 1 and parameter.min() == parameter.max():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return module


def _unet(name: str, scale: int) -> Any:
    facts = dict(ARCHITECTURES["unet"][name])
    facts["block_out_channels"] = tuple(width // scale for width in facts["block_out_channels"])
    facts["attention_head_dim"] //= scale
    return _modules.AudioLDM2UNet2DConditionModel(**facts)


def _pipeline(unet: Any, scale: int) -> Any:
    shared = {name: _remove_layers(facts, scale) for name, facts in ARCHITECTURES["shared"].items()}
    clap_tokenizer, t5_tokenizer = _tokenizers()
    clap = _transformers.ClapModel(
        _transformers.ClapConfig(
            text_config=shared["clap_text"],
            audio_config=shared["clap_audio"],
            projection_dim=shared["clap_projection_dim"],
        )
    )
    gpt2 = _transformers.GPT2LMHeadModel(_transformers.GPT2Config(**shared["gpt2"]))
    gpt2.config.max_new_tokens = 8
    return _diffusers.AudioLDM2Pipeline(
        vae=_diffusers.AutoencoderKL(**shared["vae"]),
        text_encoder=clap,
        text_encoder_2=_transformers.T5EncoderModel(_transformers.T5Config(**shared["t5"])),
        projection_model=_modules.AudioLDM2ProjectionModel(**shared["projection"]),
        language_model=gpt2,
        tokenizer=clap_tokenizer,
        tokenizer_2=t5_tokenizer,
        feature_extractor=_transformers.ClapFeatureExtractor(feature_size=64, sampling_rate=48000),
        unet=unet,
        scheduler=_diffusers.DDIMScheduler(**shared["scheduler"]),
        vocoder=_transformers.SpeechT5HifiGan(_transformers.SpeechT5HifiGanConfig(**shared["vocoder"])),
    )


def _remove_layers(facts: Any, scale: int) -> Any:
    if not isinstance(facts, dict):
        return facts
    depths = ("num_layers", "n_layer", "num_hidden_layers")
    return {name: max(1, value // scale) if name in depths else value for name, value in facts.items()}


def _tokenizers() -> tuple[Any, Any]:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *TOKENIZER_LETTERS]
    clap = _transformers.RobertaTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])
    clap.model_max_length = 512
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -2.0),
        *((character, -3.0) for character in TOKENIZER_LETTERS),
    ]
    t5 = _transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    t5.model_max_length = 128
    return clap, t5


def _gemma_tokenizer() -> Any:
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *TOKENIZER_LETTERS]
    tokenizer = _transformers.GemmaTokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[])
    tokenizer.model_max_length = 256
    return tokenizer


def link_all_but_unet(sibling: Path, folder: Path) -> None:
    """Link the files of a checkpoint into another folder, without those of its UNet."""
    for file in sibling.rglob("*"):
        path = folder / file.relative_to(sibling)
        if file.is_file() and "unet" not in file.parts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(file)
