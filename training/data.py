"""Render the data set: `python -m training.data`. The result depends on the seeds only; finished shards are kept.

A shard is one `.npz`: `mel` (all frames, bands) float16, `rows` (latent rows of each sound), `recipes` (JSON), and for
the first `audio_shards` also `audio` int16, all sounds concatenated.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.mel import log_mel
from training.settings import RUNS, SETTINGS, Settings
from training.synthesis.recipe import Recipe, draw, render

ROW_FRAMES = 8


def shard_path(index: int) -> Path:
    """Return the path of a shard."""
    return RUNS / "data" / f"shard-{index:04d}.npz"


def shard_count(settings: Settings = SETTINGS) -> int:
    """Return the number of shards of the data set."""
    return settings.data.sounds // settings.data.shard_sounds


def draw_recipe(random: np.random.Generator, settings: Settings = SETTINGS) -> Recipe:
    """Draw a window length and a recipe for it."""
    weights = np.array(settings.data.window_weights)
    rows = int(random.choice(settings.data.window_rows, p=weights / weights.sum()))
    return draw(random, rows * ROW_FRAMES * settings.mel.hop)


def render_shard(index: int) -> float:
    """Render a shard unless it exists; return the seconds taken."""
    started = time.monotonic()
    path = shard_path(index)
    if path.exists():
        return 0.0
    torch.set_num_threads(1)
    random = np.random.default_rng((SETTINGS.data.seed, index))
    recipes, mels, audio, rows = [], [], [], []
    for _ in range(SETTINGS.data.shard_sounds):
        recipe = draw_recipe(random)
        samples = render(recipe)
        mel = log_mel(torch.from_numpy(samples)[None])[0]
        recipes.append(dataclasses.asdict(recipe))
        mels.append(mel.numpy().astype(np.float16))
        rows.append(len(mel) // ROW_FRAMES)
        if index < SETTINGS.data.audio_shards:
            audio.append(np.round(samples * 32767).astype(np.int16))
    arrays: dict[str, Any] = {
        "mel": np.concatenate(mels),
        "rows": np.array(rows),
        "recipes": np.array(json.dumps(recipes)),
    }
    if audio:
        arrays["audio"] = np.concatenate(audio)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **arrays)
    temporary.rename(path)
    return time.monotonic() - started


def main() -> None:
    """Render all shards on all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    (RUNS / "data").mkdir(parents=True, exist_ok=True)
    count = shard_count()
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, _ in enumerate(pool.imap_unordered(render_shard, range(count)), 1):
            print(f"shard {done}/{count}  {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
