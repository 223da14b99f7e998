"""The sound devices as JSON on standard output: `python -m timbred.delivery.playback.listing`.

A program of its own, so that the command line needs no sound library to ask.
"""

import json
import sys
from dataclasses import asdict

from timbred.delivery.playback.devices import output_devices
from timbred.errors import NoAudioDevice


def listing() -> dict[str, object]:
    """`devices`, or the `error` that says what to install."""
    try:
        return {"devices": [asdict(device) for device in output_devices()]}
    except NoAudioDevice as error:
        return {"error": str(error)}


if __name__ == "__main__":
    json.dump(listing(), sys.stdout)
