"""Fallback library, used while the library's own file can't be used: on a disk that is read-only or has no locks.

The spare library is in the user's data folder. It begins as a copy of what can be read of the library itself, and what
was added to it is taken over when the library can be used again.
"""

import hashlib
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from timbred.errors import ForbiddenPath, TimbredError
from timbred.filenames import printable
from timbred.library.opening import copy_read_only
from timbred.library.schema import NewerLibrary
from timbred.library.takes import Library

log = logging.getLogger(__name__)


def spare_file(folder: Path, library: Path) -> Path:
    """The spare of a library, in `folder`."""
    digest = hashlib.blake2b(os.fsencode(library.absolute()), digest_size=8).hexdigest()
    return folder / f"library-{digest}.sqlite"


def open_library(file: Path, spare_folder: Path | None) -> Library:
    """Open the library, or its spare in `spare_folder` where the library itself can't be used; the log says so.

    Raises:
        TimbredError: neither can be used; says why the library can't.
    """
    spare = spare_file(spare_folder, file) if spare_folder is not None else None
    try:
        library = Library(file)
    except NewerLibrary:
        raise
    except TimbredError as error:
        if spare is None:
            raise
        opened = _spare(file, spare, error)
        log.warning("%s. Until then takes are remembered in %s", error, printable(str(spare)))
        return opened
    if spare is not None and spare.is_file():
        try:
            library.take_over(spare)
        except TimbredError as error:
            log.warning("takes in %s can't be taken over: %s", printable(str(spare)), error)
    return library


def _spare(file: Path, spare: Path, error: TimbredError) -> Library:
    try:
        spare.parent.mkdir(parents=True, exist_ok=True)
        if not spare.exists():
            with closing(sqlite3.connect(spare)) as copy:
                copy_read_only(file, copy)
        return Library(spare)
    except (TimbredError, OSError, sqlite3.Error) as another:
        log.debug("the spare library can't be used: %s", another)
        raise error from (another if isinstance(another, ForbiddenPath) else None)
