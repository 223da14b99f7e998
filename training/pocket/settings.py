"""Sizes, seeds and paths."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RUNS = Path(os.environ.get("POCKET_RUNS", REPOSITORY / "training" / "runs" / "pocket"))
"""Folder of rendered sounds, checkpoints and figures; set by `POCKET_RUNS`."""

DATA_SEED = 2026
SHARD_SOUNDS = 250
SHARDS = 96
HELD_OUT_SHARDS = 2
"""Number of the last shards that aren't used for training."""
