"""Standard output and error that take every text, whatever the console's encoding is."""

import codecs
import contextlib
import io
import os
import sys
from typing import TextIO

ERRORS = "timbred-console"
"""Name of the error handler: what the console can't show is escaped; bytes of paths are passed on as they are."""


def take_any_text(*streams: TextIO | None) -> None:
    r"""Let text that a stream's encoding lacks be written as escapes (`\u2603`) rather than raise.

    Parts of paths that aren't UTF-8 are written as the bytes that they are, so that a shell can use the path.
    """
    codecs.register_error(ERRORS, _escaped)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def finish_output() -> None:
    """Write out what standard output holds.

    Raises:
        OSError: it can't be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Let what standard output still holds go nowhere, so that the interpreter's end doesn't raise."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    escaped = b"".join(
        bytes([ord(letter) - 0xDC00]) if "\udc80" <= letter <= "\udcff" else ascii(letter)[1:-1].encode()
        for letter in part
    )
    return escaped, error.end
