"""Stage `export`: write the trained parts as an AudioLDM 2 checkpoint in diffusers' format, float16.

Every component has its own folder and is loaded by its class's `from_pretrained`. `card.json` next to the folder
is the model's card for the daemon.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from training import codec, diffusion, guidance, text, text_training, vocoder_training
from training.settings import CARD, EXPORT, SETTINGS
from training.synthesis.kinds import KINDS

COMPONENTS = {
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "ClapModel"),
    "text_encoder_2": ("transformers", "T5EncoderModel"),
    "projection_model": ("audioldm2", "AudioLDM2ProjectionModel"),
    "language_model": ("transformers", "GPT2LMHeadModel"),
    "tokenizer": ("transformers", "RobertaTokenizer"),
    "tokenizer_2": ("transformers", "T5Tokenizer"),
    "feature_extractor": ("transformers", "ClapFeatureExtractor"),
    "unet": ("audioldm2", "AudioLDM2UNet2DConditionModel"),
    "scheduler": ("diffusers", "DPMSolverMultistepScheduler"),
    "vocoder": ("timbred.engine.codecs.spectral_vocoder", "SpectralVocoder"),
}
WORDS = (
    "short",
    "long",
    "low",
    "high",
    "dark",
    "bright",
    "punchy",
    "soft",
    "fast attack",
    "slow attack",
    "rising",
    "falling",
    "dry",
    "reverberant",
    "distorted",
    "metallic",
    "noisy",
    "warm",
    "airy",
    "detuned",
    "note names such as c2 or f#4",
)


def train(device: torch.device, minutes: float | None = None) -> None:
    """Write the model folder and the card from the stages' checkpoints; `minutes` is ignored."""
    del minutes, device
    cpu = torch.device("cpu")
    side = text_training.load(cpu)
    parts = {
        "vae": codec.load(cpu),
        "text_encoder": side.clap,
        "text_encoder_2": side.t5,
        "projection_model": side.projection,
        "language_model": side.gpt,
        "tokenizer": side.tokenizer,
        "tokenizer_2": side.tokenizer_2,
        "feature_extractor": text.feature_extractor(),
        "unet": guidance.load(cpu),
        "scheduler": diffusion.scheduler(),
        "vocoder": vocoder_training.load(cpu),
    }
    staging = Path(tempfile.mkdtemp(prefix=".model-", dir=EXPORT.parent))
    staging.chmod(0o755)
    for name, part in parts.items():
        half: Any = part.half() if isinstance(part, torch.nn.Module) else part
        half.save_pretrained(staging / name)
    _write_json(staging / "model_index.json", {"_class_name": "AudioLDM2Pipeline", **_index()})
    _remove_local_paths(staging)
    _remove_export()
    staging.rename(EXPORT)
    write_card()
    size = sum(path.stat().st_size for path in EXPORT.rglob("*") if path.is_file())
    counts = {
        name: sum(value.numel() for value in part.parameters())
        for name, part in parts.items()
        if isinstance(part, torch.nn.Module)
    }
    for name, count in counts.items():
        print(f"{name:18} {count / 1e6:6.2f} M")
    print(f"{'all':18} {sum(counts.values()) / 1e6:6.2f} M parameters, {size / 1e6:.1f} MB on disk")


def _index() -> dict[str, object]:
    import diffusers

    return {
        "_diffusers_version": diffusers.__version__,
        **{name: list(source) for name, source in sorted(COMPONENTS.items())},
    }


def _remove_export() -> None:
    """Remove the earlier export if its folder contains nothing else.

    Raises:
        FileExistsError: The folder contains other files; the new export stays in its staging folder.
    """
    if not EXPORT.exists():
        return
    foreign = {path.name for path in EXPORT.iterdir()} - {*COMPONENTS, "model_index.json"}
    if foreign:
        raise FileExistsError(f"{EXPORT} contains other files than an export: {', '.join(sorted(foreign))}; move them")
    shutil.rmtree(EXPORT)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _remove_local_paths(folder: Path) -> None:
    """Remove the local paths that the libraries write into the configurations."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in ("_name_or_path", "name_or_path", "is_local", "local_files_only"):
            content.pop(key, None)
        _write_json(path, content)


def write_card() -> None:
    """Write the model's card."""
    inference = SETTINGS.inference
    _write_json(
        CARD,
        {
            "name": "pocket",
            "title": "Pocket, timbred's own embedded model: drums, synths and textures from words",
            "task": "text-to-audio",
            "licence": "Apache-2.0",
            "native_rate": SETTINGS.mel.sample_rate,
            "channels": 1,
            "min_seconds": inference.min_seconds,
            "max_seconds": inference.max_seconds,
            "default_seconds": inference.default_seconds,
            "steps": inference.steps,
            "guidance": inference.guidance,
            "negative_guidance": inference.negative_guidance,
            "scheduler": inference.scheduler,
            "negative": "",
            "kinds": list(KINDS),
            "words": list(WORDS),
        },
    )
