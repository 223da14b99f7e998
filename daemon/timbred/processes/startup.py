"""The start of a child process: how it is told where its daemon is, and how it tells that it can't start."""

import argparse
import os

import zmq

TOKEN_VARIABLE = "TIMBRED_CHILD_TOKEN"
"""The environment variable with the token that a child shows its daemon. Other users can read command lines, but not
the environment of a process."""

SENT_WITHIN_MS = 2000


def add_line_options(parser: argparse.ArgumentParser) -> None:
    """Give a child's parser the options `address` and `token`."""
    parser.add_argument("--address", required=True)
    parser.set_defaults(token=os.environ.pop(TOKEN_VARIABLE, ""))


def send_last_words(address: str, frame: bytes) -> None:
    """Send the daemon one message, before the process ends."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as line:
        line.linger = SENT_WITHIN_MS
        line.connect(address)
        line.send(frame)


def reason_of(error: BaseException) -> str:
    """An error at the start in one line for the performer."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    if isinstance(error, ImportError | OSError):
        return f"{first}; install timbred anew, with all that it needs"
    return f"{type(error).__name__}: {first}; the log says more"
