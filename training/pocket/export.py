"""`python -m training.pocket.export FOLDER`: export the model for inference in half precision.

`pocket.safetensors` contains the text encoder, the codec, the generator if it is used, the latents' scale and the bank;
`pocket.json` contains sizes, steps, the vocabulary, and the descriptions of the bank's sounds.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from timbred.engine.families.pocket import load_pipeline
from timbred.engine.families.pocket_networks import Generator
from timbred.models.pocket import CARD_NAME, MAX_SECONDS, SAMPLE_RATE, WEIGHTS_NAME, EarSizes, Vocabulary
from timbred.models.pocket_words import read_words
from training.pocket.bank import entry_vectors
from training.pocket.pipeline import Pocket, assemble, load_pocket
from training.pocket.running import fingerprint
from training.pocket.sounds import draw
from training.pocket.vocabulary import VOCABULARY
from training.pocket.words import AFTER, BEFORE, FILLERS, caption

CAPTIONS = 20_000
"""Captions whose words are known."""

MIN_USES = 3
"""Smallest number of captions with a word that is known."""


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the words of several texts."""
    return frozenset(word.text for text in texts for word in read_words(text))


def known_words(captions: int = CAPTIONS) -> tuple[str, ...]:
    """Return the words of captions that say something about the sound."""
    random = np.random.default_rng(5)
    uses: dict[str, int] = {}
    for _ in range(captions):
        for word in {word.text for word in read_words(caption(draw(random), random, rough=False))}:
            uses[word] = uses.get(word, 0) + 1
    named = words_of(name for _, names in VOCABULARY.names for name in names)
    often = {word for word, count in uses.items() if count >= MIN_USES} - words_of(FILLERS)
    return tuple(sorted((named | often) - words_of((*BEFORE, *AFTER))))


def known_vocabulary(captions: int = CAPTIONS) -> Vocabulary:
    """Return the vocabulary with the known and the neutral words."""
    words = known_words(captions)
    neutral = tuple(sorted(words_of((*BEFORE, *AFTER, *FILLERS)).difference(words)))
    return dataclasses.replace(VOCABULARY, words=words, neutral=neutral)


def _parts(pocket: Pocket) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {"text": pocket.text, "codec": pocket.codec}
    if pocket.generator is not None:
        parts["generator"] = pocket.generator
    if pocket.ear is not None:
        parts["ear"] = pocket.ear
    return parts


def export(pocket: Pocket, folder: Path, captions: int = CAPTIONS) -> int:
    """Write both files; return their size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    bank = pocket.sketcher.bank.stored
    weights: dict[str, Tensor] = {"scale": pocket.scale, "middle": pocket.middle, "bank": bank.codes}
    weights |= {"bank scale": bank.scale, "bank middle": bank.middle}
    weights["bank vectors"] = entry_vectors(pocket.text, bank.entries).half()
    for part, module in _parts(pocket).items():
        for name, value in module.state_dict().items():
            weights[f"{part}.{name}"] = value.half().contiguous() if value.is_floating_point() else value
    save_file(weights, folder / WEIGHTS_NAME)
    generator = pocket.generator
    card: dict[str, Any] = {
        "sample_rate": SAMPLE_RATE,
        "channels": 2,
        "max_seconds": MAX_SECONDS,
        "steps": pocket.steps,
        "guidance": pocket.guidance,
        "refinement": pocket.refinement,
        "sizes": {
            "text": dataclasses.asdict(pocket.text.sizes),
            "generator": None if generator is None else dataclasses.asdict(generator.sizes),
            "codec": dataclasses.asdict(pocket.codec.sizes),
            "ear": None if pocket.ear is None else dataclasses.asdict(EarSizes()),
        },
        "vocabulary": dataclasses.asdict(known_vocabulary(captions)),
        "encoder": bank.encoder,
        "bank": bank.rows(),
        "version": f"2-{fingerprint(weights):08x}",
    }
    (folder / CARD_NAME).write_text(json.dumps(card) + "\n")
    return sum((folder / name).stat().st_size for name in (WEIGHTS_NAME, CARD_NAME))


def load_exported(folder: Path) -> Pocket:
    """Load an exported model in full precision."""
    loaded = load_pipeline(folder, "pocket", lambda _: None)
    generator = loaded.generator if isinstance(loaded.generator, Generator) else None
    pocket = assemble(loaded.text_encoder, generator, loaded.vae, loaded.bank, loaded.scale, loaded.middle)
    card = loaded.card
    pocket.steps, pocket.guidance, pocket.refinement, pocket.ear = (
        card.steps,
        card.guidance,
        card.refinement,
        loaded.ear,
    )
    return pocket


def main() -> None:
    """Export the trained model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--generator", action="store_true", help="with the generator; without, sounds are sketches")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    size = export(load_pocket(sketches_only=not arguments.generator), arguments.folder)
    print(f"{size / 2**20:.1f} MiB in {arguments.folder}")


if __name__ == "__main__":
    main()
