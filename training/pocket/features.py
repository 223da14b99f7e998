"""`python -m training.pocket.features`: analyse the bands of every rendered sound, with one byte for each value.

`bands-NNNN.npy` is uint8 (all frames, CHANNELS); sounds begin at multiples of TOKEN_FRAMES.
"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timbred.engine.codecs.bands import HOP, Frames, analyse
from timbred.models.pocket import BANDS, GROUPS, TOKEN_FRAMES
from training.pocket import data
from training.pocket.settings import HELD_OUT_SHARDS, RUNS, SHARDS
from training.pocket.sounds import Sound

BANDS_FOLDER = RUNS / "bands"

_SCALE = torch.cat(
    (
        torch.full((BANDS,), 96.0),
        torch.full((BANDS,), 127.0),
        torch.full((BANDS,), 255.0),
        torch.full((GROUPS,), 127.0),
        torch.full((GROUPS,), 255.0),
    )
)
_SHIFT = torch.cat(
    (
        torch.full((BANDS,), 1.0),
        torch.full((BANDS,), 1.0),
        torch.zeros(BANDS),
        torch.full((GROUPS,), 1.0),
        torch.zeros(GROUPS),
    )
)


def to_bytes(channels: Tensor) -> NDArray[np.uint8]:
    """Quantise the values of `Frames.stacked` to bytes: steps of 0.5 dB, 1/127 of half a band, 1/255 of tonality."""
    return ((channels + _SHIFT) * _SCALE).round().clamp(0, 255).to(torch.uint8).numpy()


def from_bytes(stored: Tensor) -> Tensor:
    """Return the values of `Frames.stacked` from the bytes of `to_bytes`."""
    return stored.float() / _SCALE.to(stored.device) - _SHIFT.to(stored.device)


def tokens_of(samples: int) -> int:
    """Return the number of latent vectors of a sound."""
    return -(-samples // (HOP * TOKEN_FRAMES))


def bands_path(shard: int) -> Path:
    """Return the path of a shard's bands."""
    return BANDS_FOLDER / f"bands-{shard:04d}.npy"


def bands_of(audio: Tensor) -> NDArray[np.uint8]:
    """Return the bytes (frames, CHANNELS) of one sound; the number of frames is a multiple of TOKEN_FRAMES."""
    frames = tokens_of(audio.shape[1]) * TOKEN_FRAMES
    return to_bytes(analyse(audio, frames).stacked())


def analyse_shard(shard: int) -> None:
    """Analyse a shard unless its bands exist."""
    if bands_path(shard).exists():
        return
    torch.set_num_threads(1)
    samples = np.load(data.audio_path(shard), mmap_mode="r")
    bands = [
        bands_of(torch.from_numpy(samples[:, start : start + length].astype(np.float32) / data.FULL_SCALE))
        for start, length, _ in data.read_table(shard)
    ]
    temporary = bands_path(shard).with_suffix(".tmp.npy")
    np.save(temporary, np.concatenate(bands))
    temporary.rename(bands_path(shard))


class Library:
    """The analysed sounds of some shards.

    Attributes:
        sounds: descriptions.
        tokens: number of latent vectors of each sound.
    """

    def __init__(self, shards: Sequence[int]) -> None:
        self.sounds: list[Sound] = []
        self._locations: list[tuple[NDArray[np.uint8], int]] = []
        tokens: list[int] = []
        for shard in shards:
            stored = np.load(bands_path(shard), mmap_mode="r")
            first = 0
            for _, samples, sound in data.read_table(shard):
                count = tokens_of(samples)
                self.sounds.append(sound)
                self._locations.append((stored, first))
                tokens.append(count)
                first += count * TOKEN_FRAMES
        self.tokens = np.array(tokens)

    def __len__(self) -> int:
        return len(self.sounds)

    def stored(self, index: int, first: int = 0, tokens: int | None = None) -> Tensor:
        """Return bytes (frames, CHANNELS) of a sound or of `tokens` vectors from `first` on, padded with silence."""
        array, start = self._locations[index]
        count = int(self.tokens[index]) - first
        length = TOKEN_FRAMES * (count if tokens is None else tokens)
        available = min(count * TOKEN_FRAMES, length)
        begin = start + first * TOKEN_FRAMES
        part = torch.from_numpy(np.array(array[begin : begin + available]))
        if available < length:
            part = torch.cat((part, silence()[None].expand(length - available, -1)))
        return part

    def crop(self, index: int, tokens: int, random: np.random.Generator) -> Tensor:
        """Return the bytes of a random crop, more often from the beginning."""
        room = max(0, int(self.tokens[index]) - tokens)
        first = 0 if random.uniform() < 0.3 else int(random.integers(room + 1))
        return self.stored(index, first, tokens)


def silence() -> Tensor:
    """Return the bytes (CHANNELS,) of a silent frame."""
    quiet = Frames(
        torch.full((1, BANDS), -96.0),
        torch.zeros(1, BANDS),
        torch.zeros(1, BANDS),
        torch.zeros(1, GROUPS),
        torch.zeros(1, GROUPS),
    )
    return torch.from_numpy(to_bytes(quiet.stacked()))[0]


def analysed_shards() -> list[int]:
    """Return the numbers of the analysed shards."""
    return sorted(int(path.stem.split("-")[1]) for path in BANDS_FOLDER.glob("bands-????.npy"))


def training_shards() -> list[int]:
    """Return the numbers of the analysed training shards."""
    return [shard for shard in analysed_shards() if shard < SHARDS - HELD_OUT_SHARDS]


def held_out_shards() -> list[int]:
    """Return the numbers of the analysed held-out shards."""
    return [shard for shard in analysed_shards() if shard >= SHARDS - HELD_OUT_SHARDS]


def main() -> None:
    """Analyse the rendered shards; with `--follow`, wait for further ones until all are analysed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--follow", action="store_true")
    arguments = parser.parse_args()
    BANDS_FOLDER.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        while True:
            missing = [shard for shard in data.finished_shards() if not bands_path(shard).exists()]
            missing.sort(key=lambda shard: (shard < SHARDS - HELD_OUT_SHARDS, shard))
            for shard in missing:
                pool.apply(analyse_shard, (shard,)) if arguments.workers == 1 else None
            if arguments.workers > 1:
                pool.map(analyse_shard, missing, chunksize=1)
            print(f"{len(analysed_shards())} shards analysed", flush=True)
            if not arguments.follow or len(analysed_shards()) >= SHARDS:
                return
            time.sleep(5)


if __name__ == "__main__":
    main()
