"""`python -m training.pocket.data`: render the data set. Finished shards are kept, so that it can be resumed.

A shard is `sounds-NNNN.npy`, int16 (2, all samples), and `sounds-NNNN.json`, a list of sounds with their starts.
"""

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np

from training.pocket.render import render
from training.pocket.settings import DATA_SEED, RUNS, SHARD_SOUNDS, SHARDS
from training.pocket.sounds import Sound, draw

AUDIO = RUNS / "audio"
FULL_SCALE = 32_767


def audio_path(shard: int) -> Path:
    """Return the path of a shard's samples."""
    return AUDIO / f"sounds-{shard:04d}.npy"


def table_path(shard: int) -> Path:
    """Return the path of a shard's descriptions."""
    return AUDIO / f"sounds-{shard:04d}.json"


def draw_shard(shard: int) -> list[Sound]:
    """Draw the descriptions of one shard."""
    random = np.random.default_rng((DATA_SEED, shard))
    return [draw(random) for _ in range(SHARD_SOUNDS)]


def render_shard(shard: int) -> float:
    """Render a shard unless it exists; return the seconds taken."""
    started = time.monotonic()
    if audio_path(shard).exists():
        return 0.0
    sounds = draw_shard(shard)
    rendered = render(sounds)
    rows: list[dict[str, Any]] = []
    start = 0
    for sound, audio in zip(sounds, rendered, strict=True):
        rows.append({"start": start, "samples": audio.shape[1], "sound": sound.to_dict()})
        start += audio.shape[1]
    samples = np.round(np.concatenate(rendered, axis=1) * FULL_SCALE).astype(np.int16)
    table_path(shard).write_text(json.dumps(rows))
    temporary = audio_path(shard).with_suffix(".tmp.npy")
    np.save(temporary, samples)
    temporary.rename(audio_path(shard))
    return time.monotonic() - started


def read_table(shard: int) -> list[tuple[int, int, Sound]]:
    """Return start and length in samples, and description, of each sound of a rendered shard."""
    rows = json.loads(table_path(shard).read_text())
    return [(row["start"], row["samples"], Sound.from_dict(row["sound"])) for row in rows]


def finished_shards() -> list[int]:
    """Return the numbers of the rendered shards."""
    return sorted(int(path.stem.split("-")[1]) for path in AUDIO.glob("sounds-????.npy"))


def main() -> None:
    """Render the missing shards, the held-out ones first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=SHARDS)
    arguments = parser.parse_args()
    AUDIO.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    order = [*range(SHARDS - 2, SHARDS), *range(arguments.shards - 2)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for done, _ in enumerate(pool.imap_unordered(render_shard, order), 1):
            print(f"shard {done}/{len(order)}  {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
