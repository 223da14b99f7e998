"""Take the generator's training to a machine with a GPU, and back, in files that are small enough to be carried.

    python -m training.pocket.carry pack FOLDER [--sounds N]     here: latents and text side into FOLDER
    python -m training.pocket.carry train FOLDER OUT --minutes 9 there: train and distil, results into OUT
    python -m training.pocket.carry unpack OUT                   here: checkpoints of the stages

There, PyTorch, NumPy and SciPy are all that is needed. Latents are stored in steps of a quarter of their deviation,
finer than the noise that the codec is trained with, and compressed; the generator comes back with a byte a weight, the
student with two.
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

from training.pocket import distillation, generator_training
from training.pocket.latents import RANGE, Latents, latents_path
from training.pocket.running import checkpoint_path, choose_device, load_checkpoint, save_checkpoint
from training.pocket.settings import RUNS

STEP = 0.25
PREPARED_CAPTIONS = 6
"""Captions of each sound that are read before the training starts: making them anew would hold a GPU up."""
PART_BYTES = 15 * 2**20
DISTILLED_SHARE = 0.25
"""Share of the minutes that the student gets."""


def _compress(codes: np.ndarray) -> bytes:
    """Codes with the vectors' dimensions one after the other: neighbours in time are alike."""
    return lzma.compress(np.ascontiguousarray(codes.T).tobytes(), preset=3)


def _decompress(stored: bytes, vectors: int) -> np.ndarray:
    return np.frombuffer(lzma.decompress(stored), np.int8).reshape(-1, vectors).T.copy()


def pack(folder: Path, limit: int) -> int:
    """Write what the other machine needs; the number of bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("training", "held-out"):
        latents = Latents(name)
        random = np.random.default_rng(0)
        chosen = np.sort(random.permutation(len(latents))[:limit])
        rows = [latents.vectors(int(index)).numpy() for index in chosen]
        codes = np.round(np.concatenate(rows) / STEP).astype(np.int8)
        (folder / f"{name}.xz").write_bytes(_compress(codes))
        table = {
            "tokens": [len(row) for row in rows],
            "scale": latents.scale.tolist(),
            "middle": latents.middle.tolist(),
            "encoder": latents.encoder,
            "sounds": [latents.sounds[int(index)].to_dict() for index in chosen],
        }
        (folder / f"{name}.json.xz").write_bytes(lzma.compress(json.dumps(table).encode()))
    state = load_checkpoint("text")
    if state is None:
        raise FileNotFoundError("no text side yet: run python -m training.pocket.text_training first")
    _write(folder / "text", {name: value.half() for name, value in state["average"].items()})
    return sum(path.stat().st_size for path in folder.iterdir())


def _unpack_latents(folder: Path) -> None:
    for name in ("training", "held-out"):
        table: dict[str, Any] = json.loads(lzma.decompress((folder / f"{name}.json.xz").read_bytes()))
        codes = _decompress((folder / f"{name}.xz").read_bytes(), sum(table["tokens"]))
        values = np.clip(np.round(codes.astype(np.float32) * STEP * (127 / RANGE)), -127, 127)
        np.savez(
            latents_path(name),
            codes=values.astype(np.int8),
            tokens=np.array(table["tokens"]),
            scale=np.array(table["scale"], np.float32),
            middle=np.array(table["middle"], np.float32),
            encoder=table["encoder"],
            sounds=np.array(json.dumps(table["sounds"])),
        )


def _write(path: Path, weights: dict[str, Tensor]) -> None:
    """Weights in files of at most PART_BYTES."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    stored = buffer.getvalue()
    for part, first in enumerate(range(0, len(stored), PART_BYTES)):
        path.with_suffix(f".{part}").write_bytes(stored[first : first + PART_BYTES])


def _read(path: Path) -> dict[str, Tensor]:
    parts = sorted(path.parent.glob(f"{path.name}.[0-9]"))
    if not parts:
        raise FileNotFoundError(f"{path}.0 is missing: carry the folder whole")
    return torch.load(io.BytesIO(b"".join(part.read_bytes() for part in parts)), weights_only=True)


def to_bytes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A byte a weight, with a scale for each row; vectors in half precision."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dim() < 2:
            found[name] = value.half()
            continue
        scale = value.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127
        found[name] = (value / scale).round().to(torch.int8)
        found[f"{name} scale"] = scale.float()
    return found


def from_bytes(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of what `to_bytes` stored."""
    found: dict[str, Tensor] = {}
    for name, value in stored.items():
        if name.endswith(" scale"):
            continue
        scale = stored.get(f"{name} scale")
        found[name] = value.float() if scale is None else value.float() * scale
    return found


def train(folder: Path, out: Path, minutes: float, device: torch.device, tokens: int, compiled: bool) -> None:
    """Train the generator from its checkpoint or from nothing, then distil it; write both."""
    RUNS.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    _unpack_latents(folder)
    text = {name: value.float() for name, value in _read(folder / "text").items()}
    save_checkpoint("text", average=text)
    generator_training.train(minutes * (1 - DISTILLED_SHARE), device, tokens, compiled, PREPARED_CAPTIONS)
    taught = load_checkpoint("generator")
    assert taught is not None
    _write(out / "generator", to_bytes(taught["average"]))
    _note(out, taught, None)
    distillation.train(minutes * DISTILLED_SHARE, device, tokens, PREPARED_CAPTIONS)
    student = load_checkpoint("student")
    assert student is not None
    _write(out / "student", {name: value.half() for name, value in student["average"].items()})
    _note(out, taught, student)


def _note(out: Path, generator: dict[str, Any], student: dict[str, Any] | None) -> None:
    """What isn't weights: steps, what the weights were trained with, the log."""
    note = {"generator": generator["step"], "student": student["step"] if student else 0, "origin": generator["origin"]}
    (out / "log.json").write_text(json.dumps(note | {"log": (RUNS / "log.jsonl").read_text()}))


def unpack(out: Path) -> None:
    """Checkpoints of what came back; those that were here are kept beside them."""
    note = json.loads((out / "log.json").read_text())
    for stage in ("generator", "student"):
        if not list(out.glob(f"{stage}.[0-9]")):
            continue
        weights = _read(out / stage)
        full = from_bytes(weights) if stage == "generator" else {name: value.float() for name, value in weights.items()}
        path = checkpoint_path(stage)
        if path.exists():
            path.replace(path.with_suffix(".before.pt"))
        save_checkpoint(stage, average=full, **{stage: full}, step=note[stage], origin=note["origin"])
    with (RUNS / "log.jsonl").open("a") as file:
        file.write(note["log"])


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
