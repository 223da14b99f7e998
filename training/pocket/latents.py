"""`python -m training.pocket.latents`: encode every sound to latent vectors with one byte for each value.

`latents-NAME.npz` contains `codes` and `sketches`, int8 (all tokens, latent), of the sounds and of their sketches,
`scale` and `middle` (latent,), `tokens` (sounds,), and the descriptions as JSON. It has to be written again after a
change of the encoder or the bank.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timbred.engine.families.pocket_networks import BandCodec
from timbred.engine.families.pocket_sketch import Bank, Sketcher
from timbred.models.pocket import TOKEN_FRAMES
from training.pocket.bank import load_bank
from training.pocket.codec import load_codec
from training.pocket.features import Library, from_bytes, held_out_shards, training_shards
from training.pocket.running import choose_device, fingerprint
from training.pocket.settings import RUNS
from training.pocket.sounds import Sound
from training.pocket.vocabulary import VOCABULARY

RANGE = 4.0
"""Largest value of a byte in standard deviations."""


def latents_path(name: str) -> Path:
    """Return the path of the "training" or "held-out" latents."""
    return RUNS / f"latents-{name}.npz"


def stored_encoder(path: Path) -> int | None:
    """Return the fingerprint of the encoder of stored latents; None if the file doesn't exist."""
    if not path.exists():
        return None
    with np.load(path) as stored:
        return int(stored["encoder"])


class Latents:
    """Latent vectors of many sounds, scaled to unit variance.

    Attributes:
        sounds: descriptions.
        tokens: number of vectors of each sound.
        scale, middle: (latent,), of the codec's latents, which are `values * scale + middle`.
        encoder: fingerprint of their encoder.
    """

    def __init__(self, name: str) -> None:
        with np.load(latents_path(name)) as stored:
            self.codes: NDArray[np.int8] = stored["codes"]
            self.sketches: NDArray[np.int8] = stored["sketches"]
            self.tokens: NDArray[np.int64] = stored["tokens"]
            self.scale = torch.from_numpy(stored["scale"])
            self.middle = torch.from_numpy(stored["middle"])
            self.encoder = int(stored["encoder"])
            self.sounds = [Sound.from_dict(row) for row in json.loads(str(stored["sounds"]))]
        self.starts = np.concatenate(([0], np.cumsum(self.tokens)[:-1]))

    def __len__(self) -> int:
        return len(self.sounds)

    def vectors(self, index: int) -> Tensor:
        """Return the vectors of one sound, (tokens, latent)."""
        return self._rows(self.codes, index)

    def sketch(self, index: int) -> Tensor:
        """Return the vectors of the sketch of one sound, (tokens, latent)."""
        return self._rows(self.sketches, index)

    def _rows(self, codes: NDArray[np.int8], index: int) -> Tensor:
        start = int(self.starts[index])
        rows = codes[start : start + int(self.tokens[index])]
        return torch.from_numpy(rows.astype(np.float32)) * (RANGE / 127)


@torch.no_grad()
def encode_library(codec: BandCodec, library: Library, device: torch.device) -> list[NDArray[np.float32]]:
    """Return the codec's latents of each sound."""
    latents: list[NDArray[np.float32]] = []
    for index in range(len(library)):
        channels = from_bytes(library.stored(index).to(device))
        with torch.autocast(device.type, torch.bfloat16):
            mean, _ = codec.encoder(channels[None])
        latents.append(mean[0].float().cpu().numpy())
    return latents


@torch.no_grad()
def encode_sketches(codec: BandCodec, library: Library) -> list[NDArray[np.float32]]:
    """Return the codec's latents of the sketch of each sound."""
    stored = load_bank()
    sketcher = Sketcher(Bank(codec.decoder, stored, len(stored.entries)), VOCABULARY)
    latents: list[NDArray[np.float32]] = []
    for sound, tokens in zip(library.sounds, library.tokens, strict=True):
        frames = sketcher.sketch([sound], int(tokens) * TOKEN_FRAMES)
        with torch.autocast("cpu", torch.bfloat16):
            mean, _ = codec.encoder(frames.stacked()[None])
        latents.append(mean[0].float().numpy())
    return latents


def store(
    name: str,
    vectors: list[NDArray[np.float32]],
    sketches: list[NDArray[np.float32]],
    sounds: list[Sound],
    scale: Tensor,
    middle: Tensor,
    encoder: int,
) -> None:
    """Write one file."""

    def codes_of(parts: list[NDArray[np.float32]]) -> NDArray[np.int8]:
        joined = (np.concatenate(parts) - middle.numpy()) / scale.numpy()
        return np.clip(np.round(joined * (127 / RANGE)), -127, 127).astype(np.int8)

    temporary = latents_path(name).with_suffix(".tmp.npz")
    np.savez(
        temporary,
        codes=codes_of(vectors),
        sketches=codes_of(sketches),
        tokens=np.array([len(rows) for rows in vectors]),
        scale=scale.numpy(),
        middle=middle.numpy(),
        encoder=encoder,
        sounds=np.array(json.dumps([sound.to_dict() for sound in sounds])),
    )
    temporary.rename(latents_path(name))


def main() -> None:
    """Encode all analysed sounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    codec = load_codec(device)
    library = Library(training_shards())
    vectors = encode_library(codec, library, device)
    joined = np.concatenate(vectors)
    # the lower limit keeps dimensions that the codec doesn't use, and that hardly vary, small
    scale = torch.from_numpy(np.maximum(joined.std(0), 0.02).astype(np.float32))
    middle = torch.from_numpy(joined.mean(0).astype(np.float32))
    encoder = fingerprint(codec.encoder.state_dict())
    held_out = Library(held_out_shards())
    held_out_vectors = encode_library(codec, held_out, device)
    for name, part, encoded in (("held-out", held_out, held_out_vectors), ("training", library, vectors)):
        store(name, encoded, encode_sketches(codec, part), part.sounds, scale, middle, encoder)
    print(
        f"{len(library)} sounds, {len(joined)} vectors; deviations {scale.min():.2f} to {scale.max():.2f}", flush=True
    )


if __name__ == "__main__":
    main()
