"""`timbred models`: list, pull and convert."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from timbred import errors
from timbred.cli.serve import settings_from
from timbred.cli.tables import show
from timbred.config import Config
from timbred.engine.checkpoint import INDEX
from timbred.engine.registry import Entry, build

COLUMNS = {"name": "name", "state": "state", "task": "task", "native_rate": "Hz", "max_seconds": "max s",
           "memory_mb": "MB", "licence": "licence", "remark": "remark"}  # fmt: skip

FETCHED = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
"""What is taken from a hub's repository: configurations, vocabularies, weights; never code."""

console = Console(stderr=True)


def models(as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print the models there are. Looks at their folders itself: needs no daemon."""
    config = settings_from(file, flags)
    rows = [_row(entry) for entry in build(config.models_folder, config.sources).entries.values()]
    show(rows, COLUMNS, as_json, "no models")


def _row(entry: Entry) -> dict[str, Any]:
    card = entry.card
    row: dict[str, Any] = {
        "name": card.name, "title": card.title, "state": "available", "task": card.task, "licence": card.licence,
        "native_rate": card.native_rate, "channels": card.channels, "max_seconds": card.max_seconds,
        "default_seconds": card.default_seconds, "steps": card.steps, "guidance": card.guidance,
        "scheduler": card.scheduler, "negative": card.negative, "source": card.source, "folder": str(entry.folder),
        "memory_mb": None, "remark": "",
    }  # fmt: skip
    try:
        found = entry.checkpoint()
    except errors.TimbredError as error:
        return {**row, "state": "missing", "remark": str(error) if not _absent(entry) else entry.remedy}
    remark = f"has .bin weights; convert them once: timbred models convert {card.name}" if found.pickled else ""
    return {**row, "memory_mb": round(found.weight_bytes / 1e6, 1), "remark": remark}


def _absent(entry: Entry) -> bool:
    return not (entry.folder / INDEX).exists()


def _entry(name: str, config: Config) -> Entry:
    return build(config.models_folder, config.sources)[name]


def pull(name: str, file: Path | None, flags: list[str]) -> None:
    """Fetch a model into the models folder.

    Raises:
        MissingWeights: it can't be fetched; says why and what else can be done.
    """
    config = settings_from(file, flags)
    entry = _entry(name, config)
    if not entry.card.source or Path(entry.card.source).is_dir():
        raise errors.BadRequest(f"{name} comes from a folder ({entry.folder}): there is nothing to fetch")
    from huggingface_hub import snapshot_download

    console.print(f"fetching {entry.card.source} into {entry.folder} ({entry.card.licence})")
    try:
        # resumes what was cut off, and checks each file's hash
        snapshot_download(entry.card.source, local_dir=entry.folder, allow_patterns=list(FETCHED))
    except Exception as error:  # the hub's client raises many kinds; each means that it can't be had now
        raise errors.MissingWeights(
            f"{name} can't be fetched from {entry.card.source}: {_first_line(error)}; check the network, or get the "
            f"folder another way and set models.{name}.source to it"
        ) from error
    entry.checkpoint()
    print(entry.folder)


def convert(name: str, file: Path | None, flags: list[str]) -> None:
    """Write a model's .bin weights once more as safetensors, beside them; they are then no longer read."""
    entry = _entry(name, settings_from(file, flags))
    found = entry.checkpoint()
    if not found.pickled:
        print(f"{name} has no .bin weights: there is nothing to convert")
        return
    command = [sys.executable, "-m", "timbred.engine.adapters.conversion", name, str(found.folder)]
    with console.status(f"converting {', '.join(found.pickled)}"):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # a process with torch
    if done.returncode:
        raise errors.ModelError(f"{name} was not converted; the lines above say why")
    print(done.stdout, end="")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
