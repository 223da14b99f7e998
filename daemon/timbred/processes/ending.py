"""The end of a child process: with its daemon, or with a thread of its own that failed."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

log = logging.getLogger(__name__)

THREAD_FAILED = 70
"""Exit status after a thread failed."""

LEFT_WITHIN = 3.0
"""Seconds that a process has to end by itself after the daemon is gone."""


def end_with_daemon(address: str, gone: Callable[[], None] | None = None) -> None:
    """End this process as soon as the daemon closes its standard input.

    A daemon that was killed leaves the socket at `address` behind. It is removed, and its folder once that is empty.

    Args:
        address: Where the daemon's socket is bound.
        gone: Called first, in another thread. What it begins gets `LEFT_WITHIN` seconds.
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
            time.sleep(LEFT_WITHIN)
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
