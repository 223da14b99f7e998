"""`timbred devices`: where sound can be played."""

import json
import subprocess
from typing import Any

from timbred.cli.tables import show
from timbred.errors import NoAudioDevice
from timbred.processes.isolation import child_environment, python_command, safe_folder

COLUMNS = {"number": "number", "name": "name", "driver": "driver", "channels": "channels", "rate": "Hz",
           "is_default": "default"}  # fmt: skip

WITHIN = 30.0
"""Seconds that the sound system gets to answer."""


def devices(as_json: bool) -> None:
    """Print the output devices; `player.device` takes a number or a part of a name.

    Raises:
        NoAudioDevice: the sound library isn't there; says what to install.
    """
    show(output_devices(), COLUMNS, as_json, "no sound device that can play: plug one in, or start a JACK server")


def output_devices() -> list[dict[str, Any]]:
    """Every device that can play, asked of a process that has the sound library.

    Raises:
        NoAudioDevice: the library isn't there, or doesn't answer.
    """
    command = python_command("timbred.delivery.playback.listing")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=WITHIN, check=True,
            env=child_environment(), cwd=safe_folder(),
        )  # fmt: skip
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        raise NoAudioDevice(f"the sound system doesn't answer: {error}") from error
    if "error" in found:
        raise NoAudioDevice(found["error"])
    return found["devices"]
