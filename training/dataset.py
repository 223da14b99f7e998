"""The rendered data set. The last shards are held out for the evaluation; the others are for training."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.data import ROW_FRAMES, shard_count, shard_path
from training.settings import SETTINGS, Settings
from training.synthesis.recipe import Recipe


@dataclass
class Sounds:
    """Concatenated sounds.

    Attributes:
        mel: (all frames, bands) float16.
        rows: (sounds,) latent rows of each sound.
        starts: (sounds,) first mel frame of each sound.
        recipes: Recipe of each sound.
        audio: (all samples,) int16, or None.
    """

    mel: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    recipes: list[Recipe]
    audio: np.ndarray | None

    def mel_of(self, index: int) -> torch.Tensor:
        """Return the mel of one sound, (frames, bands) float32."""
        start = int(self.starts[index])
        frames = self.mel[start : start + int(self.rows[index]) * ROW_FRAMES]
        return torch.from_numpy(frames.astype(np.float32))

    def audio_of(self, index: int) -> torch.Tensor:
        """Return the audio of one sound, (samples,) float32.

        Raises:
            ValueError: The shards have no audio.
        """
        if self.audio is None:
            raise ValueError("these shards were rendered without audio")
        hop = SETTINGS.mel.hop
        start = int(self.starts[index]) * hop
        samples = self.audio[start : start + int(self.rows[index]) * ROW_FRAMES * hop]
        return torch.from_numpy(samples.astype(np.float32) / 32767)


def to_recipe(fields: dict[str, Any]) -> Recipe:
    """Create a recipe from its JSON fields."""
    known: dict[str, Any] = {**fields, "flags": tuple(fields["flags"])}
    return Recipe(**known)


def load(paths: Sequence[Path], audio: bool) -> Sounds:
    """Load shards into memory, with or without their audio."""
    mels, rows, recipes, audios = [], [], [], []
    for path in paths:
        with np.load(path) as shard:
            mels.append(shard["mel"])
            rows.append(shard["rows"])
            recipes += [to_recipe(fields) for fields in json.loads(str(shard["recipes"]))]
            if audio:
                audios.append(shard["audio"])
    all_rows = np.concatenate(rows)
    starts = np.concatenate(([0], np.cumsum(all_rows * ROW_FRAMES)[:-1]))
    return Sounds(np.concatenate(mels), all_rows, starts, recipes, np.concatenate(audios) if audio else None)


def training_paths(settings: Settings = SETTINGS) -> list[Path]:
    """Return the paths of the finished training shards."""
    count = shard_count(settings) - settings.data.held_out_shards
    return [shard_path(index) for index in range(count) if shard_path(index).exists()]


def held_out_paths(settings: Settings = SETTINGS) -> list[Path]:
    """Return the paths of the held-out shards."""
    count = shard_count(settings)
    return [shard_path(index) for index in range(count - settings.data.held_out_shards, count)]


def audio_paths(settings: Settings = SETTINGS) -> list[Path]:
    """Return the paths of the finished training shards with audio."""
    return [shard_path(index) for index in range(settings.data.audio_shards) if shard_path(index).exists()]
