"""`timbred models`, `timbred loras` and `timbred takes`: list what is stored; pull and convert models."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.progress import DownloadColumn, Progress

from timbred import errors
from timbred.cli.serve import settings_from
from timbred.cli.terminal import error_console, show
from timbred.config import Config
from timbred.disk import expand_user
from timbred.filenames import comparison_key, name_fault
from timbred.ipc.isolation import child_environment, safe_folder, torch_command
from timbred.models import install as installed
from timbred.models.checkpoint import INDEX_NAME
from timbred.models.clap import CLAP_LICENCE, CLAP_NAME, CLAP_TASK, ClapEntry
from timbred.models.install import INSTALLED_PATTERNS, begin_install, check_file, finish, install, staging_for
from timbred.models.lora import LoraEntry, LoraRegistry, add
from timbred.models.pocket import is_pocket
from timbred.models.registry import Entry, Registry, build
from timbred.storage.library import StoredTake, open_library, spare_file

DESCRIBED_FACTS = ("name", "title", "licence", "version", "native_rate", "channels", "max_seconds", "steps")
"""Fields of a card that `timbred models describe` prints before the words."""

MEANING_OF_KNOWS = (
    "how much of a prompt the model knows, 0 to 1, is `knows` of each take in JSON; of a prompt that it can't know it "
    "makes the nearest sound"
)
"""Text about `knows`, for models of the family pocket."""

COLUMNS = {"name": "name", "state": "state", "task": "task", "native_rate": "Hz", "channels": "ch",
           "max_seconds": "max s", "memory_mb": "MB", "licence": "licence", "selling": "sell its sounds?",
           "remark": "remark"}  # fmt: skip


def models(as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print the models. Reads their folders itself, without a daemon."""
    config = settings_from(file, flags)
    registry = build(config.models_folder, config.sources)
    rows = [_row(entry) for entry in registry.entries.values()]
    if registry.clap is not None:
        rows.append(_clap_row(registry.clap))
    show(rows, COLUMNS, as_json, "no models")


def _row(entry: Entry) -> dict[str, Any]:
    card = entry.card
    row: dict[str, Any] = {
        "name": card.name, "title": card.title, "state": "available", "task": card.task,
        "licence": card.licence, "selling": card.selling,
        "native_rate": card.native_rate, "channels": card.channels, "max_seconds": card.max_seconds,
        "default_seconds": card.default_seconds, "steps": card.steps, "guidance": card.guidance,
        "scheduler": card.scheduler, "negative": card.negative, "source": card.source, "folder": str(entry.folder),
        "memory_mb": None, "remark": "",
    }  # fmt: skip
    try:
        checkpoint = entry.checkpoint()
    except errors.TimbredError as error:
        return {**row, "state": "missing", "remark": str(error) if not _is_absent(entry) else entry.remedy}
    remark = f"has .bin weights; convert them once: timbred models convert {card.name}" if checkpoint.pickled else ""
    return {**row, "memory_mb": round(checkpoint.weight_bytes / 1e6, 1), "remark": remark}


def _clap_row(entry: ClapEntry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": CLAP_NAME, "title": "CLAP", "state": "available", "task": CLAP_TASK, "licence": CLAP_LICENCE,
        "selling": "", "native_rate": None, "channels": None, "max_seconds": None, "source": entry.source,
        "folder": str(entry.folder), "memory_mb": None, "remark": "",
    }  # fmt: skip
    try:
        inspected = entry.inspect()
    except errors.TimbredError as error:
        return {**row, "state": "missing", "remark": str(error) if entry.folder.exists() else entry.remedy}
    return {**row, "native_rate": inspected.rate, "memory_mb": round(inspected.weight_bytes / 1e6, 1)}


def describe(name: str, as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print a model's facts, the kinds of sounds that it knows by family, and its words by group.

    Raises:
        UnknownModel: There is no model of this name.
    """
    entry = _entry(name, settings_from(file, flags))
    facts = {key: getattr(entry.card, key) for key in DESCRIBED_FACTS}
    kinds, words = entry.card.known_kinds(), entry.card.known_words()
    meaning = {"knows": MEANING_OF_KNOWS} if is_pocket(entry.folder) else {}
    if as_json:
        print(json.dumps({**facts, "kinds": kinds, "words": words, **meaning}))
        return
    lines = [f"{key}: {value}" for key, value in facts.items() if value != ""]
    lines += [f"{group}: {', '.join(names)}" for group, names in (*kinds.items(), *words.items())]
    lines += [] if kinds or words else ["words: any"]
    print("\n".join([*lines, *(f"{key}: {text}" for key, text in meaning.items())]))


def _is_absent(entry: Entry) -> bool:
    return not (entry.folder / INDEX_NAME).exists() and not is_pocket(entry.folder)


def _entry(name: str, config: Config) -> Entry:
    return build(config.models_folder, config.sources)[name]


def pull(name: str, source: Path | None, file: Path | None, flags: list[str]) -> None:
    """Install a model into the models folder, from the hub, a folder or an archive. It appears there when complete.

    Raises:
        MissingWeights: It can't be downloaded; the message has the reason and an alternative.
        ModelError: The files aren't a valid model.
    """
    config = settings_from(file, flags)
    models = build(config.models_folder, config.sources)
    if source is not None:
        folder = config.models_folder / _check_name(name, models)
        _install(name, expand_user(source), folder, known=name in models.entries or name == CLAP_NAME)
        return
    download = _download_of(name, models)
    if not download.source or Path(download.source).is_absolute():
        raise errors.BadRequest(f"{name} is a local folder ({download.folder}): there is nothing to download")
    _fetch(download)
    print(download.folder)


@dataclass(frozen=True)
class _Download:
    """A download from the hub: its name, hub id, licence, folder, and the patterns of its files."""

    name: str
    source: str
    licence: str
    folder: Path
    patterns: tuple[str, ...] = INSTALLED_PATTERNS


def _download_of(name: str, models: Registry) -> _Download:
    if name == CLAP_NAME and models.clap is not None:
        patterns = tuple(pattern for pattern in INSTALLED_PATTERNS if pattern != "*.bin")
        return _Download(name, models.clap.source, CLAP_LICENCE, models.clap.folder, patterns)
    entry = models[name]
    return _Download(name, entry.card.source, entry.card.licence, entry.folder)


def _check_name(name: str, models: Registry) -> str:
    """Return the name of a model if it can be a folder's name.

    Raises:
        BadRequest: It can't, or another model's folder has the same name on some systems.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise errors.BadRequest(f"{name!r} isn't a valid model name: use 1 to 100 letters, digits, dots and dashes")
    if fault := name_fault(name):
        raise errors.BadRequest(f"{fault}: choose another name for the model")
    for other in models.entries:
        if other != name and comparison_key(other) == comparison_key(name):
            raise errors.BadRequest(f"{name!r} is the same folder as {other!r} on some systems: write it {other}")
    return name


def _install(name: str, source: Path, folder: Path, known: bool) -> None:
    with Progress(*Progress.get_default_columns(), DownloadColumn(), console=error_console()) as bars:
        bar = bars.add_task(name)
        kept = install(source, folder, name, lambda done, total: bars.update(bar, completed=done, total=total))
    _report_kept(kept)
    if not known:
        error_console().print(f"to use it, set models.{name}.source to {folder}")
    print(folder)


def _fetch(download: _Download) -> None:
    """Download a model from the hub into a staging folder, then rename it to the model's folder."""
    import huggingface_hub

    name, source, patterns = download.name, download.source, download.patterns
    staging = staging_for(download.folder)
    begin_install(staging, download.folder, ["hub", source])
    error_console().print(f"downloading {source} into {download.folder} ({download.licence})")
    try:
        hashes = _hashes(huggingface_hub.HfApi().model_info(source, files_metadata=True), patterns)
        # shows a progress bar, and resumes an interrupted download
        huggingface_hub.snapshot_download(source, local_dir=staging, allow_patterns=list(patterns))
    except Exception as error:  # the hub's client raises many types
        raise errors.MissingWeights(
            f"{name} can't be downloaded from {source}: {errors.first_line(error)}; check the network, or "
            f"install a copy with: timbred models pull {name} --from FOLDER-OR-ARCHIVE"
        ) from error
    for path, expected in hashes.items():
        check_file(staging, path, expected, name)
    shutil.rmtree(staging / ".cache", ignore_errors=True)  # written by the hub's client into the staging folder
    for file in sorted(staging.rglob("*")):
        if file.is_file() and any(fnmatch(file.name, pattern) for pattern in patterns):
            installed.record_file(staging, file)
    _report_kept(finish(staging, download.folder, name))


def _report_kept(before: Path | None) -> None:
    if before is not None:
        error_console().print(f"the previous folder contained files that timbred didn't write; it was kept as {before}")


def _hashes(information: Any, patterns: tuple[str, ...]) -> dict[str, str]:
    """Return the SHA-256 hashes of all large files by name, as the hub lists them."""
    return {
        file.rfilename: file.lfs.sha256
        for file in information.siblings or []
        if file.lfs is not None and any(fnmatch(file.rfilename, pattern) for pattern in patterns)
    }


def convert(name: str, file: Path | None, flags: list[str]) -> None:
    """Write a model's .bin weights as safetensors in the same folder; the .bin files are then no longer read."""
    entry = _entry(name, settings_from(file, flags))
    checkpoint = entry.checkpoint()
    if not checkpoint.pickled:
        print(f"{name} has no .bin weights: there is nothing to convert")
        return
    command = torch_command("timbred.engine.families.component_loader", name, str(checkpoint.folder.absolute()))
    with error_console().status(f"converting {', '.join(checkpoint.pickled)}"):
        done = subprocess.run(  # torch is imported in a child process only
            command, stdout=subprocess.PIPE, text=True, check=False, env=child_environment(), cwd=safe_folder()
        )
    if done.returncode:
        raise errors.ModelError(f"{name} was not converted; the lines above say why")
    print(done.stdout, end="")


LORA_COLUMNS = {"name": "name", "model": "model", "rank": "rank", "licence": "licence", "state": "state",
           "remark": "remark"}  # fmt: skip


def lora_registry(config: Config) -> LoraRegistry:
    """Return the LoRAs and models of these settings."""
    return LoraRegistry(config.loras_folder, build(config.models_folder, config.sources))


def loras(as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print the LoRAs. Reads their files itself, without a daemon."""
    entries = lora_registry(settings_from(file, flags)).entries()
    rows = [_lora_row(entry) for entry in entries]
    show(rows, LORA_COLUMNS, as_json, "no LoRAs: timbred loras pull NAME --from FILE adds one")


def _lora_row(entry: LoraEntry) -> dict[str, object]:
    return {**{key: getattr(entry, key) for key in LORA_COLUMNS}, "path": str(entry.path)}


def pull_lora(name: str, source: Path, model: str, licence: str, file: Path | None, flags: list[str]) -> None:
    """Copy a LoRA into the LoRA folder, and print its path.

    Raises:
        BadRequest: It can't be used, or another LoRA has this name.
    """
    lora = add(expand_user(source), name, lora_registry(settings_from(file, flags)), model, licence)
    print(lora.path)


TAKE_COLUMNS = {"take_id": "take", "made": "made", "prompt": "prompt", "model": "model", "seed": "seed", "seconds": "s",
           "path": "file"}  # fmt: skip


def takes(search: str, limit: int, as_json: bool, file: Path | None, flags: list[str]) -> None:
    """Print the stored takes, newest first. Reads the library itself, without a daemon."""
    config = settings_from(file, flags)
    stored: list[StoredTake] = []
    spare_folder = config.spare_library_folder
    if config.library_file.exists() or (spare_folder and spare_file(spare_folder, config.library_file).exists()):
        library = open_library(config.library_file, spare_folder)
        try:
            stored = library.search(search, limit)
        finally:
            library.close()
    show(
        [_take_row(take) for take in stored],
        TAKE_COLUMNS,
        as_json,
        'no takes yet: timbred say "a bright bell" renders one',
    )


def _take_row(take: StoredTake) -> dict[str, object]:
    path = "" if take.path is None else str(take.path)
    return {
        "take_id": take.take_id,
        "made": datetime.fromtimestamp(take.created).astimezone().isoformat(timespec="seconds"),
        "prompt": take.prompt,
        "model": take.model,
        "seed": take.seed,
        "seconds": take.seconds,
        "rate": take.rate,
        "channels": take.channels,
        "path": f"{path} (missing)" if take.missing else path,
    }
