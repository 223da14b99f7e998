"""In a child process: leaving with the daemon, however it ended."""

import os
import sys
import threading


def end_with_daemon() -> None:
    """Leave as soon as the daemon closes our standard input."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # unbuffered: a buffer's lock would hold up the interpreter's end
            pass
        os._exit(0)

    threading.Thread(target=wait, name="end-with-daemon", daemon=True).start()
