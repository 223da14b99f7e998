"""In a child process: leaving with the daemon, however it ended."""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

SOCKETS = "timbred-"
"""How the folder of a daemon's sockets begins; the rest of its name is random."""


LEFT_WITHIN = 3.0
"""Seconds that a process has to end by itself after the daemon is gone."""


def end_with_daemon(address: str, gone: Callable[[], None] | None = None) -> None:
    """Leave as soon as the daemon closes our standard input. A daemon that was killed left the folder of the socket at
    `address` behind, so that goes too. `gone` is told first, in another thread, and what it sets going has its time."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # unbuffered: a buffer's lock would hold up the interpreter's end
            pass
        folder = Path(address.removeprefix("ipc://")).parent
        if address.startswith("ipc://") and folder.name.startswith(SOCKETS):
            shutil.rmtree(folder, ignore_errors=True)
        if gone is not None:
            gone()
            time.sleep(LEFT_WITHIN)
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()


def leave(status: int) -> NoReturn:
    """End at once: libraries' own threads may not survive the interpreter's usual end, nor drivers their clean-up."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
