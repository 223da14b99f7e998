"""`timbred devices` and `timbred takes`: lists as tables or as JSON."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from timbred.cli.serve import settings_from
from timbred.errors import NoAudioDevice
from timbred.ipc.isolation import child_environment, python_command, safe_folder
from timbred.storage.library import StoredTake, open_library, spare_file

WRAPPED_HEADINGS = ("prompt", "file", "remark", "found", "what to do")
"""Headings of columns whose text may be wrapped; names and numbers aren't."""

PIPE_WIDTH_CHARACTERS = 240
"""Line length if standard output isn't a terminal."""

Rows = Sequence[dict[str, Any]]


def show(rows: Rows, columns: dict[str, str], as_json: bool, empty: str) -> None:
    """Print rows as JSON, or as a table of some columns (key to heading)."""
    if as_json:
        print(json.dumps(list(rows), indent=2))
    elif not rows:
        print(empty)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in columns.values():
            table.add_column(heading, no_wrap=heading not in WRAPPED_HEADINGS, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row.get(key)) for key in columns))
        wide = None if sys.stdout.isatty() else PIPE_WIDTH_CHARACTERS
        Console(width=wide).print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


DEVICE_COLUMNS = {"number": "number", "name": "name", "driver": "driver", "channels": "channels", "rate": "Hz",
           "is_default": "default"}  # fmt: skip

LISTING_TIMEOUT_S = 30.0
"""Seconds after which the audio system counts as blocked."""


def devices(as_json: bool) -> None:
    """Print the output devices; `player.device` accepts a number or a part of a name.

    Raises:
        NoAudioDevice: The audio library is missing; the message has the remedy.
    """
    show(output_devices(), DEVICE_COLUMNS, as_json, "no audio output device: connect one, or start a JACK server")


def output_devices() -> list[dict[str, Any]]:
    """List the output devices, in a child process that loads the audio library.

    Raises:
        NoAudioDevice: The library is missing, or doesn't answer.
    """
    command = python_command("timbred.player.process.devices")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=True,
            env=child_environment(), cwd=safe_folder(),
        )  # fmt: skip
        listing = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise NoAudioDevice(f"the audio system doesn't answer: {error}") from error
    if "error" in listing:
        raise NoAudioDevice(listing["error"])
    return listing["devices"]


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
        [_row(take) for take in stored], TAKE_COLUMNS, as_json, 'no takes yet: timbred say "a bright bell" renders one'
    )


def _row(take: StoredTake) -> dict[str, object]:
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
