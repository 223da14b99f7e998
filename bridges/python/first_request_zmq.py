"""Render a sound into an array, without a file; print its progress and size.

python bridges/python/first_request_zmq.py "a bright bell" --port 7771
"""

import argparse
import sys

from timbred.client import Sound, Timbred
from timbred.errors import TimbredError
from timbred.protocol.messages import Progress


def main(prompt: str, port: int | None) -> None:
    """Request a sound of one second."""
    with Timbred(requests=port) as timbred:
        for event in timbred.generate_events(prompt, seconds=1, to="none"):
            if isinstance(event, Progress):
                print(f"{event.fraction:.0%}", file=sys.stderr)
            if isinstance(event, Sound):
                frames, channels = event.samples.shape
                print(f"{frames} frames of {channels} channel(s), loudest {abs(event.samples).max():.3f}")


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("prompt", nargs="?", default="a deep punchy kick drum")
    options.add_argument("--port", type=int, help="port of ZeroMQ requests; by default the daemon is searched for")
    arguments = options.parse_args()
    try:
        main(arguments.prompt, arguments.port)
    except TimbredError as error:
        sys.exit(f"timbred: {error}")
