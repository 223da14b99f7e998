"""The start of a child process: how it is told where its daemon is, and how it tells that it can't start."""

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable

import zmq

TOKEN_VARIABLE = "TIMBRED_CHILD_TOKEN"
"""The environment variable with the token that a child shows its daemon. Other users can read command lines, but not
the environment of a process."""

SPARE_OPTION = "--spare"
"""The option of a process that only imports, and waits for a line with its address and token."""

WARM_LINE = b"warm\n"
"""Line that a spare process writes once its imports are done."""

SPARE_NICENESS = 15
"""Niceness of a spare process's imports, which no request waits for."""

LONGEST_LINE_BYTES = 4096

SENT_WITHIN_MS = 2000


def add_line_options(parser: argparse.ArgumentParser) -> None:
    """Give a child's parser the options `address`, `token` and `spare`."""
    parser.add_argument("--address", default="")
    parser.add_argument(SPARE_OPTION, action="store_true", help="import, and wait on standard input for an address")
    parser.set_defaults(token=os.environ.pop(TOKEN_VARIABLE, ""))


def wait_as_spare(options: argparse.Namespace, prepare: Callable[[], None]) -> None:
    """In a spare process, import and wait until it is needed; then `options` have its address and token. In any other
    process, do nothing. Ends the process when the daemon is gone.

    Args:
        options: As `add_line_options` had them read.
        prepare: Imports what the process needs. Runs in a thread of low priority, which the process itself can't leave.

    Raises:
        Exception: as `prepare`.
    """
    if not options.spare:
        return
    _in_thread_of_low_priority(prepare)
    os.write(sys.stdout.fileno(), WARM_LINE)
    line = b""
    while not line.endswith(b"\n"):
        # byte by byte: what follows belongs to whoever watches standard input next
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte or len(line) > LONGEST_LINE_BYTES:
            os._exit(0)
        line += byte
    options.address, options.token = json.loads(line)


def _in_thread_of_low_priority(work: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        if sys.platform == "linux":  # elsewhere niceness is the whole process's, and can't be taken back
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), SPARE_NICENESS)
        try:
            work()
        except BaseException as error:  # noqa: BLE001  raised where the thread is waited for
            failures.append(error)

    thread = threading.Thread(target=run, name="imports")
    thread.start()
    thread.join()
    for failure in failures:
        raise failure


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
