"""In a child process: leaving with the daemon, however it ended."""

import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import NoReturn

SOCKETS = "timbred-"
"""How the folder of a daemon's sockets begins; the rest of its name is random."""


def end_with_daemon(address: str) -> None:
    """Leave as soon as the daemon closes our standard input. A daemon that was killed left the folder of the socket at
    `address` behind, so that goes too."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # unbuffered: a buffer's lock would hold up the interpreter's end
            pass
        folder = Path(address.removeprefix("ipc://")).parent
        if address.startswith("ipc://") and folder.name.startswith(SOCKETS):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()


def leave(status: int) -> NoReturn:
    """End at once: libraries' own threads may not survive the interpreter's usual end, nor drivers their clean-up."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
