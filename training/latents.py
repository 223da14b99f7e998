"""Stage `latents`: the inputs of the diffusion model's training, computed once: latents of sounds, vectors of captions.

The text encoders are frozen at this stage, so their vectors can be stored: `CAPTIONS` captions of every sound.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training import codec, dataset, text_training
from training.captions import caption
from training.data import shard_count
from training.runtime import half_precision
from training.settings import RUNS, SETTINGS
from training.synthesis.recipe import Recipe

CAPTIONS = 2
LATENTS = RUNS / "latents.npz"
VECTORS = RUNS / "vectors.npz"


@dataclass
class Examples:
    """Training data of the diffusion model.

    Attributes:
        latents: (all rows, columns, channels) float16, concatenated sounds.
        rows, starts: (sounds,) number of latent rows of each sound, and index of its first row.
        vectors: (sounds, CAPTIONS, 8, width) float16.
        empty: (paddings, 8, width) float16, the vectors of "" with several paddings.
    """

    latents: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    vectors: np.ndarray
    empty: np.ndarray

    def latent_of(self, index: int) -> torch.Tensor:
        """Return the latents of one sound, (channels, rows, columns) float32."""
        start = int(self.starts[index])
        rows = self.latents[start : start + int(self.rows[index])]
        return torch.from_numpy(rows.astype(np.float32)).permute(2, 0, 1)


@torch.no_grad()
def train(device: torch.device, minutes: float | None = None) -> None:
    """Compute the files that don't exist yet; `minutes` is ignored.

    Raises:
        FileNotFoundError: The data set isn't complete.
    """
    del minutes
    paths = dataset.training_paths()
    if len(paths) < shard_count() - SETTINGS.data.held_out_shards:
        raise FileNotFoundError("render the data set first: python -m training.data")
    if not LATENTS.exists():
        _encode_sounds(paths, device)
    if not VECTORS.exists():
        _encode_captions(paths, device)


def _encode_sounds(paths: list[Path], device: torch.device) -> None:
    """Store the latents (posterior means) of all sounds."""
    model = codec.load(device).to(memory_format=torch.channels_last)
    sounds = dataset.load(paths, audio=False)
    width = SETTINGS.mel.bands // 8
    latents = np.zeros((int(sounds.rows.sum()), width, SETTINGS.codec.latent_channels), np.float16)
    starts = np.concatenate(([0], np.cumsum(sounds.rows)[:-1]))
    for rows in np.unique(sounds.rows):
        members = np.flatnonzero(sounds.rows == rows)
        for part in np.array_split(members, max(1, len(members) * int(rows) // 800)):
            mel = torch.stack([sounds.mel_of(int(index)) for index in part])[:, None].to(device)
            with half_precision(device):
                encoded = model.encode(mel.contiguous(memory_format=torch.channels_last)).latent_dist.mode()
            for index, latent in zip(part, encoded.permute(0, 2, 3, 1).float().cpu().numpy(), strict=True):
                latents[starts[index] : starts[index] + rows] = latent
        print(f"latents of {rows} rows: {len(members)}", flush=True)
    print(f"latents: mean {latents.mean(dtype=np.float64):.3f}  deviation {latents.std(dtype=np.float64):.3f}")
    np.savez(LATENTS, latents=latents, rows=sounds.rows, starts=starts)


def _recipes(paths: list[Path]) -> list[Recipe]:
    recipes = []
    for path in paths:
        with np.load(path) as shard:
            recipes += [dataset.to_recipe(fields) for fields in json.loads(str(shard["recipes"]))]
    return recipes


def _encode_captions(paths: list[Path], device: torch.device) -> None:
    """Store the vectors of `CAPTIONS` captions of every sound, and of the empty caption."""
    model = text_training.load(device)
    random = np.random.default_rng(SETTINGS.text.seed + 100)
    recipes = _recipes(paths)
    prompts = [caption(recipe, random) for recipe in recipes for _ in range(CAPTIONS)]
    # captions of similar length share a batch: little padding, and its length differs between batches
    order = np.argsort([len(prompt) + random.uniform(0, 8) for prompt in prompts])
    settings = SETTINGS.text
    vectors = np.zeros((len(prompts), settings.generated_vectors, settings.gpt_width), np.float16)
    for done, part in enumerate(np.array_split(order, len(order) // 256 + 1)):
        tokens = model.tokenize([prompts[index] for index in part], limit=40)
        with half_precision(device):
            generated, _, _ = model.encode({key: value.to(device) for key, value in tokens.items()})
        vectors[part] = generated.float().cpu().numpy()
        if done % 60 == 0:
            print(f"captions {done * 256}/{len(prompts)}", flush=True)
    empty = []
    for padding in range(24):
        tokens = model.tokenize([""], padding)
        generated, _, _ = model.encode({key: value.to(device) for key, value in tokens.items()})
        empty.append(generated[0].cpu().numpy())
    np.savez(
        VECTORS,
        vectors=vectors.reshape(len(recipes), CAPTIONS, settings.generated_vectors, settings.gpt_width),
        empty=np.array(empty, dtype=np.float16),
    )


def load() -> Examples:
    """Load both files."""
    with np.load(LATENTS) as sounds, np.load(VECTORS) as captions:
        return Examples(sounds["latents"], sounds["rows"], sounds["starts"], captions["vectors"], captions["empty"])
