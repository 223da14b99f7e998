"""Send a request to the running daemon over OSC; print the answers, and the file's path last.

It needs the package python-osc, which timbred itself doesn't install.

    python -m pip install python-osc
    python bridges/python/first_request_osc.py "a bright bell" --port 7770
"""

import argparse
import socket
import sys
import uuid

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import build_msg

ANSWER_TIMEOUT_S = 60.0
"""Seconds without an answer after which the daemon counts as not running."""


def ask(port: int, prompt: str) -> str:
    """Request a sound of one second and return its file's path."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(ANSWER_TIMEOUT_S)
        line.connect(("127.0.0.1", port))
        line.send(build_msg("/timbred/generate", [uuid.uuid4().hex, prompt, "@seconds", 1.0]).dgram)
        while True:
            answer = OscMessage(line.recv(65536))
            _, *values = answer.params
            print(answer.address, *values, file=sys.stderr)
            if answer.address == "/timbred/done":
                return str(values[1])
            if answer.address in ("/timbred/fail", "/timbred/cancelled"):
                sys.exit(1)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("prompt", nargs="?", default="a deep punchy kick drum")
    options.add_argument("--port", type=int, default=7770)
    arguments = options.parse_args()
    print(ask(arguments.port, arguments.prompt))
