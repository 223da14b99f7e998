"""Training of the generator on another machine, with small files for the transfer in both directions.

    python -m training.pocket.carry pack FOLDER [--sounds N]     here: write latents, text encoder and codec to FOLDER
    python -m training.pocket.carry train FOLDER OUT --minutes 9 there: train, write the result to OUT
    python -m training.pocket.carry unpack OUT                   here: create the generator's checkpoint

The other machine needs only PyTorch, NumPy and SciPy. Latents are quantised in steps of a quarter of their standard
deviation, finer than the noise of the codec's training, and compressed. The generator is stored in half precision.
"""

import argparse
import io
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.pocket import generator_training
from training.pocket.latents import RANGE, Latents, latents_path
from training.pocket.running import checkpoint_path, choose_device, load_checkpoint, save_checkpoint
from training.pocket.settings import RUNS

STEP = 0.25
PREPARED_CAPTIONS = 6
"""Captions of each sound that are encoded before the training starts, so that a GPU doesn't wait for new ones."""
CARRIED_STAGES = ("text", "codec")
"""Stages whose networks the generator's training needs."""

PART_BYTES = 15 * 2**20


def _compress(codes: np.ndarray) -> bytes:
    """Compress codes, dimension by dimension, because values that are adjacent in time are similar."""
    return lzma.compress(np.ascontiguousarray(codes.T).tobytes(), preset=3)


def _decompress(stored: bytes, vectors: int) -> np.ndarray:
    return np.frombuffer(lzma.decompress(stored), np.int8).reshape(-1, vectors).T.copy()


def pack(folder: Path, limit: int) -> int:
    """Write the inputs of the other machine; return their size in bytes.

    Raises:
        FileNotFoundError: The text encoder or the codec hasn't been trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("training", "held-out"):
        latents = Latents(name)
        random = np.random.default_rng(0)
        chosen = np.sort(random.permutation(len(latents))[:limit])
        rows = [latents.vectors(int(index)).numpy() for index in chosen]
        sketches = [latents.sketch(int(index)).numpy() for index in chosen]
        for kind, parts in (("sounds", rows), ("sketches", sketches)):
            codes = np.round(np.concatenate(parts) / STEP).astype(np.int8)
            (folder / f"{name}-{kind}.xz").write_bytes(_compress(codes))
        table = {
            "tokens": [len(row) for row in rows],
            "scale": latents.scale.tolist(),
            "middle": latents.middle.tolist(),
            "encoder": latents.encoder,
            "sounds": [latents.sounds[int(index)].to_dict() for index in chosen],
        }
        (folder / f"{name}.json.xz").write_bytes(lzma.compress(json.dumps(table).encode()))
    for stage in CARRIED_STAGES:
        state = load_checkpoint(stage)
        if state is None:
            raise FileNotFoundError(f"the stage {stage} isn't trained yet: run python -m training.pocket.train first")
        _write(folder / stage, {name: value.half() for name, value in state["average"].items()})
    return sum(path.stat().st_size for path in folder.iterdir())


def _unpack_latents(folder: Path) -> None:
    for name in ("training", "held-out"):
        table: dict[str, Any] = json.loads(lzma.decompress((folder / f"{name}.json.xz").read_bytes()))
        codes, sketches = (
            _decompress((folder / f"{name}-{kind}.xz").read_bytes(), sum(table["tokens"]))
            for kind in ("sounds", "sketches")
        )
        np.savez(
            latents_path(name),
            codes=_requantised(codes),
            sketches=_requantised(sketches),
            tokens=np.array(table["tokens"]),
            scale=np.array(table["scale"], np.float32),
            middle=np.array(table["middle"], np.float32),
            encoder=table["encoder"],
            sounds=np.array(json.dumps(table["sounds"])),
        )


def _requantised(codes: np.ndarray) -> np.ndarray:
    """Return the codes of a file of latents for codes in steps of `STEP`."""
    values = np.round(codes.astype(np.float32) * STEP * (127 / RANGE))
    return np.clip(values, -127, 127).astype(np.int8)


def _write(path: Path, weights: dict[str, Tensor]) -> None:
    """Write weights in files of at most PART_BYTES."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    stored = buffer.getvalue()
    for part, first in enumerate(range(0, len(stored), PART_BYTES)):
        path.with_suffix(f".{part}").write_bytes(stored[first : first + PART_BYTES])


def _read(path: Path) -> dict[str, Tensor]:
    parts = sorted(path.parent.glob(f"{path.name}.[0-9]"))
    if not parts:
        raise FileNotFoundError(f"{path}.0 is missing: copy the whole folder")
    return torch.load(io.BytesIO(b"".join(part.read_bytes() for part in parts)), weights_only=True)


def train(folder: Path, out: Path, minutes: float, device: torch.device, tokens: int, compiled: bool) -> None:
    """Train the generator, from its checkpoint if there is one, and write it."""
    RUNS.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    _unpack_latents(folder)
    for stage in CARRIED_STAGES:
        save_checkpoint(stage, average={name: value.float() for name, value in _read(folder / stage).items()})
    generator_training.train(minutes, device, tokens, compiled, PREPARED_CAPTIONS)
    generator = load_checkpoint("generator")
    assert generator is not None
    _write(out / "generator", {name: value.half() for name, value in generator["average"].items()})
    log = (RUNS / "log.jsonl").read_text()
    (out / "log.json").write_text(json.dumps({"step": generator["step"], "origin": generator["origin"], "log": log}))


def unpack(out: Path) -> None:
    """Create the generator's checkpoint from the result; an existing one is renamed to `generator.before.pt`."""
    results = json.loads((out / "log.json").read_text())
    full = {name: value.float() for name, value in _read(out / "generator").items()}
    path = checkpoint_path("generator")
    if path.exists():
        path.replace(path.with_suffix(".before.pt"))
    save_checkpoint("generator", average=full, generator=full, step=results["step"], origin=results["origin"])
    with (RUNS / "log.jsonl").open("a") as file:
        file.write(results["log"])


def main() -> None:
    """Pack, train or unpack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "train", "unpack"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--sounds", type=int, default=9000)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=24_576)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    if arguments.action == "pack":
        size = pack(arguments.folder, arguments.sounds)
        print(f"{size / 2**20:.1f} MiB in {arguments.folder}")
    elif arguments.action == "unpack":
        unpack(arguments.folder)
    else:
        if arguments.out is None:
            parser.error("train needs OUT, the folder for its results")
        device = choose_device(arguments.device)
        train(arguments.folder, arguments.out, arguments.minutes, device, arguments.tokens, arguments.compile)


if __name__ == "__main__":
    main()
