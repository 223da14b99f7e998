"""The start of a child process: how it is told where its daemon is, and how it tells that it can't start."""

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

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
    """In a spare process, import and wait until it is needed; then `options` have its address and token.

    In any other process, do nothing. Ends the process when the daemon is gone.

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


log = logging.getLogger(__name__)

THREAD_FAILED = 70
"""Exit status after a thread failed."""

CANNOT_START_STATUS = 2
"""Exit status of a child process that can't start."""

CLEANUP_TIMEOUT_S = 3.0
"""Seconds that a process has to end by itself after the daemon is gone."""


def end_with_daemon(address: str, gone: Callable[[], None] | None = None) -> None:
    """End this process as soon as the daemon closes its standard input.

    A daemon that was killed leaves the socket at `address` behind. It is removed, and its folder once that is empty.

    Args:
        address: Where the daemon's socket is bound.
        gone: Called first, in another thread. What it begins gets `CLEANUP_TIMEOUT_S` seconds.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # unbuffered: a buffer's lock would hold up the interpreter's end
            pass
        if address.startswith("ipc://"):
            socket = Path(address.removeprefix("ipc://"))
            with suppress(OSError):  # the daemon removed it, or removes it at its next start
                socket.unlink(missing_ok=True)
                socket.parent.rmdir()
        if gone is not None:
            gone()
            time.sleep(CLEANUP_TIMEOUT_S)
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()


def end_with_threads() -> None:
    """End this process when one of its threads fails: the daemon then starts another one, and says why."""

    def failed(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_type is SystemExit:
            return
        name = failure.thread.name if failure.thread else "a thread"
        error = failure.exc_value
        details = (failure.exc_type, error, failure.exc_traceback) if error is not None else None
        log.critical("the thread %s failed, so this process ends: %r", name, error, exc_info=details)
        leave(THREAD_FAILED)

    threading.excepthook = failed


def leave(status: int) -> NoReturn:
    """End at once: libraries' own threads may not survive the interpreter's usual end, nor drivers their clean-up."""
    logging.shutdown()
    with suppress(OSError):  # the log's disk is full, and the process must end all the same
        sys.stderr.flush()
    os._exit(status)
