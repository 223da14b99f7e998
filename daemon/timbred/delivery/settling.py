"""What was published is brought to the disk in the background: a disk takes longer for that than a take may wait."""

import errno
import logging
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LATER = sys.platform != "win32"
"""Whether files can be brought to the disk after they have their name. On Windows nobody can move or delete an open
file, and folders can't be written out; there a file is brought to the disk before."""

log = logging.getLogger(__name__)


class Settling:
    """Brings files and folders to the disk, one after the other, in a thread. Safe for threads.

    What is published is in the system's hands: it outlives this process, however that ends. Only when the power fails
    before it is settled can it be lost.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="settling")

    def add(self, paths: Iterable[Path]) -> None:
        """Bring these to the disk, in this order, after all that was added before. What is gone by then is let go."""
        if LATER:
            self._thread.submit(_settle, tuple(paths))

    def wait(self) -> None:
        """Until all that was added is on the disk, as far as the disk takes it."""
        self._thread.submit(lambda: None).result()


def _settle(paths: tuple[Path, ...]) -> None:
    for path in paths:
        try:
            _synchronize(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            # some file systems have no way to write a folder out; all others mean trouble with the disk
            level = logging.DEBUG if error.errno == errno.EINVAL else logging.WARNING
            log.log(level, "%s would be lost if the power failed now: %s", path, error.strerror)
        except Exception:  # nobody waits for the result, so it is told here
            log.exception("%s would be lost if the power failed now", path)


def _synchronize(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
