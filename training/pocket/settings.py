"""Sizes, seeds and places of the second version, declared once."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RUNS = Path(os.environ.get("POCKET_RUNS", REPOSITORY / "training" / "runs" / "pocket"))
"""Rendered sounds, checkpoints, figures. `POCKET_RUNS` moves it."""

SAMPLE_RATE = 44_100
MAX_SECONDS = 10.0
DATA_SEED = 2026
SHARD_SOUNDS = 250
SHARDS = 96
HELD_OUT_SHARDS = 2
"""The last shards are never trained with."""
