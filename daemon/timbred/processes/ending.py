"""In a child process: leaving with the daemon, however it ended."""

import os
import sys
import threading


def end_with_daemon() -> None:
    """Leave as soon as the daemon closes our standard input."""

    def wait() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()
