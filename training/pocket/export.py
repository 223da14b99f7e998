"""`python -m training.pocket.export FOLDER`: export the model for inference in half precision.

`pocket.safetensors` contains the text encoder, the generator, the codec, the latents' scale and the bank;
`pocket.json` contains sizes, steps, the words that the model knows, and the descriptions of the bank's sounds.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.pocket.bank import StoredBank, entries_of
from training.pocket.codec import Codec, CodecSizes
from training.pocket.generator import Generator, GeneratorSizes
from training.pocket.instruments import DRUMS, INSTRUMENTS, UNPITCHED
from training.pocket.patterns import STYLES
from training.pocket.pipeline import Pocket, assemble, load_pocket
from training.pocket.recordings import RECORDINGS
from training.pocket.settings import MAX_SECONDS, SAMPLE_RATE
from training.pocket.sounds import CHORDS, SCALES
from training.pocket.text import TextSide, TextSizes
from training.pocket.words import SYNTHESISED

WEIGHTS, CARD = "pocket.safetensors", "pocket.json"


def known_words() -> dict[str, Any]:
    """Return the kinds by family, and the names of loops, chords and scales."""
    families: dict[str, list[str]] = {}
    for row in INSTRUMENTS:
        families.setdefault(row.family, []).append(row.kind)
    families["drums"] = list(dict.fromkeys(names[0] for names in DRUMS.values()))
    families["effects and ambiences"] = [names[0] for names in UNPITCHED.values()]
    families["recorded"] = list(dict.fromkeys(row.names[0] for row in RECORDINGS.values()))
    families["synthesised"] = [names[0] for names in SYNTHESISED.values()]
    return {"kinds": families, "loops": list(STYLES), "chords": list(CHORDS), "scales": list(SCALES)}


def _parts(pocket: Pocket) -> dict[str, nn.Module]:
    assert pocket.generator is not None
    return {"text": pocket.text, "generator": pocket.generator, "codec": pocket.codec}


def export(pocket: Pocket, folder: Path) -> int:
    """Write both files; return their size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    bank = pocket.sketcher.bank.stored
    weights: dict[str, Tensor] = {"scale": pocket.scale, "middle": pocket.middle, "bank": bank.codes}
    weights |= {"bank scale": bank.scale, "bank middle": bank.middle}
    for part, module in _parts(pocket).items():
        for name, value in module.state_dict().items():
            weights[f"{part}.{name}"] = value.half().contiguous() if value.is_floating_point() else value
    save_file(weights, folder / WEIGHTS)
    assert pocket.generator is not None
    card = {
        "sample_rate": SAMPLE_RATE,
        "channels": 2,
        "max_seconds": MAX_SECONDS,
        "steps": pocket.steps,
        "guidance": pocket.guidance,
        "sizes": {
            "text": dataclasses.asdict(pocket.text.sizes),
            "generator": dataclasses.asdict(pocket.generator.sizes),
            "codec": dataclasses.asdict(pocket.codec.sizes),
        },
        "knows": known_words(),
        "encoder": bank.encoder,
        "bank": bank.rows(),
    }
    (folder / CARD).write_text(json.dumps(card) + "\n")
    return sum((folder / name).stat().st_size for name in (WEIGHTS, CARD))


def load_exported(folder: Path) -> Pocket:
    """Load an exported model in full precision."""
    card: dict[str, Any] = json.loads((folder / CARD).read_text())
    stored = load_file(folder / WEIGHTS)
    sizes: dict[str, dict[str, Any]] = card["sizes"]
    codec_sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in sizes["codec"].items()
    }
    bank = StoredBank(
        stored["bank"], stored["bank scale"], stored["bank middle"], entries_of(card["bank"]), int(card["encoder"])
    )
    pocket = assemble(
        TextSide(TextSizes(**sizes["text"])),
        Generator(GeneratorSizes(**sizes["generator"])),
        Codec(CodecSizes(**codec_sizes)),
        bank,
        stored["scale"].float(),
        stored["middle"].float(),
    )
    pocket.steps, pocket.guidance = int(card["steps"]), float(card["guidance"])
    for part, module in _parts(pocket).items():
        prefix = f"{part}."
        module.load_state_dict(
            {name.removeprefix(prefix): value.float() for name, value in stored.items() if name.startswith(prefix)}
        )
        module.eval()
    return pocket


def main() -> None:
    """Export the trained model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    size = export(load_pocket(), arguments.folder)
    print(f"{size / 2**20:.1f} MiB in {arguments.folder}")


if __name__ == "__main__":
    main()
