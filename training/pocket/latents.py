"""`python -m training.pocket.latents`: encode every sound to latent vectors with one byte for each value.

`latents-NAME.npz` contains `codes` int8 (all tokens, latent), `scale` and `middle` (latent,), `tokens` (sounds,), and
the descriptions as JSON. It has to be written again after a change of the encoder.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.pocket.codec import Codec
from training.pocket.features import Library, from_bytes, held_out_shards, training_shards
from training.pocket.running import choose_device, fingerprint, load_checkpoint
from training.pocket.settings import RUNS
from training.pocket.sounds import Sound

RANGE = 4.0
"""Largest value of a byte in standard deviations."""


def latents_path(name: str) -> Path:
    """Return the path of the "training" or "held-out" latents."""
    return RUNS / f"latents-{name}.npz"


def load_codec(device: torch.device) -> Codec:
    """Load the codec with averaged weights.

    Raises:
        FileNotFoundError: It hasn't been trained.
    """
    state = load_checkpoint("codec")
    if state is None:
        raise FileNotFoundError("the codec isn't trained yet: run python -m training.pocket.codec_training first")
    codec = Codec()
    codec.load_state_dict(state["average"])
    return codec.to(device).eval()


def stored_encoder() -> int | None:
    """Return the fingerprint of the encoder of the stored latents; None without latents."""
    if not latents_path("training").exists():
        return None
    with np.load(latents_path("training")) as stored:
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
        start = int(self.starts[index])
        codes = self.codes[start : start + int(self.tokens[index])]
        return torch.from_numpy(codes.astype(np.float32)) * (RANGE / 127)


@torch.no_grad()
def encode_library(codec: Codec, library: Library, device: torch.device) -> list[NDArray[np.float32]]:
    """Return the codec's latents of each sound."""
    latents: list[NDArray[np.float32]] = []
    for index in range(len(library)):
        channels = from_bytes(library.stored(index).to(device))
        with torch.autocast(device.type, torch.bfloat16):
            mean, _ = codec.encoder(channels[None])
        latents.append(mean[0].float().cpu().numpy())
    return latents


def store(
    name: str,
    vectors: list[NDArray[np.float32]],
    sounds: list[Sound],
    scale: Tensor,
    middle: Tensor,
    encoder: int,
) -> None:
    """Write one file."""
    joined = (np.concatenate(vectors) - middle.numpy()) / scale.numpy()
    codes = np.clip(np.round(joined * (127 / RANGE)), -127, 127).astype(np.int8)
    temporary = latents_path(name).with_suffix(".tmp.npz")
    np.savez(
        temporary,
        codes=codes,
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
    store("training", vectors, library.sounds, scale, middle, encoder)
    held_out = Library(held_out_shards())
    store("held-out", encode_library(codec, held_out, device), held_out.sounds, scale, middle, encoder)
    print(
        f"{len(library)} sounds, {len(joined)} vectors; deviations {scale.min():.2f} to {scale.max():.2f}", flush=True
    )


if __name__ == "__main__":
    main()
